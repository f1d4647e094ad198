"""Requests: what is asked, as bodies that cache well and keys that name their content.

A body is a pure function of study, annotator and text. The static part comes first; the text
stands in its own message between markers that carry its digest, which the text cannot contain, so
that it cannot end itself early. Nothing here sends anything.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
import pandas as pd

from lib import models, tokens
from lib.fields import Attribute, Field, Value
from lib.study import Annotator, Study

ENDPOINT = "/v1/chat/completions"
DEFAULT_CAP_TOKENS = 4000
_SAME = ("annotator", "model", "n_prefix_tokens", "max_output_tokens")
_TYPES = {"text": "string", "integer": "integer", "number": "number", "boolean": "boolean"}


def schema(fields: Mapping[str, Field]) -> dict[str, Any]:
    """The strict JSON schema of an answer: every field required, nothing else allowed.

    Follows the subset of the structured output guide: closed objects, nullable instead of optional.
    """
    return _object({name: _field_schema(field) for name, field in fields.items()})


def field_guide(fields: Mapping[str, Field]) -> str:
    """The fields and their values as the instructions explain them."""
    return "\n\n".join(f"## {name}\n{_described(field)}" for name, field in fields.items())


def instructions(study: Study) -> str:
    """The static system message: the study's prompt.

    The schema explains the fields to the model already. A prompt that wants to explain them too,
    for their price in tokens, has the guide put in at `{fields}`.
    """
    return study.prompt.replace("{fields}", field_guide(study.fields))


def enclose(text: str) -> str:
    """The user message: the text between markers with its digest.

    >>> print(enclose("Lovely soup."))
    <<<DOCUMENT a1b7032a51b8a374>>>
    Lovely soup.
    <<<END DOCUMENT a1b7032a51b8a374>>>
    """
    mark = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"<<<DOCUMENT {mark}>>>\n{text}\n<<<END DOCUMENT {mark}>>>"


def body(study: Study, model: str, annotator: Annotator, cap: int, text: str) -> dict[str, Any]:
    """The request body for one text: model, messages, strict schema, and the family's parameters.

    `cap` bounds the answer's tokens, reasoning included, under the name that the family wants.
    """
    settings = {k: v for k, v in annotator.parameters.items() if k != "max_output_tokens"}
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": instructions(study)},
            {"role": "user", "content": enclose(text)},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema(study.fields)},
        },
        models.facts(model).cap_parameter: cap,
        **settings,
    }


def cap_of(annotator: Annotator) -> int:
    """The most tokens that an answer may cost, reasoning included."""
    return int(annotator.parameters.get("max_output_tokens", DEFAULT_CAP_TOKENS))


def key(template: str, text_sha256: str, repeat: int) -> str:
    """The content address of a request: equal questions have equal keys on every machine.

    It names the first attempt: a retry with a larger cap or a fallback model keeps the key.
    """
    return hashlib.sha256(f"{template}:{text_sha256}:{repeat}".encode()).hexdigest()


def template(study: Study, annotator: Annotator) -> str:
    """The digest of everything in a body but the text; a change in it makes new requests."""
    sample = body(study, annotator.model, annotator, cap_of(annotator), "")
    return hashlib.sha256(orjson.dumps([ENDPOINT, sample], option=orjson.OPT_SORT_KEYS)).hexdigest()


def custom_id(request_key: str, attempt: int) -> str:
    """The id of one line sent: 160 bits of the key, and the attempt.

    >>> custom_id("ab" * 32, 1)
    'qabababababababababababababababababababab-a1'
    """
    return f"q{request_key[:40]}-a{attempt}"


def read_custom_id(name: str) -> tuple[str, int]:
    """The part of the key that a `custom_id` shows, and the attempt.

    >>> read_custom_id("qabababababababababababababababababababab-a1")
    ('abababababababababababababababababababab', 1)
    """
    digits, _, attempt = name.removeprefix("q").partition("-a")
    return digits, int(attempt)


def line(study: Study, model: str, annotator: Annotator, cap: int, text: str, name: str) -> bytes:
    """One line of a shard, with its newline; for many lines take `frame` once and `fill` it."""
    return fill(frame(study, model, annotator, cap), text, name)


def frame(
    study: Study, model: str, annotator: Annotator, cap: int, url: str = ENDPOINT, called: str = ""
) -> tuple[bytes, bytes]:
    """The bytes before and after the text that all lines with these settings share.

    `url` and `called` are what a service wants to stand there for the endpoint and the model.
    """
    content = body(study, model, annotator, cap, "") | {"model": called or model}
    whole = orjson.dumps({"method": "POST", "url": url, "body": content})
    # Subtle: quotes inside of JSON strings are escaped, so only the message itself looks like this.
    message = orjson.dumps(content["messages"][1])
    before, after = whole.split(message)
    head, tail = message.split(orjson.dumps(enclose("")))
    return before[1:] + head, tail + after + b"\n"


def fill(parts: tuple[bytes, bytes], text: str, name: str) -> bytes:
    """The line that asks about `text` under the custom_id `name`."""
    before, after = parts
    custom, content = orjson.dumps(name), orjson.dumps(enclose(text))
    return b'{"custom_id":' + custom + b"," + before + content + after


def requests(study: Study, items: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """One row a request for every item, annotator and repeat, a frame for each frame of items.

    Columns: key, item, annotator, repeat, model, n_input_tokens (prefix included),
    n_prefix_tokens, max_output_tokens, n_bytes (of the line). Items with equal text share keys.
    """
    plans = [_plan(study, name) for name in study.annotators]
    for frame in items:
        contents = [enclose(text) for text in frame["text"]]
        sizes = [len(orjson.dumps(content)) for content in contents]
        encodings = {plan["encoding"] for plan in plans}
        counts = {name: tokens.count_requests([], contents, name)[1] for name in encodings}
        asked = [_asked(frame, plan, counts[plan["encoding"]], sizes) for plan in plans]
        yield pd.concat(asked, ignore_index=True)


def sample(items: pd.Series, n: int) -> pd.Series:
    """Which items a random sample of `n` holds; 0 takes all, and a larger one holds the smaller.

    >>> items = pd.Series([f"r{i}" for i in range(9)])
    >>> bool((sample(items, 3) <= sample(items, 5)).all()), int(sample(items, 5).sum())
    (True, 5)
    """
    return pd.Series(True, index=items.index) if n == 0 else draw_order(items) <= n


def draw_order(items: pd.Series) -> pd.Series:
    """The place of each item in the random order in which samples are drawn, from 1.

    The order comes from the items' ids alone, so that it is the same in every run.
    """
    drawn = items.map(lambda item: hashlib.sha256(item.encode()).hexdigest())
    return drawn.rank(method="dense").astype("int64")


def _plan(study: Study, name: str) -> dict[str, Any]:
    """What all requests of one annotator have in common."""
    annotator = study.annotators[name]
    cap = cap_of(annotator)
    empty = body(study, annotator.model, annotator, cap, "")
    encoding = models.facts(annotator.model).encoding
    static, answer_format = empty["messages"][:1], empty["response_format"]
    shortest = line(study, annotator.model, annotator, cap, "", custom_id("0" * 64, 0))
    return {
        "annotator": name,
        "model": annotator.model,
        "repeats": annotator.repeats,
        "encoding": encoding,
        "template": template(study, annotator),
        "n_prefix_tokens": tokens.count_requests(static, [], encoding, answer_format)[0],
        "n_bytes": len(shortest) - len(orjson.dumps(enclose(""))),
        "max_output_tokens": cap,
    }


def _asked(
    frame: pd.DataFrame, plan: Mapping[str, Any], counts: list[int], sizes: list[int]
) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "item": frame["item"].to_numpy(),
            "sha256": frame["sha256"].to_numpy(),
            "n_input_tokens": plan["n_prefix_tokens"] + pd.Series(counts, dtype="int64"),
            "n_bytes": plan["n_bytes"] + pd.Series(sizes, dtype="int64"),
        }
    )
    rows = rows.loc[rows.index.repeat(plan["repeats"])].reset_index(drop=True)
    rows["repeat"] = list(range(plan["repeats"])) * len(frame)
    rows["key"] = [
        key(plan["template"], sha256, repeat)
        for sha256, repeat in zip(rows.pop("sha256"), rows["repeat"], strict=True)
    ]
    return rows.assign(**{name: plan[name] for name in _SAME})


def _described(field: Field | Attribute) -> str:
    """A field's description with its values, their cues, its condition and its default."""
    text = field.description.strip()
    if isinstance(field, Attribute):
        return text
    if field.when:
        text += f" Applies only when {field.when} is true."
    if field.default:
        text += f" Default: {field.default}."
    if field.values:
        text += "\nValues:\n" + "\n".join(_value_line(name, v) for name, v in field.values.items())
    return text


def _value_line(name: str, value: Value) -> str:
    cues = ", ".join(f'"{cue}"' for cue in value.cues)
    return f"- {name}: {value.description.strip()}" + (f" Cues: {cues}." if cues else "")


def _field_schema(field: Field) -> dict[str, Any]:
    described = {"description": _described(field)}
    if field.type == "entities":
        name = {"type": "string", "description": "The name as the text has it."}
        members = {"name": name, **{k: _attribute(a) for k, a in field.attributes.items()}}
        return {"type": "array", **described, "items": _object(members)}
    if field.type == "category":
        return {"type": "string", "enum": field.allowed, **described}
    return {"type": _TYPES[field.type], **described, **_bounds(field)}


def _attribute(attribute: Attribute) -> dict[str, Any]:
    described = {"description": _described(attribute), **_bounds(attribute)}
    if attribute.type == "names":
        return {"type": "array", "items": {"type": "string"}, **described}
    kind = {"type": [_TYPES[attribute.type], "null"], **described}
    return {**kind, "enum": [*attribute.values, None]} if attribute.values else kind


def _bounds(part: Field | Attribute) -> dict[str, float]:
    bounds = {"minimum": part.minimum, "maximum": part.maximum}
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _object(members: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": members,
        "required": list(members),
        "additionalProperties": False,
    }
