"""What to send next: one question with one answer, whoever asks and however often."""

import random

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import models, prompts, runs, wanted
from lib import study as studies
from lib.study import Study

STUDY = studies.load(runs.ROOT / "data" / "allergy")
TEXT = "Lovely soup, and they knew what is in it."


def with_luna(cap=2000, attempts=3, **parts):
    """The allergy study with another luna, other attempts and the documented canary of 5."""
    data = STUDY.model_dump()
    luna = data["panels"]["current"]["annotators"]["luna"]
    luna["parameters"]["max_output_tokens"] = cap
    luna |= parts
    data["sending"] = {"canary": 5, "attempts": attempts}
    return Study.model_validate(data)


LUNA = with_luna(fallback=["gpt-6.1-terra", "gpt-6-sol"])


def requests(*keys, study=LUNA, model="gpt-6-luna"):
    """Requests of luna with these keys, about one text."""
    one = study.annotators["luna"]
    cap = prompts.cap_of(one)
    line = prompts.line(study, model, one, cap, TEXT, prompts.custom_id("0" * 64, 0))
    rows = [(key, f"i{n}", "luna", 0, model) for n, key in enumerate(keys)]
    frame = pd.DataFrame(rows, columns=["key", "item", "annotator", "repeat", "model"])
    return frame.assign(
        n_input_tokens=900, n_prefix_tokens=500, max_output_tokens=cap, n_bytes=len(line)
    )


def outcomes(*rows):
    """Outcomes: (key, attempt, model, outcome) and, for failed ones, status and code."""
    names = ["key", "attempt", "model", "outcome", "status", "code"]
    full = [(*row, *([None] * (6 - len(row)))) for row in rows]
    frame = pd.DataFrame(full, columns=names).assign(message=None)
    kinds = {"key": "str", "model": "str", "outcome": "str", "code": "str", "message": "str"}
    return frame.astype({**kinds, "attempt": "Int64", "status": "Int64"})


def history(*tries):
    """Outcomes of the attempts at key "a": words, or (model, outcome, …)."""
    rows = [("gpt-6-luna", one) if isinstance(one, str) else one for one in tries]
    return outcomes(*[("a", n, *row) for n, row in enumerate(rows)])


def asked(table, study=LUNA):
    """The next attempt at key "a" after these outcomes: (attempt, model, cap), or nothing."""
    found = wanted.wanted(requests("a", study=study), table, set(), study)
    rows = found[["attempt", "model", "max_output_tokens"]].itertuples(index=False, name=None)
    return next(rows, None)


def test_first_submission_asks_for_all():
    """Nothing answered yet: every key once, in the requests' order, as the first attempt."""
    found = wanted.wanted(requests("c", "a", "b", "a"), outcomes(), set(), LUNA)
    assert found["key"].tolist() == ["c", "a", "b"]
    assert found["attempt"].tolist() == [0, 0, 0]


def test_never_what_is_valid_or_in_flight():
    """a is answered, b is in flight, c was answered at its second attempt: d alone is sent."""
    table = outcomes(
        ("a", 0, "gpt-6-luna", "valid"),
        ("b", 0, "gpt-6-luna", "expired"),
        ("c", 0, "gpt-6-luna", "malformed"),
        ("c", 1, "gpt-6-luna", "valid"),
        ("z", 0, "gpt-6-luna", "missing"),
    )
    found = wanted.wanted(requests("a", "b", "c", "d"), table, {"b"}, LUNA)
    assert found["key"].tolist() == ["d"]


def test_new_and_repeated_keep_the_order():
    """A retry stands where its request stands, and every column keeps its type."""
    table = outcomes(("b", 0, "gpt-6-luna", "expired"), ("d", 0, "gpt-6-luna", "empty"))
    found = wanted.wanted(requests("a", "b", "c", "d"), table, set(), LUNA)
    assert found["key"].tolist() == ["a", "b", "c", "d"]
    assert found["attempt"].tolist() == [0, 1, 0, 1]
    assert found["max_output_tokens"].tolist() == [2000, 2000, 2000, 4000]
    assert found.index.tolist() == [0, 1, 2, 3]
    assert {str(found[name].dtype) for name in ("attempt", "n_bytes", "n_input_tokens")} == {
        "int64"
    }


FAILED = "gpt-6-luna", "failed"


@pytest.mark.parametrize(
    ("tries", "expected"),
    [
        (["missing"], (1, "gpt-6-luna", 2000)),
        (["expired", "cancelled"], (2, "gpt-6-luna", 2000)),
        (["expired", "cancelled", "missing"], None),  # three attempts, and the service failed each
        ([(*FAILED, 500)], (1, "gpt-6-luna", 2000)),
        ([(*FAILED, 429, "rate_limit_exceeded")], (1, "gpt-6-luna", 2000)),
        ([(*FAILED, 408)], (1, "gpt-6-luna", 2000)),
        ([(*FAILED, 409)], (1, "gpt-6-luna", 2000)),
        ([(*FAILED, 0)], (1, "gpt-6-luna", 2000)),
        ([(*FAILED, None)], (1, "gpt-6-luna", 2000)),
        ([(*FAILED, 429, "insufficient_quota")], (1, "gpt-6-luna", 2000)),  # the brake waits
        ([(*FAILED, 400, "unsupported_value")], None),
        ([(*FAILED, 403)], (1, "gpt-6-luna", 2000)),
        ([(*FAILED, 401)] * 99, (99, "gpt-6-luna", 2000)),
        ([(*FAILED, 401)] * 100, None),  # after a hundred commands nobody has mended it
        ([(*FAILED, 403)] * 3 + ["invalid"], (4, "gpt-6-luna", 2000)),
        (["empty"], (1, "gpt-6-luna", 4000)),
        (["truncated", "empty"], (2, "gpt-6-luna", 8000)),
        (["truncated", "empty", "truncated"], None),
        (["malformed"], (1, "gpt-6-luna", 2000)),
        (["invalid"], (1, "gpt-6-luna", 2000)),
        (["refused"], (1, "gpt-6-luna", 2000)),
        (["invalid", "refused"], (2, "gpt-6.1-terra", 2000)),
        (["empty", "invalid", "invalid"], (3, "gpt-6.1-terra", 4000)),
        (["expired", "expired", "invalid"], (3, "gpt-6-luna", 2000)),
        (
            ["invalid", "invalid", ("gpt-6.1-terra", "invalid")],
            (3, "gpt-6.1-terra", 2000),
        ),
        (
            ["invalid", "invalid", ("gpt-6.1-terra", "expired")],
            (3, "gpt-6.1-terra", 2000),
        ),
        (
            ["invalid", "invalid", *[("gpt-6.1-terra", "refused")] * 2],
            (4, "gpt-6-sol", 2000),
        ),
        (
            ["invalid"] * 2 + [("gpt-6.1-terra", "refused")] * 2 + [("gpt-6-sol", "invalid")] * 2,
            None,
        ),
        (["invalid"] * 2 + [("gpt-6.1-terra", "failed", 400)], None),
    ],
)
def test_what_follows_a_history(tries, expected):
    """Each rule of the docstring: again, with twice the cap, with the next model, or not at all."""
    assert asked(history(*tries)) == expected


def test_without_a_fallback_two_are_enough():
    """Two unusable answers and no other model: the request goes to the review list."""
    study = with_luna(fallback=[])
    assert asked(history("invalid"), study) == (1, "gpt-6-luna", 2000)
    assert asked(history("invalid", "invalid"), study) is None


@pytest.mark.parametrize(
    ("cap", "n_empty", "expected"),
    [
        (2000, 1, 4000),
        (2000, 2, 8000),
        (2000, 3, 16_000),
        (2000, 4, None),  # eight times the study's cap is the largest
        (50_000, 1, 100_000),
        (50_000, 2, 128_000),  # what gpt-6-luna can write
        (50_000, 3, None),
        (128_000, 1, None),  # no larger cap: asking again cannot help
    ],
)
def test_larger_caps_are_bounded(cap, n_empty, expected):
    """The cap doubles, at most to eight times the study's and to what the model can write."""
    found = asked(history(*["empty"] * n_empty), with_luna(cap, attempts=10))
    assert (found and found[2]) == expected


def test_cap_of_a_fallback_is_the_fallbacks_own():
    """20,000 x 2 for luna, but gpt-4o-mini writes 16,384 at most."""
    study = with_luna(20_000, fallback=["gpt-4o-mini"])
    found = asked(history("empty", "invalid", "invalid"), study)
    assert found == (3, "gpt-4o-mini", 16_384)


@pytest.mark.parametrize(
    "tries", [["expired"], ["empty", "empty"], ["invalid", "invalid"], ["missing"] * 11]
)
def test_size_of_a_retry_is_exact(tries):
    """n_bytes of a retry is the length of its line, with its model, its cap and its attempt."""
    study = with_luna(6000, attempts=10, fallback=["gpt-4o-mini"])
    study = study.model_copy(update={"sending": study.sending.model_copy(update={"attempts": 20})})
    row = wanted.wanted(requests("a", study=study), history(*tries), set(), study).iloc[0]
    name = prompts.custom_id("0" * 64, row["attempt"])
    one = study.annotators["luna"]
    line = prompts.line(study, row["model"], one, int(row["max_output_tokens"]), TEXT, name)
    assert len(line) == row["n_bytes"]


def test_review_list_is_what_is_left():
    """a is valid, b wanted, c in flight; d stays, with its last outcome, for both of its items."""
    table = outcomes(
        ("a", 0, "gpt-6-luna", "valid"),
        ("b", 0, "gpt-6-luna", "expired"),
        ("c", 0, "gpt-6-luna", "expired"),
        ("d", 0, "gpt-6-luna", "refused"),
        ("d", 1, "gpt-6-luna", "malformed"),
    )
    rows = requests("a", "b", "c", "d", "d")
    left = wanted.review(rows, table, rows.iloc[[1]], {"c"})
    assert left["item"].tolist() == ["i3", "i4"]
    assert set(left["outcome"]) == {"malformed"}


WORDS = ["valid", "empty", "truncated", "refused", "malformed", "invalid", "failed", "missing"]
WORDS += ["expired", "cancelled"]


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=10, unique=True),
    st.integers(1, 4),
    st.sampled_from([[], ["gpt-6-sol"], ["gpt-6.1-terra", "gpt-6-sol"]]),
    st.integers(0, 2**32),
)
def test_it_comes_to_an_end(words, attempts, fallback, seed):
    """With a service that ends requests at random, nothing is wanted after finitely many rounds.

    Each model is asked at most attempts times for the service's sake and twice for the answer's,
    and a larger cap is tried at most attempts times: the sum bounds the rounds. What the account is
    the cause of comes on top of it, here in the first two rounds.
    """
    chance = random.Random(seed)
    study = with_luna(attempts=attempts, fallback=fallback)
    rows, table = requests(*"abcdef", study=study), outcomes()
    bound = (attempts + 2) * (1 + len(fallback)) + attempts + 2
    seen: dict[str, list[str]] = {}
    for n_round in range(bound + 1):
        flying = {key for key in "abcdef" if chance.random() < 0.3}
        found = wanted.wanted(rows, table, flying, study)
        if wanted.wanted(rows, table, set(), study).empty:
            break
        valid = set(table.loc[table["outcome"].eq("valid"), "key"])
        assert not set(found["key"]) & (valid | flying)
        assert found["key"].is_unique
        found = wanted.wanted(rows, table, set(), study)
        for row in found.to_dict("records"):
            limit = models.facts(row["model"]).max_output_tokens or 128_000
            assert row["max_output_tokens"] <= min(limit, 2000 * wanted.LARGEST_FACTOR)
            models_so_far = seen.setdefault(row["key"], [])
            assert row["attempt"] == len(models_so_far)
            models_so_far.append(row["model"])
        new = [
            (
                row["key"],
                row["attempt"],
                row["model"],
                chance.choice(words),
                chance.choice([400, 500, 403] if n_round < 2 else [400, 500]),
            )
            for row in found.to_dict("records")
        ]
        table = pd.concat([table, outcomes(*new)], ignore_index=True)
    assert wanted.wanted(rows, table, set(), study).empty
    chain = ["gpt-6-luna", *fallback]
    for models_so_far in seen.values():  # in the order of the chain, never back
        assert list(dict.fromkeys(models_so_far)) == chain[: len(set(models_so_far))]
        assert models_so_far == sorted(models_so_far, key=chain.index)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5), st.randoms())
def test_order_of_outcomes_does_not_matter(words, chance):
    """The same facts in any order are followed by the same attempt."""
    table = history(*words)
    shuffled = table.sample(frac=1, random_state=chance.randint(0, 999))
    assert asked(shuffled) == asked(table)


@pytest.mark.parametrize(
    ("n_requests", "words", "n_judged", "n_valid", "verdict"),
    [
        (10, [], 0, 0, "untried"),
        (10, ["valid"] * 4, 4, 4, "untried"),
        (10, ["valid"] * 5, 5, 5, "passed"),
        (10, ["valid"] * 4 + ["empty"], 5, 4, "passed"),  # 1 of 5 is 20%, the bound itself
        (10, ["valid"] * 3 + ["empty"] * 2, 5, 3, "failed"),
        (10, ["valid"] * 4 + ["expired"] * 5, 4, 4, "untried"),  # the service's fault
        (10, ["valid"] * 4 + ["blocked"] * 5, 4, 4, "untried"),  # the account's
        (10, ["invalid"] * 5, 5, 0, "failed"),
        (3, ["valid"] * 2, 2, 2, "untried"),
        (3, ["valid"] * 3, 3, 3, "passed"),  # fewer requests than a canary has
        (3, ["valid"] * 2 + ["refused"], 3, 2, "failed"),
    ],
)
def test_health(n_requests, words, n_judged, n_valid, verdict):
    """Canary 5, failure share 0.2: from 5 judged answers on, more than a fifth bad is failed."""
    keys = [f"k{n}" for n in range(n_requests)]
    ends = [("failed", 403) if word == "blocked" else (word,) for word in words]
    table = outcomes(*[(f"k{n}", 0, "gpt-6-luna", *end) for n, end in enumerate(ends)])
    found = wanted.health(requests(*keys), table, LUNA).to_dict("records")
    expected = {"model": "gpt-6-luna", "n_judged": n_judged, "n_valid": n_valid}
    assert found == [{**expected, "verdict": verdict}]


def test_health_of_each_model_is_its_own():
    """A fallback's answers are judged as its own; those to other requests are not judged."""
    keys = [f"k{n}" for n in range(9)]
    good = [(key, 0, "gpt-6-luna", "valid") for key in keys[:6]]
    bad = [(key, 1, "gpt-6.1-terra", "invalid") for key in keys[:5]]
    few = [("k0", 2, "gpt-6-sol", "invalid")]
    strange = [(f"x{n}", 0, "gpt-6-luna", "invalid") for n in range(9)]
    found = wanted.health(requests(*keys), outcomes(*good, *bad, *few, *strange), LUNA)
    assert dict(zip(found["model"], found["verdict"], strict=True)) == {
        "gpt-6-luna": "passed",
        "gpt-6.1-terra": "failed",
    }


def test_stopped_says_why_and_what_to_do():
    """The commonest faults come first, with their counts; then what to change."""
    refused = ("gpt-6-luna", "failed", 400, "unsupported_value")
    table = outcomes(
        *[(f"a{n}", 0, *refused) for n in range(3)],
        ("b", 0, "gpt-6-luna", "empty"),
        ("c", 0, "gpt-6-luna", "valid"),
        ("d", 0, "gpt-6-sol", "empty"),
    )
    table.loc[:2, "message"] = "Only the default (1) value is supported."
    assert wanted.stopped(LUNA, ["gpt-6-luna"], table) == (
        "stopped: more than 20% of the judged answers of gpt-6-luna are not valid (gpt-6-luna: "
        "3 x failed unsupported_value Only the default (1) value is supported.; gpt-6-luna: "
        "1 x empty). Nothing more is sent to it. Change the prompt, the parameters "
        "(max_output_tokens when empty) or the model in study.yml, then run 01 again."
    )


def test_stopped_stays_short():
    """Ten thousand different messages are not all shown."""
    table = outcomes(*[(f"a{n}", 0, "gpt-6-luna", "invalid") for n in range(10_000)])
    table["message"] = [f"value {n} is not allowed" for n in range(10_000)]
    said = wanted.stopped(LUNA, ["gpt-6-luna"], table)
    assert "and 9,995 other faults" in said
    assert len(said) < 1000
