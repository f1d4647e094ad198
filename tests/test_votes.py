"""Votes: what an answer says to each field, and totals that close."""

import json

import making
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import consensus, votes
from lib.errors import AccountingError
from lib.fields import Field

PANEL = {"terra": ("m-large", 1, 2.0), "luna": ("m-small", 2, 1.0)}
FIELDS = {
    "relevant": making.field("boolean"),
    "mood": making.field(when="relevant"),
    "people": making.field("entities", attributes={"role": {"description": "-"}}),
}


def answer(relevant=True, mood="calm", people=()):
    """The content of an answer."""
    named = [{"name": name, "role": "king"} for name in people]
    return json.dumps({"relevant": relevant, "mood": mood, "people": named})


def requests(items, study):
    """One request for every item and slot; the key says which."""
    slots = [
        (name, n, one.model) for name, one in study.annotators.items() for n in range(one.repeats)
    ]
    rows = [
        (f"{item}-{name}-{n}", item, name, n, model) for item in items for name, n, model in slots
    ]
    return pd.DataFrame(rows, columns=["key", "item", "annotator", "repeat", "model"])


def outcome(key, content=None, outcome="valid", attempt=0, **more):
    """One row of an outcome file."""
    row = {"key": key, "outcome": outcome, "content": content, "attempt": attempt}
    return {**row, "model": "m-large", "batch": "b1", "simulated": True, **more}


def collected(folder, items, outcomes, study=None):
    """Votes, mentions and accounting of these outcomes, one file a batch."""
    study = study or making.study(FIELDS, PANEL)
    requests(items, study).to_parquet(folder / "requests.parquet")
    (folder / "outcomes").mkdir(exist_ok=True)
    for batch, rows in pd.DataFrame(outcomes, columns=list(outcome("k"))).groupby("batch"):
        rows.to_parquet(folder / "outcomes" / f"{batch}.parquet")
    glob = folder / "outcomes" / "*.parquet"
    counts = votes.collect(folder / "requests.parquet", glob, study, folder)
    table = pd.read_parquet(folder / "votes.parquet")
    return table, pd.read_parquet(folder / "mentions.parquet"), counts.set_index("field")


def test_one_row_for_every_slot_item_and_field(tmp_path):
    """2 items x 3 slots x 3 fields are 18 rows, whoever answered; the rest says why not.

    On r1 terra says calm and luna once that it is not relevant, once nothing: the one repeat of
    luna that answered has its whole weight.
    """
    outcomes = [
        outcome("r1-terra-0", answer(people=["Arthur"])),
        outcome("r1-luna-0", answer(relevant=False), model="m-small"),
        outcome("r2-terra-0", "I am sorry", "refused", batch="b2"),
    ]
    table, _, counts = collected(tmp_path, ["r1", "r2"], outcomes)
    assert len(table) == 18
    assert not table.duplicated(list(votes.SLOT)).any()
    said = table.set_index(["item", "field", "annotator", "repeat"])
    assert said.loc[("r1", "mood", "terra", 0), ["value", "weight"]].tolist() == ["calm", 2.0]
    assert said.loc[("r1", "relevant", "luna", 0), ["value", "weight"]].tolist() == ["false", 1.0]
    assert said.loc[("r1", "mood", "luna", 0), "abstained"] == "not_applicable"
    assert said.loc[("r1", "mood", "luna", 1), "abstained"] == "missing"
    assert said.loc[("r2", "mood", "terra", 0), "abstained"] == "refused"
    assert said.loc[("r2", "people", "luna", 0), "weight"] == 0
    assert said.loc[("r1", "people", "luna", 0), "value"] == "[]"
    assert counts.loc["mood"].to_dict() == {
        "n_votes": 1,
        "n_missing": 3,
        "n_not_applicable": 1,
        "n_refused": 1,
    }
    assert (counts.sum(axis=1) == 6).all()


def test_two_repeats_share_a_weight(tmp_path):
    """Both repeats of luna answer: half a vote each."""
    outcomes = [outcome(f"r1-luna-{n}", answer(), model="m-small") for n in (0, 1)]
    table, _, _ = collected(tmp_path, ["r1"], outcomes)
    luna = table[table["annotator"].eq("luna")]
    assert luna["weight"].tolist() == [0.5] * 6


def test_a_valid_attempt_settles_a_request(tmp_path):
    """Whatever came before or after, the first valid answer votes, with the model that gave it."""
    outcomes = [
        outcome("r1-terra-0", None, "expired", 0, batch="b1"),
        outcome("r1-terra-0", answer(mood="angry"), "valid", 1, model="m-other", batch="b2"),
        outcome("r1-terra-0", answer(mood="calm"), "valid", 2, batch="b3"),
        outcome("r1-luna-0", None, "expired", 0, batch="b1"),
        outcome("r1-luna-0", "{", "malformed", 1, batch="b2"),
    ]
    table, _, _ = collected(tmp_path, ["r1"], outcomes)
    said = table.set_index(["field", "annotator", "repeat"])
    assert said.loc[("mood", "terra", 0), ["value", "model"]].tolist() == ["angry", "m-other"]
    assert said.loc[("mood", "luna", 0), ["abstained", "model"]].tolist() == [
        "malformed",
        "m-small",
    ]


def test_no_outcomes_at_all(tmp_path):
    """Before the first batch is back every vote is missing, and the totals close."""
    table, mentions, counts = collected(tmp_path, ["r1"], [])
    assert table["abstained"].eq("missing").all()
    assert mentions.empty
    assert counts["n_missing"].tolist() == [3, 3, 3]


def test_a_stray_value_is_no_class(tmp_path):
    """A value outside the declared ones abstains; the answer's other fields still vote."""
    table, _, counts = collected(tmp_path, ["r1"], [outcome("r1-terra-0", answer(mood="happy"))])
    terra = table[table["annotator"].eq("terra")].set_index("field")
    assert terra["abstained"].to_dict()["mood"] == "stray"
    assert terra["value"].to_dict()["relevant"] == "true"
    assert counts.loc["mood", "n_stray"] == 1


def test_mentions_keep_spelling_and_repetition(tmp_path):
    """A name given twice is one key in the vote and two mentions, numbered."""
    outcomes = [
        outcome("r1-terra-0", answer(people=["King  Arthur", "Kay", "“king arthur”", "..."]))
    ]
    table, mentions, _ = collected(tmp_path, ["r1"], outcomes)
    value = table.loc[table["field"].eq("people") & table["annotator"].eq("terra"), "value"].item()
    assert json.loads(value) == ["kay", "king arthur"]
    found = mentions[["key", "name", "n", "weight"]].to_numpy().tolist()
    assert found == [
        ["kay", "Kay", 0, 2.0],
        ["king arthur", "King Arthur", 0, 2.0],
        ["king arthur", "“king arthur”", 1, 2.0],
    ]
    assert json.loads(mentions["attributes"][0]) == {"role": "king"}


def test_requests_of_another_panel_are_refused(tmp_path):
    """Requests that do not fit the study's panel stop the count, with both numbers."""
    collected(tmp_path, ["r1", "r2"], [])
    other = making.study(FIELDS, {"terra": ("m-large", 2, 2.0), "luna": ("m-small", 2, 1.0)})
    with pytest.raises(
        AccountingError, match=r"6 requests .* 2 items x 4 votes .* are 8"
    ) as raised:
        votes.collect(tmp_path / "requests.parquet", [], other, tmp_path)
    assert (raised.value.n_found, raised.value.n_expected) == (6, 8)


def test_an_outcome_file_that_says_an_attempt_twice_is_refused(tmp_path):
    """Doubled rows would be doubled votes: the totals do not close."""
    twice = [outcome("r1-terra-0", answer()), outcome("r1-terra-0", answer())]
    with pytest.raises(AccountingError, match=r"12 votes written .* which are 9"):
        collected(tmp_path, ["r1"], twice)


def test_files_with_an_empty_column(tmp_path):
    """A batch of failures alone has no content, and is read beside others all the same."""
    outcomes = [outcome("r1-luna-0", answer()), outcome("r1-terra-0", None, "failed", batch="b2")]
    table, _, _ = collected(tmp_path, ["r1"], outcomes)
    assert set(table["abstained"].dropna()) == {"failed", "missing"}


@pytest.mark.parametrize(
    ("kind", "more", "value", "found"),
    [
        ("boolean", {}, True, "true"),
        ("boolean", {}, " FALSE ", "false"),
        ("boolean", {}, 1, None),
        ("boolean", {}, "yes", None),
        ("category", {}, "calm", "calm"),
        ("category", {}, " Calm\n", "calm"),
        ("category", {}, "calmer", None),
        ("category", {}, "", None),
        ("category", {}, None, None),
        ("category", {}, ["calm"], None),
        ("category", {"values": {"1": {"description": "-"}, "2": {"description": "-"}}}, 1.0, "1"),
        (
            "category",
            {"values": {"true": {"description": "-"}, "?": {"description": "-"}}},
            True,
            "true",
        ),
        (
            "category",
            {"values": {"US": {"description": "-"}, "us": {"description": "-"}}},
            "us",
            "us",
        ),
        (
            "category",
            {"values": {"US": {"description": "-"}, "us": {"description": "-"}}},
            "Us",
            None,
        ),
        ("integer", {}, 3, "3"),
        ("integer", {}, " -3 ", "-3"),
        ("integer", {}, 3.0, "3"),
        ("integer", {}, 3.5, None),
        ("integer", {}, True, None),
        ("integer", {"minimum": 0, "maximum": 5}, 6, None),
        ("integer", {"minimum": 0, "maximum": 5}, 5, "5"),
        ("number", {}, "1e3", "1000"),
        ("number", {}, "1_000", None),
        ("number", {}, "1,5", None),
        ("number", {}, float("nan"), None),
        ("number", {}, float("inf"), None),
        ("number", {}, 0.1, "0.1"),
        ("text", {}, "  two\n words ", "two words"),
        ("text", {}, 5, None),
        ("entities", {}, [], "[]"),
        ("entities", {}, [{"name": "B"}, {"name": "a"}, {"name": "A."}], '["a","b"]'),
        ("entities", {}, [{"title": "B"}], None),
        ("entities", {}, ["B"], None),
        ("entities", {}, "B", None),
    ],
)
def test_values_are_normalised_to_declared_ones(kind, more, value, found):
    """Case, space and number form do not matter; anything else is stray, never another value."""
    field = Field.model_validate({**making.field(kind), **more})
    assert votes.normalise(value, field) == (found, None if found is not None else "stray")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Sir Lancelot", "sir lancelot"),
        ("“Sir  Lancelot”,", "sir lancelot"),
        ("O\N{RIGHT SINGLE QUOTATION MARK}Brien", "o'brien"),
        ("(Paris)", "paris"),
        ("St. Ives", "st. ives"),
        ("ﬁnn", "finn"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("...", ""),
        ("", ""),
    ],
)
def test_keys_of_names(name, key):
    """Names that differ in case, space, quotes or edge punctuation are one key."""
    assert votes.entity_key(name) == key


@given(st.text())
def test_a_key_is_its_own_key(name):
    """Normalising twice changes nothing."""
    assert votes.entity_key(votes.entity_key(name)) == votes.entity_key(name)


def test_what_was_said_is_kept(tmp_path):
    """Another spelling stands beside the value, a stray beside its reason, the same nowhere."""
    study = making.study({"mood": making.field(), "ok": making.field("boolean")}, PANEL)
    outcomes = [
        outcome("r1-terra-0", json.dumps({"mood": " CALM", "ok": True})),
        outcome("r1-luna-0", json.dumps({"mood": "sleepy", "ok": "yes"}), "invalid"),
        outcome("r1-luna-1", json.dumps({"mood": 3, "ok": False}), "invalid", batch="b2"),
    ]
    table, _, counts = collected(tmp_path, ["r1"], outcomes, study)
    said = table.set_index(["field", "annotator", "repeat"])
    assert said.loc[("mood", "terra", 0), ["value", "said"]].tolist() == ["calm", " CALM"]
    assert pd.isna(said.loc[("ok", "terra", 0), "said"])
    assert said.loc[("mood", "luna", 0), ["said", "abstained"]].tolist() == ["sleepy", "stray"]
    assert said.loc[("mood", "luna", 1), ["said", "abstained"]].tolist() == ["3", "stray"]
    assert said.loc[("ok", "luna", 1), ["said", "abstained"]].tolist() == ["false", "invalid"]
    assert counts.loc["mood", "n_stray"] == 2
    strays = votes.strays(tmp_path / "votes.parquet")
    assert strays[["field", "said", "n_votes", "item"]].to_numpy().tolist() == [
        ["mood", "3", 1, "r1"],
        ["mood", "sleepy", 1, "r1"],
        ["ok", "yes", 1, "r1"],
    ]
    assert votes.strays(table).equals(strays)


def test_an_answer_that_is_no_object_says_nothing(tmp_path):
    """A list, or members that are missing: invalid, and nothing to keep."""
    study = making.study({"mood": making.field()}, {"a": ("m", 2, 1.0)})
    outcomes = [outcome("r1-a-0", "[1]", "invalid"), outcome("r1-a-1", '{"x": 1}', "invalid")]
    table, _, _ = collected(tmp_path, ["r1"], outcomes, study)
    assert table["abstained"].tolist() == ["invalid", "invalid"]
    assert table["said"].isna().all()


def test_a_decided_value_leads_back_to_its_answers(tmp_path):
    """Consensus, votes, requests, outcomes: each vote for a value is a valid outcome of its batch,
    by the model that answered, a fallback too, and simulated as that was.
    """
    study = making.study(FIELDS, PANEL)
    outcomes = [
        outcome("r1-terra-0", "no", "refused", batch="b1"),
        outcome("r1-terra-0", answer(mood="angry"), batch="b3", model="m-fallback", attempt=1),
        outcome("r1-luna-0", answer(), batch="b2", model="m-small", simulated=False),
        outcome("r1-luna-1", answer(mood="angry"), batch="b2", model="m-small"),
    ]
    table, _, _ = collected(tmp_path, ["r1"], outcomes, study)
    decided = consensus.decide(table, study).set_index("field").loc["mood"]
    assert (decided["value"], decided["simulated"]) == ("angry", True)
    behind = table[table["field"].eq("mood") & table["value"].eq("angry")]
    asked = pd.read_parquet(tmp_path / "requests.parquet")
    written = pd.concat(map(pd.read_parquet, (tmp_path / "outcomes").glob("*.parquet")))
    slot = ["item", "annotator", "repeat"]
    traced = behind.merge(asked[["key", *slot]], on=slot).merge(written, on=["key", "batch"])
    assert len(traced) == len(behind) == 2
    assert set(traced["outcome"]) == {"valid"}
    assert traced["model_x"].eq(traced["model_y"]).all()
    assert traced["simulated_x"].eq(traced["simulated_y"]).all()
    assert set(behind["model"]) == {"m-fallback", "m-small"}
    assert all(json.loads(content)["mood"] == "angry" for content in traced["content"])


def test_votes_of_another_prompt_cannot_be_taken_in(tmp_path):
    """The key of a request holds its text: what another one answered is no answer to this."""
    stranger = outcome("another-request", answer())
    table, _, _ = collected(tmp_path, ["r1"], [stranger])
    assert set(table["abstained"]) == {"missing"}
    assert table["batch"].isna().all()
