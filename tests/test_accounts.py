"""Accounts: tables of what a run holds, and totals that must close."""

import datetime
import hashlib
import itertools

import pandas as pd
import pytest
import sending

from lib import accounts, collect, estimate, ledger, prompts, runs
from lib.errors import AccountingError
from lib.lengths import OutputTokens

TODAY = datetime.date(2026, 11, 22)
TWO = {
    "terra": {"model": "gpt-6.1-terra", "parameters": {"reasoning_effort": "none"}},
    "luna": {"model": "gpt-6-luna", "repeats": 2, "parameters": {"reasoning_effort": "none"}},
}
SHARD = {
    "model": "gpt-6-luna",
    "purpose": "main",
    "file": "s.jsonl",
    "sha256": "-",
    "size_bytes": 10,
    "n_requests": 1,
    "n_input_tokens": 700,
    "reserved_usd": 0.5,
    "fields": "fields",
}


def write_outcomes(run, rows, batch="batch_1"):
    """One outcome file; rows: (key, attempt, outcome, output tokens, USD, message)."""
    table = pd.DataFrame(
        [
            {
                "key": key,
                "attempt": attempt,
                "custom_id": f"q{key[:8]}-a{attempt}",
                "outcome": outcome,
                "model": "gpt-6-luna",
                "n_input_tokens": 100,
                "n_output_tokens": n_output,
                "n_cached_tokens": 0,
                "n_reasoning_tokens": 0,
                "spend_usd": usd,
                "message": message,
                "simulated": True,
                "batch": batch,
                "run": run.name,
            }
            for key, attempt, outcome, n_output, usd, message in rows
        ]
    ).reindex(columns=collect.COLUMNS)
    runs.write_table(collect._typed(table), run.path("outcomes") / f"{batch}.parquet")


def plan(run, *names, **differs):
    """Shards in the ledger of the run, each with a line of its own."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.bind(book, "fields", "{}")
        for name in names:
            row = {**SHARD, "shard": name, **differs}
            key = hashlib.sha256(name.encode()).hexdigest()
            ledger.plan(book, row, [(prompts.custom_id(key, 0), key, 0)], float("inf"))


def move(run, name, *states, **facts):
    """Take a shard through these states."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        for old, new in itertools.pairwise(states):
            ledger.move(book, name, old, new, **(facts if new == states[-1] else {}))


@pytest.fixture
def run(make_run):
    """Six items, asked once by terra and twice by luna, and no answer yet."""
    return make_run(annotators=TWO)


def test_a_sample_is_drawn_before_requests_are_made(run):
    """2 of 6 items x 3 votes are 6 requests, and the larger sample holds the smaller one."""
    assert accounts.make_requests(run, 2) == 6
    small = set(run.table("requests")["item"])
    assert accounts.make_requests(run, 4) == 12
    assert small < set(run.table("requests")["item"])
    assert accounts.make_requests(run, 0) == 18
    assert accounts.make_requests(run, 1000) == 18


def test_the_questions_are_shown(run):
    """What is asked, of which type, and when it applies."""
    table = accounts.fields(run.study)
    assert table.to_dict("records") == [
        {
            "field": "pleased",
            "type": "boolean",
            "values": "true, false",
            "applies": "always",
            "asks": "Whether the guest was pleased.",
        }
    ]


def test_the_panel_is_shown_with_its_facts(run):
    """Prices with their date, limits, and the days to a shutdown where there is one."""
    table = accounts.panel(run.study, TODAY)
    assert table.set_index("annotator")["repeats"].to_dict() == {"terra": 1, "luna": 2}
    assert table["input_usd"].gt(0).all()
    assert table["queue_limit_tokens"].gt(0).all()
    assert table["days_left"].isna().all()


def test_before_the_first_answer_everything_is_empty(run):
    """No ledger, no outcomes: empty tables with their columns, and nothing raises."""
    assert accounts.faults(run).empty
    assert accounts.shards(run).empty
    assert accounts.enqueued(run).columns.tolist() == ["model", "at_seconds", "enqueued_tokens"]
    assert accounts.enqueued(run).empty
    assert accounts.spend(run).empty
    assert accounts.totals(run)["without_outcome"].tolist() == [12, 6]
    assert accounts.compared(run)["spend_usd"].isna().all()
    assert accounts.known_keys(run, run.table("requests"), "local") == set()
    assert accounts.by_model(run)["n_not_sent"].tolist() == [12, 6]
    assert not run.path("ledger.sqlite").exists()


def test_the_valid_outcome_of_a_request_counts_else_the_last(run):
    """Valid before expired whatever the order; of two faults the later one."""
    keys = run.table("requests").query("annotator == 'luna'")["key"].tolist()
    rows = [(keys[0], 0, "valid", 5, 0.1, None), (keys[0], 1, "expired", 0, 0, None)]
    rows += [(keys[1], 0, "empty", 5, 0.1, None), (keys[1], 1, "truncated", 5, 0.1, None)]
    write_outcomes(run, rows)
    table = accounts.totals(run).set_index("annotator")
    assert table.loc["luna"].to_dict() == {
        "n_requests": 12,
        "truncated": 1,
        "valid": 1,
        "without_outcome": 10,
    }
    assert table.loc["terra", "without_outcome"] == 6


def test_a_collected_batch_without_its_outcomes_raises(run):
    """A line was collected and nobody knows what became of it: the totals do not close."""
    plan(run, "one")
    states = ("planned", "uploading", "uploaded", "submitting", "submitted", "collected")
    move(run, "one", *states, batch_id="batch_1")
    with pytest.raises(AccountingError, match="batch_1 has 1 request, and 0 outcomes") as error:
        accounts.totals(run)
    assert error.value.batch == "batch_1"
    write_outcomes(run, [("key-one", 0, "valid", 5, 0.1, None)])
    assert accounts.totals(run)["n_requests"].sum() == 18


def test_every_request_of_a_model_has_one_place(run):
    """valid + in flight + not sent + not valid = requests."""
    keys = run.table("requests").query("annotator == 'luna'")["key"].tolist()
    rows = [(keys[0], 0, "valid", 5, 0.1, None), (keys[1], 0, "refused", 5, 0.1, None)]
    write_outcomes(run, rows)
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.bind(book, "fields", "{}")
        asked = [(keys[2], 0), (keys[0], 1)]
        lines = [(prompts.custom_id(key, attempt), key, attempt) for key, attempt in asked]
        ledger.plan(book, {**SHARD, "shard": "s"}, lines, float("inf"))
    row = accounts.by_model(run).set_index("model").loc["gpt-6-luna"]
    names = ["n_requests", "n_valid", "n_in_flight", "n_not_sent", "n_not_valid"]
    assert row[names].tolist() == [12, 1, 1, 9, 1]
    assert row["enqueued_tokens"] == 700


def test_released_shards_are_not_shown(run):
    """What was planned and given up held nothing that was sent."""
    plan(run, "12345678-luna-00000", "12345678-luna-00001")
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.release(book, "12345678-luna-00001", "planned", "changed")
    assert accounts.shards(run)["shard"].tolist() == ["luna-00000"]


def test_faults_are_grouped_and_the_most_frequent_come_first(run):
    """By model, outcome, code and message without numbers; what a model said is not repeated."""
    said = [
        ("a", "refused", "I will not read of Mrs Gray."),
        ("b", "refused", "No."),
        ("c", "failed", "Limit 12 passed"),
        ("d", "failed", "Limit 13 passed"),
        ("e", "failed", "Limit 14 passed"),
        ("f", "empty", None),
        ("g", "valid", None),
    ]
    write_outcomes(run, [(key, 0, outcome, 5, 0.1, why) for key, outcome, why in said])
    table = accounts.faults(run)
    assert table[["outcome", "message", "n_lines"]].to_numpy().tolist() == [
        ["failed", "Limit N passed", 3],
        ["refused", "", 2],
        ["empty", "", 1],
    ]
    assert "max_output_tokens" in table["what_to_do"][2]


def test_what_nobody_will_answer_is_listed_for_people(run):
    """A request refused for good is on the list; one that is asked once again is not."""
    first, second, *_ = run.table("requests").query("annotator == 'terra'")["key"]
    rows = [(first, n, "refused", 5, 0.1, "No.") for n in (0, 1)]
    write_outcomes(run, [*rows, (second, 0, "refused", 5, 0.1, "No.")])
    (row,) = accounts.unanswered(run).to_dict("records")
    assert (row["annotator"], row["outcome"], row["attempt"]) == ("terra", "refused", 1)
    assert row["item"] == run.table("requests").set_index("key")["item"][first]


def test_spend_counts_every_paid_attempt_once(run):
    """Two attempts of one request at $0.10 and $0.20 are two answers and $0.30."""
    key = run.table("requests").query("annotator == 'terra'")["key"].iloc[0]
    rows = [(key, 0, "empty", 5, 0.1, None), (key, 1, "valid", 7, 0.2, None)]
    write_outcomes(run, rows)
    row = accounts.spend(run).iloc[0]
    assert (row["annotator"], row["n_answers"], row["n_output_tokens"]) == ("terra", 2, 12)
    assert row["spend_usd"] == pytest.approx(0.3)


def test_measured_lengths_replace_the_guesses(run):
    """Answers of 5 and 7 tokens make a mean of 6."""
    requests = run.table("requests")
    keys = requests.query("annotator == 'luna'")["key"].tolist()
    write_outcomes(run, [(k, 0, "valid", n, 0.1, None) for k, n in zip(keys, (5, 7), strict=False)])
    assert accounts.answer_lengths(run, requests)["luna"].expected == 6
    guessed = accounts.answer_lengths(run, requests, measured=False)["luna"].expected
    table = accounts.compared(run).set_index("annotator")
    ratio = table.loc["luna", "guessed_usd"] > table.loc["luna", "measured_usd"]
    assert ratio == (guessed > 6)


def test_more_money_affords_more_items(run):
    """The budgets are sorted, and the worst case never affords more than what is expected."""
    requests = run.table("requests")
    answers = dict.fromkeys(TWO, OutputTokens(10, 100, None, 0))
    priced = estimate.price_requests(requests, answers)
    table = accounts.affordable(priced, 0.00001)
    assert table["max_usd"].tolist() == [0.00001, 0.1, 1.0, 10.0, 100.0]
    assert table["n_items_expected"].is_monotonic_increasing
    assert (table["n_items_worst_case"] <= table["n_items_expected"]).all()
    assert table["n_items_expected"].iloc[[0, -1]].tolist() == [0, 6]


def test_enqueued_tokens_rise_and_fall(run):
    """+700 when a batch is submitted, -700 when it is collected; two at once are 1,400."""
    plan(run, "one", "two")
    for name in ("one", "two"):
        move(run, name, "planned", "uploading", "uploaded", "submitting", "submitted")
    move(run, "one", "submitted", "collected")
    table = accounts.enqueued(run)
    assert table["enqueued_tokens"].tolist() == [700, 1400, 700]
    assert table["at_seconds"].is_monotonic_increasing
    assert set(table["model"]) == {"gpt-6-luna"}


def test_a_batch_that_the_queue_refused_was_never_in_it(run):
    """Submitted, refused and submitted again: 700 tokens at the most, not 1,400."""
    plan(run, "one")
    first = ("planned", "uploading", "uploaded", "submitting", "submitted", "uploaded")
    move(run, "one", *first)
    assert accounts.enqueued(run).empty
    move(run, "one", "uploaded", "submitting", "submitted")
    assert accounts.enqueued(run)["enqueued_tokens"].tolist() == [700]


def test_a_real_run_closes(make_run, endpoint):
    """Six answers over HTTP: every table agrees with every other."""
    run = make_run()
    progress = sending.finish(run, sending.service_at(endpoint))
    assert progress.state == "done"
    assert accounts.totals(run)["without_outcome"].sum() == 0
    models = accounts.by_model(run).iloc[0]
    assert models["n_requests"] == models["n_valid"] + models["n_not_valid"] == 6
    assert accounts.shards(run)["n_requests"].sum() == accounts.spend(run)["n_answers"].sum()
    assert accounts.enqueued(run)["enqueued_tokens"].iloc[-1] == 0
    assert accounts.spend(run)["spend_usd"].sum() == pytest.approx(progress.spend_usd)
    valid = collect.outcomes(run).query("outcome == 'valid'")["key"]
    assert accounts.known_keys(run, run.table("requests"), "local") == set(valid)
