"""How long answers will be: what a schema allows, what effort adds, what a canary measured."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import lengths, models, tokens
from lib.study import Annotator

YES_NO = {"type": "object", "properties": {"relevant": {"type": "boolean"}}}


def outcomes(*answers: tuple) -> pd.DataFrame:
    """Answers as (annotator, output tokens, reasoning tokens)."""
    return pd.DataFrame(answers, columns=["annotator", "n_output_tokens", "n_reasoning_tokens"])


@pytest.mark.parametrize(
    ("schema", "shortest", "typical"),
    [
        (YES_NO, '{"relevant":true}', '{"relevant":true}'),
        ({"enum": ["none", "moderate"]}, '"none"', '"moderate"'),
        ({"type": ["integer", "null"]}, "null", "1815"),
        ({"type": "array", "items": {"type": "integer"}}, "[]", "[1815,1815,1815]"),
    ],
)
def test_visible_tokens(schema, shortest, typical):
    """The shortest and a typical answer of a schema, as they would be written."""
    assert lengths.visible_output_tokens(schema) == tuple(tokens.count([shortest, typical]))


@settings(max_examples=40)
@given(
    st.recursive(
        st.sampled_from([{"type": "boolean"}, {"type": ["string", "null"]}, {"enum": ["a", "bb"]}]),
        lambda inner: st.builds(
            lambda items, closed: {"type": "object", "properties": {**closed, "list": items}},
            st.builds(lambda item: {"type": "array", "items": item}, inner),
            st.dictionaries(st.sampled_from("xyz"), inner),
        ),
        max_leaves=6,
    )
)
def test_shortest_is_never_longer_than_typical(schema):
    """Low never exceeds expected."""
    low, expected = lengths.visible_output_tokens(schema)
    assert 0 < low <= expected


def test_entity_lists_come_near_the_known_task():
    """Five lists of entities, three members each, come to a few hundred tokens.

    The earlier project assumed 500 visible tokens for such an answer.
    """
    word = {"type": ["string", "null"]}
    year = {"type": ["integer", "null"]}
    entity = {
        "type": "object",
        "properties": {"name": word, "role": word, "year": year, "era": word},
    }
    schema = {
        "type": "object",
        "properties": {
            name: {"type": "array", "items": entity}
            for name in ("persons", "locations", "polities", "periods", "events")
        },
    }
    low, expected = lengths.visible_output_tokens(schema)
    assert low < 40
    assert 250 < expected < 750


@pytest.mark.parametrize(
    ("model", "parameters", "low", "expected"),
    [
        ("gpt-4o-mini", {}, 0, 0),
        ("gpt-6-luna", {"reasoning_effort": "none"}, 0, 0),
        ("gpt-6-luna", {"reasoning_effort": "low"}, 50, 300),
        ("gpt-6-luna", {}, 300, 1_500),
        ("gpt-5.1", {}, 0, 0),
        ("gpt-5.4-mini", {}, 300, 1_500),
        ("gpt-5.4-mini", {"reasoning_effort": "unheard"}, 4_000, 16_000),
    ],
)
def test_reasoning_comes_on_top(model, parameters, low, expected):
    """Effort adds reasoning tokens; without one the model's default counts, unknown is medium."""
    (visible_low, visible) = lengths.visible_output_tokens(YES_NO)
    panel = {"a": Annotator(model=model, parameters=parameters)}
    answer = lengths.answer_tokens(panel, YES_NO)["a"]
    assert answer == (visible_low + low, visible + expected, None, expected)


def test_every_known_effort_has_an_assumption():
    """No effort that a model accepts is without its guess."""
    efforts = {effort for model in models.load().values() for effort in model.efforts or ()}
    assert efforts <= set(lengths.REASONING_TOKENS)


def test_measure_by_hand():
    """400, 500 and 600: mean 500, deviation 100, half-width 4.303 x 100 / sqrt(3) = 248.43."""
    table = lengths.measure(outcomes(("a", 400, 0), ("a", 500, 300), ("a", 600, None)))
    (row,) = table.to_dict("records")
    assert (row["annotator"], row["n_answers"], row["n_output_tokens"]) == ("a", 3, 500)
    assert row["n_output_tokens_low"] == pytest.approx(500 - 248.43, abs=0.01)
    assert row["n_output_tokens_high"] == pytest.approx(500 + 248.43, abs=0.01)
    assert row["n_reasoning_tokens"] == 100


@pytest.mark.parametrize(
    ("n_free", "quantile"), [(1, 12.706), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042)]
)
def test_interval_widths(n_free, quantile):
    """Student's t for 95%, within one percent of the tables."""
    assert lengths._t95(n_free) == pytest.approx(quantile, rel=0.012)


def test_too_little_is_no_measure():
    """One answer, answers without usage and no answers at all measure nothing."""
    one = outcomes(("a", 400, 0), ("b", None, None))
    assert lengths.measure(one).empty
    assert lengths.measure(outcomes()).empty
    panel = {"a": Annotator(model="gpt-4o-mini")}
    guessed = lengths.answer_tokens(panel, YES_NO)
    assert lengths.answer_tokens(panel, YES_NO, lengths.measure(one)) == guessed


def test_measure_replaces_the_guess():
    """What a canary measured takes the place of schema and effort, for its annotator alone."""
    measured = lengths.measure(outcomes(("a", 90, 40), ("a", 110, 60)))
    panel = {"a": Annotator(model="gpt-6-luna"), "b": Annotator(model="gpt-6-luna")}
    answers = lengths.answer_tokens(panel, YES_NO, measured)
    assert (answers["a"].expected, answers["a"].reasoning) == (100, 50)
    assert answers["a"].low == 0
    assert answers["a"].high == pytest.approx(100 + 12.706 * 10, abs=0.1)
    assert answers["b"].high is None


def test_schemas_may_come_as_text():
    """A schema that went through JSON and back counts the same."""
    again = json.loads(json.dumps(YES_NO))
    assert lengths.visible_output_tokens(again) == lengths.visible_output_tokens(YES_NO)
