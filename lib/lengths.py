"""How long answers will be: guessed from schema and effort, or measured by a canary.

Guesses are marked as such where they stand. What no guess can bound is bounded by the cap of a
request, which `estimate` applies.
"""

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from lib import models, tokens
from lib.study import Annotator

# Our assumption, low and expected, to be replaced by a canary: tokens that a model thinks before it
# answers a short text. How far they can run shows an earlier project: at the default effort 75,497
# of 76,008 answers spent all of 3,000 tokens on reasoning.
REASONING_TOKENS = {
    "none": (0, 0),
    "minimal": (0, 60),
    "low": (50, 300),
    "medium": (300, 1_500),
    "high": (1_000, 4_000),
    "xhigh": (2_000, 8_000),
    "max": (4_000, 16_000),
}
# Our assumption for what a schema leaves open: members of a list, and the words of a free text.
LIST_MEMBERS = 3
TYPICAL_TEXT = "as the text has it"


class OutputTokens(NamedTuple):
    """Tokens of one answer, reasoning included, before its cap; `high` None means the cap."""

    low: float
    expected: float
    high: float | None
    reasoning: float


def visible_output_tokens(schema: Mapping) -> tuple[int, int]:
    """The tokens of the shortest answer that a schema of `prompts` allows, and of a typical one.

    >>> visible_output_tokens({"type": "object", "properties": {"relevant": {"type": "boolean"}}})
    (6, 6)
    """
    answers = [_answer(schema, typical) for typical in (False, True)]
    texts = [json.dumps(a, ensure_ascii=False, separators=(",", ":")) for a in answers]
    low, expected = tokens.count(texts)
    return min(low, expected), expected


def _answer(schema: Mapping, typical: bool) -> object:
    if "enum" in schema:
        return (max if typical else min)(schema["enum"], key=_length)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    kind = "null" if "null" in kinds and not typical else kinds[0]
    if kind == "object":
        return {name: _answer(one, typical) for name, one in schema["properties"].items()}
    if kind == "array":
        return [_answer(schema["items"], typical)] * (LIST_MEMBERS if typical else 0)
    text = TYPICAL_TEXT if typical else ""
    return {"string": text, "integer": 1815, "number": 0.5, "boolean": True}.get(kind)


def _length(value: object) -> int:
    return len(json.dumps(value))


def measure(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Mean output tokens per annotator, with their 95% interval, from answers that came in.

    Takes every answer with usage, since empty and truncated ones are paid as well. Columns:
    annotator, n_answers, n_output_tokens, n_output_tokens_low, n_output_tokens_high,
    n_reasoning_tokens. One answer has no interval: its annotator is left out.
    """
    used = outcomes[outcomes["n_output_tokens"].notna()]
    rows = [
        {"annotator": annotator, **_interval(group)}
        for annotator, group in used.groupby("annotator", sort=True)
        if len(group) > 1
    ]
    names = ("", "_low", "_high")
    columns = ["annotator", "n_answers", *(f"n_output_tokens{name}" for name in names)]
    return pd.DataFrame(rows, columns=[*columns, "n_reasoning_tokens"])


def _interval(answers: pd.DataFrame) -> dict[str, float]:
    output = answers["n_output_tokens"].astype(float)
    half = _t95(len(output) - 1) * output.std() / math.sqrt(len(output))
    return {
        "n_answers": len(output),
        "n_output_tokens": output.mean(),
        "n_output_tokens_low": max(output.mean() - half, 0.0),
        "n_output_tokens_high": output.mean() + half,
        "n_reasoning_tokens": answers["n_reasoning_tokens"].astype(float).fillna(0).mean(),
    }


def _t95(n_free: int) -> float:
    """Student's t for 95%: from a table where it is steep, else Fisher's expansion in 1/n."""
    steep = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
    z = 1.959964
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return steep.get(n_free, z + first / n_free + second / n_free**2)


def answer_tokens(
    annotators: Mapping[str, Annotator],
    schema: Mapping,
    measured: pd.DataFrame | None = None,
    table: models.Table | None = None,
) -> dict[str, OutputTokens]:
    """The tokens of an answer by annotator: measured where there is a measure, else guessed."""
    visible_low, visible = visible_output_tokens(schema)
    known = {} if measured is None else measured.set_index("annotator").to_dict("index")
    found = {}
    for name, annotator in annotators.items():
        row = known.get(name)
        if row is None:
            low, expected = _reasoning(annotator, table)
            found[name] = OutputTokens(visible_low + low, visible + expected, None, expected)
        else:
            columns = ("n_output_tokens_low", "n_output_tokens", "n_output_tokens_high")
            found[name] = OutputTokens(*(row[c] for c in columns), row["n_reasoning_tokens"])
    return found


def _reasoning(annotator: Annotator, table: models.Table | None) -> tuple[int, int]:
    model = models.facts(annotator.model, table)
    if not model.reasoning:
        return REASONING_TOKENS["none"]
    effort = annotator.parameters.get("reasoning_effort") or model.default_effort or "medium"
    return REASONING_TOKENS.get(effort, REASONING_TOKENS["max"])
