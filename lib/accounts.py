"""Accounts: what a run holds, as the tables that notebooks show; totals that do not close raise.

Only reads: ledger, outcomes and requests. Decides nothing and calls nobody.
"""

from collections.abc import Mapping
from datetime import date

import pandas as pd

from lib import (
    advice,
    asking,
    collect,
    estimate,
    ledger,
    lengths,
    models,
    prompts,
    queues,
    runs,
    service,
    services,
    wanted,
    words,
    yamls,
)
from lib.errors import AccountingError
from lib.runs import Run
from lib.study import Study


def make_requests(run: Run, sample: int) -> int:
    """Write requests.parquet for a random sample of the items (0: all); gives the row count."""
    items = run.table("documents")["item"]
    drawn = set(items[prompts.sample(items, sample)])
    frames = (
        frame[frame["item"].isin(drawn)] for frame in runs.stream(run.path("documents.parquet"))
    )
    rows = prompts.requests(run.study, (frame for frame in frames if len(frame)))
    return runs.write_stream(rows, run.path("requests.parquet"))


def fields(study: Study) -> pd.DataFrame:
    """The questions of the study: field, type, values, when it applies, what it asks."""
    rows = [
        {
            "field": name,
            "type": field.type,
            "values": ", ".join(field.allowed or field.attributes) or "any",
            "applies": f"when {field.when}" if field.when else "always",
            "asks": field.description.strip(),
        }
        for name, field in study.fields.items()
    ]
    return pd.DataFrame(rows)


def panel(study: Study, today: date) -> pd.DataFrame:
    """The annotators with the facts of their models: prices, queue limit, shutdown."""
    rows = []
    for name, annotator in study.annotators.items():
        model = models.facts(annotator.model)
        left = (model.shutdown_at - today).days if model.shutdown_at else None
        rows.append(
            {
                "annotator": name,
                "model": model.name,
                "repeats": annotator.repeats,
                "weight": annotator.weight,
                "input_usd": model.price.input_usd,
                "output_usd": model.price.output_usd,
                "priced_at": model.priced_at,
                "queue_limit_tokens": model.queue_tokens.get(study.sending.tier),
                "shutdown_at": model.shutdown_at,
                "days_left": left,
            }
        )
    return pd.DataFrame(rows).astype({"queue_limit_tokens": "Int64", "days_left": "Int64"})


def answer_lengths(
    run: Run, requests: pd.DataFrame, *, measured: bool = True
) -> Mapping[str, lengths.OutputTokens]:
    """Tokens of an answer by annotator: measured where answers have come in, else guessed."""
    measure = lengths.measure(answered(run, requests)) if measured else None
    schema = prompts.schema(run.study.fields)
    return lengths.answer_tokens(run.study.annotators, schema, measure)


def compared(run: Run) -> pd.DataFrame:
    """By annotator, the price of all requests of the run as guessed, as measured, and as spent."""
    requests = run.table("requests")
    table = spend(run)[["annotator", "spend_usd"]]
    for name, measured in (("measured_usd", True), ("guessed_usd", False)):
        answers = answer_lengths(run, requests, measured=measured)
        priced = estimate.price_requests(requests, answers)
        whole = estimate.estimate(priced, run.study.annotators, run.study.sending.tier)
        column = whole[["annotator", "estimate_usd_expected"]]
        column = column.rename(columns={"estimate_usd_expected": name})
        table = column.merge(table, on="annotator", how="left")
    return table


def affordable(priced: pd.DataFrame, max_usd: float) -> pd.DataFrame:
    """For some budgets, the items of the largest random sample whose expected price fits.

    Columns: max_usd, n_items_expected, and n_items_worst_case (every answer as long as its cap).
    `priced` comes from `estimate.price_requests`; `max_usd` is one of the budgets unless it is 0.
    """
    drawn = priced.assign(place=prompts.draw_order(priced["item"])).sort_values("place")
    rows = [
        (
            usd,
            estimate.affordable(drawn, usd),
            estimate.affordable(drawn, usd, "units_worst"),
        )
        for usd in sorted({0.1, 1.0, 10.0, 100.0, max_usd} - {0.0})
    ]
    return pd.DataFrame(rows, columns=["max_usd", "n_items_expected", "n_items_worst_case"])


def answered(run: Run, requests: pd.DataFrame) -> pd.DataFrame:
    """Every outcome of this run's own requests, with the item, annotator and repeat that asked."""
    asked = requests[["key", "item", "annotator", "repeat"]]
    return collect.outcomes(run).merge(asked, on="key")


def known_keys(run: Run, requests: pd.DataFrame, named: str) -> set[str]:
    """The requests that have a valid answer already, in this run or from the same service in
    another; the service is named as for `service.connect`.
    """
    own = collect.outcomes(run)
    valid = set(own.loc[own["outcome"].eq("valid"), "key"])
    free, shown = services.find(named).free, service.shown(named)
    return valid | set(collect.known(run, requests, free=free, service=shown)["key"])


def by_model(run: Run) -> pd.DataFrame:
    """Where each model's requests are, what is enqueued, and the limit.

    A request is valid, in flight, not sent, not valid (it has other outcomes alone, and is sent
    again or left for people), or spared, a column that is there when the study spares votes.
    """
    requests, spared = run.table("requests").drop_duplicates("key"), asking.spared(run)
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        flying, open_shards = ledger.in_flight(book), ledger.shards(book, *ledger.OPEN_STATES)
        windows = {m: queues.window_tokens(run, book, m) for m in requests["model"].unique()}
    outcomes = collect.outcomes(run)
    valid = set(outcomes.loc[outcomes["outcome"].eq("valid"), "key"])
    tried, is_decisive = set(outcomes["key"]), asking.is_decisive(run.study)
    rows = []
    for model, asked in requests.groupby("model"):
        keys = set(asked["key"])
        enqueued = [s["n_input_tokens"] for s in open_shards if s["model"] == model]
        rows.append(
            {
                "model": model,
                "n_requests": len(keys),
                "n_valid": len(keys & valid),
                "n_in_flight": len(keys & flying - valid),
                "n_not_sent": len(keys - flying - tried - spared),
                "n_not_valid": len(keys & tried - valid - flying - spared),
                **({"n_spared": len(keys & spared - flying)} if is_decisive else {}),
                "enqueued_tokens": sum(enqueued),
                "limit_tokens": windows[model],
            }
        )
    return pd.DataFrame(rows).astype({"limit_tokens": "Int64"})


def shards(run: Run) -> pd.DataFrame:
    """The shards in the order of planning, with what they hold and where they are.

    Those that were released before anything was sent are left out.
    """
    names = ["shard", "model", "purpose", "n_requests", "n_input_tokens", "size_bytes", "state"]
    names += ["status", "reserved_usd", "settled_usd"]
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        table = pd.DataFrame(ledger.shards(book), columns=[*names, "batch_id"])
    table = table[table["state"].ne("released")]
    return table[names].assign(shard=table["shard"].str[9:])


def totals(run: Run) -> pd.DataFrame:
    """By annotator, the valid or else the last outcome of each request; they must add up.

    Requests without an outcome are `spared` when they can matter no more, else `without_outcome`.
    """
    requests = run.table("requests")
    tried = answered(run, requests)
    tried = tried.assign(valid=tried["outcome"].eq("valid")).sort_values(["valid", "attempt"])
    last = tried.drop_duplicates(["item", "annotator", "repeat"], keep="last")
    table = pd.crosstab(last["annotator"], last["outcome"])
    asked = requests.groupby("annotator").size()
    table = table.reindex(asked.index, fill_value=0)
    table.insert(0, "n_requests", asked)
    if asking.is_decisive(run.study):
        is_spared = requests["key"].isin(asking.spared(run)) & ~requests["key"].isin(tried["key"])
        table["spared"] = is_spared.groupby(requests["annotator"]).sum()
    table["without_outcome"] = table["n_requests"] - table.drop(columns="n_requests").sum(axis=1)
    _check_collected(run)
    return table.reset_index()


def _check_collected(run: Run) -> None:
    """Raise AccountingError unless every line of every collected shard has its outcome."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        collected = ledger.shards(book, "collected")
    found = collect.outcomes(run)["batch"].value_counts()
    for shard in collected:
        n_found = int(found.get(shard["batch_id"], 0))
        if n_found != shard["n_requests"]:
            asked, there = words.n_of(shard["n_requests"], "request"), run.path("outcomes")
            what = f"batch {shard['batch_id']} has {asked}, and"
            what = f"{what} {words.n_of(n_found, 'outcome')} in {yamls.shown(there)}."
            fix = "Put its file back from a copy; nothing is sent twice because of it."
            raise AccountingError(f"{what} {fix}", batch=shard["batch_id"])


def faults(run: Run) -> pd.DataFrame:
    """What went wrong over all attempts, grouped, the most frequent first, and what to do.

    Columns: model, outcome, status, code, param, message, n_lines, what_to_do. Messages that differ
    in numbers and ids alone are one; what a model said when it refused is not repeated.
    """
    names = ["model", "outcome", "status", "code", "param", "message"]
    bad = collect.outcomes(run).query("outcome != 'valid'")
    said = bad["message"].mask(bad["outcome"].eq("refused"), "").fillna("")
    bad = bad.assign(message=said.map(advice.pattern), status=bad["status"].astype(object))
    grouped = bad.fillna(dict.fromkeys(names, "")).groupby(names, sort=True)
    table = grouped.size().reset_index(name="n_lines")
    table["what_to_do"] = _advice(table)
    return table.sort_values("n_lines", ascending=False, kind="stable", ignore_index=True)


def unanswered(run: Run) -> pd.DataFrame:
    """The requests that no further attempt will answer, with their last outcome: for people.

    Columns: item, annotator, repeat, model, attempt, outcome, status, code, message, what_to_do.
    """
    requests, outcomes = run.table("requests"), collect.outcomes(run)
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        flying = ledger.in_flight(book)
    due = asking.now(run, requests, outcomes, flying)
    left = wanted.review(requests, outcomes, due.rows, flying)
    left = left[~left["key"].isin(due.later | due.spared)]
    left["what_to_do"] = _advice(left)
    names = ["item", "annotator", "repeat", "model", "attempt", "outcome", "status", "code"]
    return left[[*names, "message", "what_to_do"]].sort_values(names[:3], ignore_index=True)


def _advice(table: pd.DataFrame) -> list[str]:
    rows = table[["outcome", "status", "code", "param", "message"]].astype(object)
    rows = rows.where(rows.notna() & rows.ne(""), None)
    return [advice.of(*row) for row in rows.itertuples(index=False, name=None)]


def spend(run: Run) -> pd.DataFrame:
    """By annotator: answers, tokens as reported, and USD; every paid attempt counts once."""
    requests = run.table("requests").drop_duplicates("key")
    rows = answered(run, requests).groupby("annotator")
    names = ["n_input_tokens", "n_cached_tokens", "n_output_tokens", "n_reasoning_tokens"]
    table = rows[[*names, "spend_usd"]].sum()
    table.insert(0, "n_answers", rows.size())
    return table.reset_index()


def enqueued(run: Run) -> pd.DataFrame:
    """Enqueued tokens of each model after every submission and every end, by second of the run.

    Columns: model, at_seconds, enqueued_tokens. A batch that the queue refused was never in it.
    """
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        held = pd.DataFrame(ledger.shards(book), columns=["shard", "model", "n_input_tokens"])
        events = ledger.events(book)[["at", "kind", "shard"]]
    events = events[events["kind"].isin(["submitted", "uploaded", "released", "collected"])]
    after = events.groupby("shard")["kind"].shift(-1)
    refused = events["kind"].eq("submitted") & after.isin(["uploaded", "released"])
    sign = events["kind"].map({"submitted": 1, "collected": -1})
    steps = events.assign(sign=sign)[sign.notna() & ~refused].merge(held, on="shard")
    moved = (steps["sign"] * steps["n_input_tokens"]).astype("int64")
    return pd.DataFrame(
        {
            "model": steps["model"],
            "at_seconds": (steps["at"] - steps["at"].min()).dt.total_seconds(),
            "enqueued_tokens": moved.groupby(steps["model"]).cumsum(),
        }
    )
