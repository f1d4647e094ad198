"""Estimates: every figure worked by hand, sums that close, and bounds that hold."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import errors, estimate, models
from lib.lengths import OutputTokens
from lib.study import Annotator


def requests(  # noqa: PLR0913 - a table has its columns
    n_items: int,
    annotator: str,
    model: str,
    *,
    repeats: int = 1,
    n_input: int = 2_000,
    n_prefix: int = 0,
    cap: int = 3_000,
) -> pd.DataFrame:
    """The requests of one annotator for so many equal items."""
    rows = pd.DataFrame({"item": [f"i{n}" for n in range(n_items)]})
    rows = rows.loc[rows.index.repeat(repeats)].reset_index(drop=True)
    rows["repeat"] = rows.groupby("item", sort=False).cumcount()
    rows["key"] = annotator + "/" + rows["item"] + "/" + rows["repeat"].astype(str)
    return rows.assign(
        annotator=annotator,
        model=model,
        n_input_tokens=n_input,
        n_prefix_tokens=n_prefix,
        max_output_tokens=cap,
    )


def answers(n_tokens: int) -> OutputTokens:
    """Answers that were measured to be exactly so long."""
    return OutputTokens(n_tokens, n_tokens, n_tokens, 0)


def row_of(frame: pd.DataFrame) -> dict:
    """The only row of an estimate."""
    (row,) = frame.to_dict("records")
    return row


BOOKS = {"nano": Annotator(model="gpt-5-nano")}


def test_the_estimate_that_took_standard_prices():
    """76,026 documents at 2,000 in and 500 out on gpt-5-nano: $11.40 in batch, not $22.80.

    Input 76,026 x 2,000 = 152,052,000 x $0.025 per million = $3.8013; output 76,026 x 500 =
    38,013,000 x $0.20 = $7.6026; together $11.4039. At standard prices of $0.05 and $0.40 it is
    $7.6026 + $15.2052 = $22.8078, the figure that misled. Answers that fill a cap of 3,000 tokens,
    as they then did, cost $3.8013 + 228,078,000 x $0.20 = $45.6156, together $49.4169.
    """
    asked = requests(76_026, "nano", "gpt-5-nano")
    priced = estimate.price_requests(asked, {"nano": answers(500)})
    row = row_of(estimate.estimate(priced, BOOKS, tier=3))
    assert row["n_input_tokens"] == 152_052_000
    assert row["n_output_tokens_expected"] == 38_013_000
    assert row["estimate_usd_expected"] == 11.4039
    assert row["worst_case_usd"] == 49.4169

    nano = models.facts("gpt-5-nano")
    undiscounted = {"gpt-5-nano": nano.model_copy(update={"batch": nano.standard})}
    misled = estimate.price_requests(asked, {"nano": answers(500)}, table=undiscounted)
    assert estimate.estimate(misled, BOOKS, 3, table=undiscounted)["estimate_usd_expected"][0] == (
        22.8078
    )


def test_the_estimate_that_forgot_the_votes():
    """18,440 reviews x (1 mini + 3 nano) = 73,760 requests, not 18,440.

    At 700 in and 60 out: mini 18,440 x (700 x $0.125 + 60 x $1) per million = $1.6135 + $1.1064 =
    $2.7199; nano 55,320 x (700 x $0.025 + 60 x $0.20) per million = $0.9681 + $0.66384 = $1.63194.
    """
    panel = {
        "mini": Annotator(model="gpt-5-mini", weight=2.0),
        "nano": Annotator(model="gpt-5-nano", repeats=3),
    }
    asked = pd.concat(
        [
            requests(18_440, "mini", "gpt-5-mini", n_input=700),
            requests(18_440, "nano", "gpt-5-nano", repeats=3, n_input=700),
        ]
    )
    outputs = {"mini": answers(60), "nano": answers(60)}
    table = estimate.estimate(estimate.price_requests(asked, outputs), panel, tier=1)
    assert table["n_requests"].tolist() == [18_440, 55_320]
    assert table["estimate_usd_expected"].tolist() == [2.7199, 1.63194]
    sums = estimate.totals(table)
    assert (sums["n_requests"], sums["estimate_usd_expected"]) == (73_760, 4.35184)


def test_cached_input_is_low_alone():
    """A prefix of 1,500 tokens may be cached: low takes 100 x (500 x 0.025 + 1,500 x 0.0025).

    That is 1,625 micro-dollars of input; expected takes 100 x 2,000 x 0.025 = 5,000. Both add
    output of 100 x 10 x 0.20 = 200.
    """
    asked = requests(100, "nano", "gpt-5-nano", n_prefix=1_500)
    priced = estimate.price_requests(asked, {"nano": answers(10)})
    row = row_of(estimate.estimate(priced, BOOKS, tier=1))
    assert row["n_cached_tokens"] == 150_000
    assert (row["estimate_usd_low"], row["estimate_usd_expected"]) == (0.001825, 0.0052)


@pytest.mark.parametrize(("n_prefix", "n_cached"), [(1_023, 0), (1_024, 1_024)])
def test_short_prefixes_are_not_cached(n_prefix, n_cached):
    """Prefixes under 1,024 tokens are never cached."""
    asked = requests(1, "nano", "gpt-5-nano", n_prefix=n_prefix)
    priced = estimate.price_requests(asked, {"nano": answers(10)})
    assert priced["n_cached_tokens"].tolist() == [n_cached]


def test_long_inputs_cost_more():
    """Above 272,000 input tokens gpt-6-luna charges double input and one and a half of output.

    272,000 x 0.05 + 100 x 0.25 = 13,625 and 300,000 x 0.10 + 100 x 0.375 = 30,037.5 micro-dollars.
    """
    asked = requests(2, "luna", "gpt-6-luna").assign(n_input_tokens=[272_000, 300_000])
    priced = estimate.price_requests(asked, {"luna": answers(100)})
    assert priced["units_expected"].tolist() == [13_625_000_000, 30_037_500_000]


def test_guesses_are_bounded_by_the_cap():
    """An answer is never expected to be longer than its cap, and unmeasured high is the cap."""
    asked = requests(1, "nano", "gpt-5-nano", cap=200)
    priced = estimate.price_requests(asked, {"nano": OutputTokens(50, 1_500, None, 1_400)})
    row = row_of(priced)
    columns = ("n_output_tokens_low", "n_output_tokens_expected", "n_output_tokens_high")
    assert [row[column] for column in columns] == [50, 200, 200]
    assert row["n_reasoning_tokens"] == 200
    assert row["units_high"] == row["units_worst"]


def test_what_is_known_costs_nothing():
    """Keys that have answers, and keys that stand twice, are counted but not paid again."""
    asked = requests(4, "nano", "gpt-5-nano", cap=500)
    asked.loc[3, "key"] = asked.loc[2, "key"]
    priced = estimate.price_requests(asked, {"nano": answers(500)}, {asked["key"][0], "elsewhere"})
    row = row_of(estimate.estimate(priced, BOOKS, tier=1))
    assert (row["n_requests"], row["n_known"], row["n_new"]) == (4, 2, 2)
    assert (row["n_input_tokens"], row["n_output_tokens_high"]) == (4_000, 1_000)
    assert row["worst_case_usd"] == 0.0003


def test_nothing_left_to_send():
    """When everything is known the estimate is zero, with no waves."""
    asked = requests(3, "nano", "gpt-5-nano")
    priced = estimate.price_requests(asked, {"nano": answers(9)}, set(asked["key"]))
    sums = estimate.totals(estimate.estimate(priced, BOOKS, tier=1))
    assert sums["n_known"] == 3
    assert {sums[name] for name in (*estimate.USD_COLUMNS, "n_new", "hours_high")} == {0}


@pytest.mark.parametrize(
    ("tier", "limits", "limit", "n_waves", "hours"),
    [
        # 152,052,000 / 2M = 76.03; with 76,026 caps of 3,000 more, 380,130,000 / 2M = 190.07
        (1, None, 2_000_000, 77, (77, 231, 191 * 24)),
        # 152,052,000 / 40M = 3.8; 380,130,000 / 40M = 9.5
        (3, None, 40_000_000, 4, (4, 12, 240)),
        (5, None, 15_000_000_000, 1, (1, 3, 24)),
        (3, {"gpt-5-nano": 100_000_000}, 100_000_000, 2, (2, 6, 96)),
    ],
)
def test_waves(tier, limits, limit, n_waves, hours):
    """Input tokens fill the queue so many times; high counts the caps as well."""
    priced = estimate.price_requests(requests(76_026, "nano", "gpt-5-nano"), {"nano": answers(500)})
    row = row_of(estimate.estimate(priced, BOOKS, tier, limits))
    assert (row["queue_limit_tokens"], row["n_waves"]) == (limit, n_waves)
    assert (row["hours_low"], row["hours_expected"], row["hours_high"]) == hours


def test_annotators_of_one_model_share_its_queue():
    """Two annotators with 1.5M tokens each fill a queue of 2M twice, and both rows say so."""
    panel = {"a": Annotator(model="gpt-5-nano"), "b": Annotator(model="gpt-5-nano")}
    asked = pd.concat([requests(750, name, "gpt-5-nano", cap=100) for name in panel])
    priced = estimate.price_requests(asked, dict.fromkeys(panel, answers(50)))
    table = estimate.estimate(priced, panel, tier=1)
    assert table["n_waves"].tolist() == [2, 2]
    assert estimate.totals(table)["hours_low"] == 2


@pytest.mark.parametrize(("model", "tier"), [("gpt-4.1-mini", 1), ("gpt-4o", 3)])
def test_unknown_limits_give_no_waves(model, tier):
    """Where the limit is not known, limit, waves and hours stay empty, in the totals too."""
    panel = {"a": Annotator(model=model)}
    priced = estimate.price_requests(requests(5, "a", model), {"a": answers(50)})
    table = estimate.estimate(priced, panel, tier)
    assert table[["queue_limit_tokens", "n_waves", "hours_expected"]].isna().all(axis=None)
    assert pd.isna(estimate.totals(table)["hours_high"])


@pytest.mark.parametrize(
    ("max_usd", "n_items"),
    [(0, 0), (0.000149, 0), (0.00015, 1), (0.0029, 19), (0.003, 20), (1e9, 100)],
)
def test_affordable(max_usd, n_items):
    """Items of 150 micro-dollars: as many as the budget holds, to the last micro-dollar."""
    priced = estimate.price_requests(requests(100, "nano", "gpt-5-nano"), {"nano": answers(500)})
    assert estimate.affordable(priced, max_usd) == n_items


def test_affordable_as_a_bound():
    """At worst an item costs 2,000 x 0.025 + 3,000 x 0.20 = 650 micro-dollars: $0.003 buys 4."""
    priced = estimate.price_requests(requests(100, "nano", "gpt-5-nano"), {"nano": answers(500)})
    assert estimate.affordable(priced, 0.003, "units_worst") == 4


def test_affordable_counts_all_votes_of_an_item():
    """Three repeats of 150 micro-dollars: $0.0009 buys two items, not six."""
    asked = requests(100, "nano", "gpt-5-nano", repeats=3)
    priced = estimate.price_requests(asked, {"nano": answers(500)})
    assert estimate.affordable(priced, 0.0009) == 2


def test_strangers_and_emptiness_stop():
    """Requests of an annotator outside the panel, or no requests at all, are an error."""
    none = requests(1, "nano", "gpt-5-nano").iloc[:0]
    with pytest.raises(errors.AccountingError, match=r"not in the panel: \['nano'\]"):
        estimate.price_requests(requests(2, "nano", "gpt-5-nano"), {"mini": answers(1)})
    with pytest.raises(errors.AccountingError, match="no requests"):
        estimate.price_requests(none, {"nano": answers(1)})
    assert estimate.worst_case_usd(none) == 0


def test_models_without_a_price_stop():
    """No price, no estimate: the message says what to do."""
    with pytest.raises(errors.ModelError, match=r"no batch price is known for gpt-5\.4"):
        estimate.price_requests(requests(1, "a", "gpt-5.4"), {"a": answers(1)})


def test_sums_beyond_nine_million_dollars():
    """Money is added beyond the range of a 64-bit sum of its smallest units.

    At $1,000 and $5,000 per million, and above the long input: 10,000 x (1,000,000 x $2,000 +
    128,000 x $7,500) per million = 10,000 x $2,960 = $29,600,000.
    """
    price = models.Price(input_usd=1_000, output_usd=5_000)
    dear = models.facts("gpt-6-astra").model_copy(update={"batch": price})
    asked = requests(10_000, "a", "gpt-6-astra", n_input=1_000_000, cap=128_000)
    assert estimate.worst_case_usd(asked, {"gpt-6-astra": dear}) == 29_600_000


PANEL = {
    "a": Annotator(model="gpt-6-luna"),
    "b": Annotator(model="gpt-5-nano"),
    "c": Annotator(model="gpt-4o-mini"),
}
ROWS = st.lists(
    st.tuples(
        st.sampled_from(sorted(PANEL)),
        st.integers(1, 400_000),
        st.floats(0, 1),
        st.integers(1, 128_000),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=30,
)
GUESS = st.tuples(st.integers(1, 9_000), st.integers(0, 9_000), st.none() | st.integers(0, 9_000))


@settings(max_examples=60)
@given(ROWS, GUESS, st.sets(st.integers(0, 29)))
def test_sums_close_and_bounds_hold(rows, guess, known):
    """Rows add up to totals to the micro-dollar, and low <= expected <= high <= worst case."""
    low, more, further = guess
    high = None if further is None else low + more + further
    output = OutputTokens(low, low + more, high, more)
    asked = pd.DataFrame(
        [
            (str(n), f"i{item}", a, PANEL[a].model, n_input, int(n_input * share), cap)
            for n, (a, n_input, share, cap, item) in enumerate(rows)
        ],
        columns=[
            "key", "item", "annotator", "model", "n_input_tokens", "n_prefix_tokens",
            "max_output_tokens",
        ],
    )  # fmt: skip
    priced = estimate.price_requests(asked, dict.fromkeys(PANEL, output), {str(n) for n in known})
    assert priced[asked.columns].equals(asked)
    table = estimate.estimate(priced, PANEL, tier=2)
    sums = estimate.totals(table)

    assert sums["n_requests"] == len(rows) == sums["n_known"] + sums["n_new"]
    for column in estimate.USD_COLUMNS:
        micro = [round(usd * 1_000_000) for usd in table[column]]
        assert [m / 1_000_000 for m in micro] == table[column].tolist()
        assert sum(micro) / 1_000_000 == sums[column]
    figures = [sums[column] for column in estimate.USD_COLUMNS]
    assert figures == sorted(figures)
    assert table["n_output_tokens_low"].le(table["n_output_tokens_expected"]).all()
    assert table["n_output_tokens_expected"].le(table["n_output_tokens_high"]).all()

    new = asked[~asked["key"].isin({str(n) for n in known})]
    singly = sum(
        models.worst_case_usd(models.facts(r.model), r.n_input_tokens, r.max_output_tokens)
        for r in new.itertuples()
    )
    assert sums["worst_case_usd"] == pytest.approx(singly, abs=4e-6)
    n_items = estimate.affordable(priced, singly / 2, "units_worst")
    first = priced["item"].drop_duplicates().iloc[:n_items]
    paid = new[new["item"].isin(first)]
    assert estimate.worst_case_usd(paid) <= singly / 2 + 1e-6


@settings(max_examples=20)
@given(st.permutations(range(6)))
def test_order_never_matters(order):
    """Shuffled requests have the same estimate."""
    asked = pd.concat([requests(2, name, annotator.model) for name, annotator in PANEL.items()])
    asked = asked.reset_index(drop=True)
    outputs = {name: answers(100 * n) for n, name in enumerate(PANEL, 1)}
    tables = [
        estimate.estimate(estimate.price_requests(frame, outputs), PANEL, tier=1)
        for frame in (asked, asked.iloc[list(order)])
    ]
    pd.testing.assert_frame_equal(*tables)


def test_columns():
    """The columns of an estimate are these, in this order; none is called a cost."""
    priced = estimate.price_requests(requests(1, "nano", "gpt-5-nano"), {"nano": answers(1)})
    names = list(estimate.estimate(priced, BOOKS, tier=1))
    assert names == [
        "annotator", "model", "n_requests", "n_known", "n_new", "n_input_tokens",
        "n_cached_tokens", "n_output_tokens_low", "n_output_tokens_expected",
        "n_output_tokens_high", "n_reasoning_tokens", "estimate_usd_low",
        "estimate_usd_expected", "estimate_usd_high", "worst_case_usd", "queue_limit_tokens",
        "n_waves", "hours_low", "hours_expected", "hours_high",
    ]  # fmt: skip
