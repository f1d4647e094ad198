"""Requests: schemas that the service accepts, texts that stay inside, keys that name content."""

import hashlib
import json

import jsonschema
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import prompts, runs, tokens
from lib import study as studies
from lib.study import Study

ALLERGY, BOOKS = (studies.load(runs.ROOT / "data" / name) for name in ("allergy", "books"))
ALLOWED_WORDS = {
    "type",
    "description",
    "enum",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minimum",
    "maximum",
}


def changed(study, **parts):
    """The study with some of its entries replaced, checked again."""
    return Study.model_validate(study.model_dump() | parts)


def annotator(study, **parts):
    """The study with one entry of its annotator luna replaced."""
    panels = json.loads(study.model_dump_json())["panels"]
    panels[study.panel]["annotators"]["luna"] |= parts
    return Study.model_validate(study.model_dump() | {"panels": panels})


def items(*texts):
    """Items with these texts."""
    return pd.DataFrame(
        {
            "item": [f"i{n}" for n in range(len(texts))],
            "text": texts,
            "sha256": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
        }
    )


def asked(study, *texts):
    """All requests about these texts."""
    return pd.concat(prompts.requests(study, [items(*texts)]), ignore_index=True)


def parts_of(schema, depth=0):
    """Every schema inside a schema, with its depth."""
    yield schema, depth
    for inner in schema.get("properties", {}).values():
        yield from parts_of(inner, depth + 1)
    if "items" in schema:
        yield from parts_of(schema["items"], depth + 1)


@pytest.mark.parametrize("study", [ALLERGY, BOOKS], ids=lambda study: study.name)
def test_schema_obeys_the_strict_subset(study):
    """Closed objects, every member required, only words of the subset, at most ten levels."""
    schema = prompts.schema(study.fields)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert list(schema["properties"]) == list(study.fields)
    for part, depth in parts_of(schema):
        assert set(part) <= ALLOWED_WORDS
        assert depth <= 10
        if part["type"] == "object":
            assert part["additionalProperties"] is False
            assert part["required"] == list(part["properties"])


def test_schema_of_every_kind_of_field():
    """Each type has its JSON form; what may be unknown is null and not left out."""
    described = {"description": "-"}
    attributes = {
        "age": {**described, "type": "integer", "minimum": 0},
        "kin": {**described, "type": "names"},
        "rank": {**described, "values": ["low", "high"]},
    }
    fields = changed(
        ALLERGY,
        fields={
            "mood": {**described, "values": {"calm": described, "angry": described}},
            "loud": {**described, "type": "boolean"},
            "count": {**described, "type": "integer", "minimum": 0, "maximum": 9},
            "who": {**described, "type": "entities", "attributes": attributes},
        },
    ).fields
    found = prompts.schema(fields)["properties"]
    assert found["loud"]["type"] == "boolean"
    assert (found["count"]["minimum"], found["count"]["maximum"]) == (0, 9)
    members = found["who"]["items"]["properties"]
    assert members["age"]["type"] == ["integer", "null"]
    assert members["kin"]["items"] == {"type": "string"}
    assert members["rank"]["enum"] == ["low", "high", None]
    good = {"mood": "calm", "loud": True, "count": 3}
    one = {"name": "Ann", "age": None, "kin": [], "rank": None}
    jsonschema.validate({**good, "who": [one]}, prompts.schema(fields))
    for wrong in ({"mood": "sad"}, {"count": 10}, {"who": [{"name": "Ann"}]}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, "who": [one], **wrong}, prompts.schema(fields))


@given(st.text())
def test_a_text_cannot_end_itself(text):
    """The end mark stands once, at the end, even in a text that imitates the marks."""
    imitated = prompts.enclose(text)
    enclosed = prompts.enclose(imitated)
    mark = enclosed.split("\n")[0][len("<<<DOCUMENT ") : -len(">>>")]
    assert enclosed.count(f"<<<END DOCUMENT {mark}>>>") == 1
    assert enclosed.endswith(f"\n<<<END DOCUMENT {mark}>>>")
    assert enclosed == f"<<<DOCUMENT {mark}>>>\n{imitated}\n<<<END DOCUMENT {mark}>>>"


@pytest.mark.parametrize("study", [ALLERGY, BOOKS], ids=lambda study: study.name)
def test_sizes_and_tokens_are_exact(study):
    """n_bytes is the length of the line and n_input_tokens what its messages and schema count."""
    texts = ["Lovely soup.", 'A "quoted"\\ line\nand\u2028 another \U0001f35c', "x" * 3000, ""]
    rows = asked(study, *texts)
    by_item = dict(zip(items(*texts)["item"], texts, strict=True))
    for row in rows.to_dict("records"):
        one = study.annotators[row["annotator"]]
        settings_ = (study, row["model"], one, row["max_output_tokens"], by_item[row["item"]])
        line = prompts.line(*settings_, prompts.custom_id(row["key"], 0))
        assert len(line) == row["n_bytes"]
        body = orjson.loads(line)["body"]
        assert body == prompts.body(*settings_)
        encoding = "o200k_base"
        n_tokens = tokens.count_messages(body["messages"], encoding, body["response_format"])
        assert n_tokens == row["n_input_tokens"]


def test_a_row_for_every_vote():
    """2 texts x (1 terra + 3 luna) = 8 requests, each with its own key; repeats count from 0."""
    rows = asked(ALLERGY, "Good.", "Bad.")
    assert len(rows) == 8
    assert rows["key"].is_unique
    luna = rows[rows["annotator"].eq("luna")]
    assert luna.groupby("item")["repeat"].apply(list).to_dict() == {
        "i0": [0, 1, 2],
        "i1": [0, 1, 2],
    }


def test_equal_texts_share_keys():
    """Two items with the same text are one question."""
    rows = asked(ALLERGY, "Good.", "Good.")
    first, second = (rows.loc[rows["item"].eq(item), "key"].tolist() for item in ("i0", "i1"))
    assert first == second


@settings(max_examples=50)
@given(st.text(), st.text(min_size=1).filter(lambda text: text.strip()))
def test_lines_are_spliced_exactly(text, prompt):
    """Filling a frame gives the line that writing the whole request would give."""
    hostile = prompt + '{"role":"user","content":""}' + prompts.enclose("")
    study = ALLERGY.model_copy(update={"prompt": hostile})
    one = study.annotators["luna"]
    line = prompts.line(study, one.model, one, 2000, text, "q1-a0")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    whole = {"custom_id": "q1-a0", "method": "POST", "url": "/v1/chat/completions"}
    whole["body"] = prompts.body(study, one.model, one, 2000, text)
    assert line == orjson.dumps(whole) + b"\n"


def key(study, text="Good.", repeat=1):
    """The key of one of luna's requests."""
    rows = asked(study, text)
    return rows.loc[rows["annotator"].eq("luna") & rows["repeat"].eq(repeat), "key"].item()


@pytest.mark.parametrize(
    "other",
    [
        key(changed(ALLERGY, prompt="Other words.")),
        key(ALLERGY, text="Good!"),
        key(ALLERGY, repeat=2),
        key(annotator(ALLERGY, model="gpt-6-sol")),
        key(annotator(ALLERGY, parameters={"reasoning_effort": "low"})),
        key(annotator(ALLERGY, parameters={"reasoning_effort": "high", "max_output_tokens": 2000})),
        key(changed(ALLERGY, fields=dict(reversed(ALLERGY.model_dump()["fields"].items())))),
    ],
    ids=["prompt", "text", "repeat", "model", "no cap", "effort", "order of fields"],
)
def test_another_question_has_another_key(other):
    """Prompt, text, model, parameters, fields and repeat are all part of the question."""
    assert other != key(ALLERGY)


@pytest.mark.parametrize(
    "same",
    [
        key(changed(ALLERGY, title="Other", question="Other?", k=[7])),
        key(changed(ALLERGY, voting={"quorum": 0.1}, sending={"canary": 3})),
        key(annotator(ALLERGY, weight=3.0)),
        key(annotator(ALLERGY, fallback=[])),
        key(annotator(ALLERGY, repeats=5)),
        key(changed(ALLERGY, policies={})),
    ],
    ids=["titles", "voting", "weight", "fallback", "more repeats", "policies"],
)
def test_the_same_question_keeps_its_key(same):
    """What the model never sees changes no key, so that nothing is paid twice."""
    assert same == key(ALLERGY)


def test_keys_are_the_same_everywhere():
    """A key is the digest of three words that are the same on every machine."""
    assert prompts.key("t" * 64, "s" * 64, 0) == (
        hashlib.sha256(f"{'t' * 64}:{'s' * 64}:0".encode()).hexdigest()
    )


def test_ids_are_short_and_plain():
    """A custom_id has at most 64 plain characters, whatever the attempt."""
    name = prompts.custom_id("0123456789abcdef" * 4, 10)
    assert name == "q0123456789abcdef0123456789abcdef01234567-a10"
    assert len(name) <= 64


def test_the_guide_goes_where_the_prompt_wants_it():
    """`{fields}` is replaced by fields, values, cues, conditions and defaults; else nothing is."""
    study = changed(ALLERGY, prompt="Read.\n{fields}\nAnswer.")
    text = prompts.instructions(study)
    assert text.startswith("Read.\n## relevant\n")
    assert text.endswith("\nAnswer.")
    assert "Applies only when relevant is true. Default: hypothetical." in text
    assert "- severe: An emergency, with epinephrine" in text
    assert prompts.instructions(changed(ALLERGY, prompt="Read {it}.")) == "Read {it}."


def test_parameters_take_the_names_of_the_family():
    """`max_output_tokens` becomes the cap parameter of the model; the others stay as they are."""
    luna = ALLERGY.annotators["luna"]
    body = prompts.body(ALLERGY, "gpt-6-luna", luna, 700, "Good.")
    assert (body["max_completion_tokens"], body["reasoning_effort"]) == (700, "low")
    assert "max_output_tokens" not in body
    assert prompts.body(ALLERGY, "gpt-4o-mini", luna, 700, "Good.")["max_tokens"] == 700
    assert prompts.cap_of(luna) == 2000
    assert prompts.cap_of(luna.model_copy(update={"parameters": {}})) == prompts.DEFAULT_CAP_TOKENS


def test_the_static_part_comes_first():
    """All bodies of an annotator begin alike up to the text, so that the service can cache them."""
    luna = ALLERGY.annotators["luna"]
    lines = [prompts.line(ALLERGY, luna.model, luna, 2000, text, "q") for text in ("One.", "Two.")]
    shared = next(n for n, (a, b) in enumerate(zip(*lines, strict=False)) if a != b)
    assert b"<<<DOCUMENT " in lines[0][:shared]
    rows = asked(ALLERGY, "One.")
    assert (rows["n_prefix_tokens"] < rows["n_input_tokens"]).all()


@given(st.sets(st.text(), min_size=1, max_size=30), st.integers(0, 40), st.integers(0, 40))
def test_samples_are_nested(names, n, m):
    """A larger sample holds the smaller one, whatever the order; 0 and too many take all."""
    series = pd.Series(sorted(names), dtype="str")
    small, large = sorted((n or len(names), m or len(names)))
    drawn = {size: set(series[prompts.sample(series, size)]) for size in (small, large)}
    assert drawn[small] <= drawn[large]
    assert len(drawn[small]) == min(small, len(names))
    assert set(series[::-1][prompts.sample(series[::-1], small)]) == drawn[small]
    assert prompts.sample(series, 0).all()
