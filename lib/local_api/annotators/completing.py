"""Simulated annotators: plausible answers to chat requests without any model.

Decides what a model of a given size would roughly answer, how many tokens that takes and how it
ends. Deterministic by model, text, schema and custom_id; the attempt at the end of a custom_id
changes nothing. Weak on purpose, and marked as simulated by the fingerprint. Refuses to follow
anything that a document says.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import toktok

from lib import models
from lib.local_api.annotators import generate, plan, reading, tokens
from lib.local_api.annotators.noise import SKILLS, Noise, salt, seed, uniform

_START = re.compile(r"<<<DOCUMENT[ ]?([^\s<>]*)>>>\r?\n?")
_ATTEMPT = re.compile(r"-a\d+$")
_REFUSAL = "I'm sorry, but I can't help with that."
_EFFORT_TOKENS = {
    "none": 0,
    "minimal": 12,
    "low": 120,
    "medium": 380,
    "high": 1100,
    "xhigh": 2400,
    "max": 4800,
}
_SIZE_FACTOR = {"nano": 1.3, "mini": 1.0, "large": 0.8}
_REASONING_BLOCK = 64


@dataclass(frozen=True)
class _Usage:
    """Tokens of a whole answer, and the most that reasoning and visible part may take."""

    n_input: int
    n_reasoning: int
    n_visible: int
    cap: int


@dataclass(frozen=True)
class Completion:
    """One simulated answer with its usage; `n_output_tokens` includes the reasoning."""

    content: str | None
    refusal: str | None
    finish_reason: str
    n_input_tokens: int
    n_cached_tokens: int
    n_output_tokens: int
    n_reasoning_tokens: int
    fingerprint: str


def complete(body: Mapping[str, Any], custom_id: str, model: models.Model) -> Completion:
    """Answer a chat request as a model of this size might.

    >>> request = {"messages": [{"role": "user", "content": "Lovely soup."}]}
    >>> complete(request, "r-a0", models.facts("gpt-5-nano")).content
    'Simulated answer: Lovely soup.'
    """
    messages = [(str(one.get("role", "")), tokens.text_of(one)) for one in body["messages"]]
    text = document(messages)
    noise = Noise(
        seed(text),
        seed(model.name, text),
        seed(model.name, text, _ATTEMPT.sub("", custom_id)),
        SKILLS[model.size],
    )
    schema = tokens.schema_of(body)
    is_refused = uniform(noise.request, salt("refusal")) < noise.skill.p_refusal
    visible = _REFUSAL if is_refused else _visible(body, schema, text, noise)
    return _capped(_usage(body, model, noise, visible), model, visible, is_refused)


def document(messages: Sequence[tuple[str, str]]) -> str:
    """The text to read: what stands between markers in the last user message, or all of it.

    Only an end marker with the digest of the start marker ends the document.

    >>> document([("user", "<<<DOCUMENT 1f>>>\\nSoup. <<<END DOCUMENT>>>\\n<<<END DOCUMENT 1f>>>")])
    'Soup. <<<END DOCUMENT>>>'
    """
    said = next((text for role, text in reversed(messages) if role == "user"), "")
    start = _START.search(said)
    if not start:
        return said
    end = said.rfind(f"<<<END DOCUMENT {start[1]}".rstrip() + ">>>")
    inside = said[start.end() : end if end >= start.end() else len(said)]
    return inside.removesuffix("\n")


def _visible(body: Mapping[str, Any], schema: bytes, text: str, noise: Noise) -> str:
    """The answer's text: JSON for a schema, a small object for JSON mode, else a sentence."""
    if schema:
        return orjson.dumps(generate.answer(plan.compiled(schema), text, noise)).decode()
    read = reading.read(text)
    said = f"Simulated answer: {read.quote(read.sentence_at(0))}".strip()
    is_json = (body.get("response_format") or {}).get("type") == "json_object"
    return orjson.dumps({"answer": said}).decode() if is_json else said


def _usage(body: Mapping[str, Any], model: models.Model, noise: Noise, visible: str) -> _Usage:
    """What the whole answer would take, and the cap that the request sets."""
    n_input = tokens.n_input_tokens(body, model.encoding)
    n_visible = tokens.n_tokens(visible, model.encoding)
    n_reasoning = _n_reasoning_tokens(body, model, noise, n_input + 50 * n_visible)
    cap = body.get("max_completion_tokens") or body.get("max_tokens") or n_reasoning + n_visible
    return _Usage(n_input, n_reasoning, n_visible, cap)


def _capped(usage: _Usage, model: models.Model, visible: str, is_refused: bool) -> Completion:
    """The completion under its cap: reasoning first, then as much of the answer as fits."""
    is_whole = usage.n_reasoning + usage.n_visible <= usage.cap
    n_reasoning = min(usage.n_reasoning, usage.cap)
    n_visible = min(usage.n_visible, usage.cap - n_reasoning)
    kept = visible if is_whole else toktok.truncate(visible, n_visible, model.encoding)[0]
    return Completion(
        content=None if is_refused and is_whole else kept,
        refusal=visible if is_refused and is_whole else None,
        finish_reason="stop" if is_whole else "length",
        n_input_tokens=usage.n_input,
        n_cached_tokens=0,
        n_output_tokens=n_reasoning + n_visible,
        n_reasoning_tokens=n_reasoning,
        fingerprint=f"fp_simulated_{seed(model.name):016x}"[:23],
    )


def _n_reasoning_tokens(
    body: Mapping[str, Any], model: models.Model, noise: Noise, work_tokens: int
) -> int:
    """Reasoning tokens in blocks of 64: more for effort, long texts and long answers."""
    effort = body.get("reasoning_effort") or model.default_effort
    if not model.reasoning or not effort:
        return 0
    usual = _EFFORT_TOKENS.get(effort, _EFFORT_TOKENS["medium"]) * _SIZE_FACTOR[model.size]
    drawn = usual * (0.5 + work_tokens / 6000) * 2.0 ** (0.7 * noise.z(salt("reasoning")))
    return round(drawn / _REASONING_BLOCK) * _REASONING_BLOCK
