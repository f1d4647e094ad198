"""Submitting: from rows that are wanted to batches at the service, inside queue and budget.

Model by model: what holds one back never holds up another. A shard is on disk and in the ledger
before the upload, and an intent stands there before each call; an unclear end stays an intent for
`reconcile`. What the study no longer asks, or no limit admits any more, is released.
"""

import sqlite3
from datetime import datetime, timedelta
from typing import NamedTuple

import pandas as pd

from lib import (
    asking,
    brake,
    clock,
    collect,
    ledger,
    models,
    pacing,
    planning,
    prompts,
    push,
    queues,
    service,
    shards,
)
from lib.asking import Due
from lib.brake import Verdict
from lib.errors import BudgetError, ModelError, ServiceError
from lib.planning import Step
from lib.runs import Run, crash_point
from lib.wanted import wanted

LOOK_AGAIN_SECONDS = 600  # how often a window is asked anew that only time makes larger


class Sent(NamedTuple):
    """Why no more was sent: what a person or a budget has to change (`held`), and what time will.

    `changes_at` is when time alone may change the answer. What was `due` before, by `outcomes`.
    """

    due: Due
    outcomes: pd.DataFrame

    held: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    changes_at: datetime | None = None


def send(step: Step, requests: pd.DataFrame) -> Sent:
    """Submit what may be submitted now, model by model.

    Raises BudgetError when what is under way passes the budget already, ServiceError for what
    concerns every model, and ModelError when every model that is left refuses what it is asked.
    """
    run, book = step.run, step.book
    outcomes, still, due = _due(step, requests)
    verdicts = _verdicts(step, due.requests, outcomes)
    if _withdraw(step, requests, outcomes, due, verdicts):
        outcomes, still, due = _due(step, requests)
    # What others have paid for costs nothing here, so it is taken whether it is due or not.
    if collect.share(run, still, step.to):
        outcomes, still, due = _due(step, requests)
        verdicts = _verdicts(step, due.requests, outcomes)
    ledger.afford(book, step.cap_usd)
    held, waiting, refused = [], [], []
    for verdict in verdicts.values():
        (held if verdict.state == "stopped" else waiting).append(verdict.why)
    _cancel(step, verdicts)
    waits = {shard["model"] for shard in ledger.shards(book, "planned", "uploaded")}
    names = sorted({*due.rows["model"].unique(), *waits})
    n_released = len(ledger.shards(book, "released"))
    for model in names:
        asked = due.rows[due.rows["model"].eq(model)]
        try:
            _send(step, model, asked, verdicts.get(model, Verdict("canary")), len(names))
        except ModelError as error:
            refused.append(error)
        except BudgetError as error:
            held.append(str(error))
        except ServiceError as error:
            if push.stops_all(error):
                raise
            ledger.note(book, "service_error", None, model=model, error=str(error))
            (held if error.final else waiting).append(str(error))
    if refused and len(refused) == len(names):
        raise refused[0]
    held += [str(error) for error in refused]
    told = (tuple(filter(None, held)), tuple(filter(None, waiting)))
    if len(ledger.shards(book, "released")) > n_released:  # their lines are to be planned anew
        return Sent(due, outcomes, *told, clock.now())
    return Sent(due, outcomes, *told, _changes_at(step, verdicts))


def stops(run: Run, requests: pd.DataFrame) -> dict[str, str]:
    """The models to which the last command sends nothing more, with the reason for each."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        given = (collect.outcomes(run), ledger.shards(book), run.study, clock.now())
        found = brake.verdicts(requests, *given, _began_at(book))
    return {model: one.why for model, one in found.items() if one.state == "stopped"}


def _due(step: Step, requests: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, Due]:
    """The outcomes, what is wanted of all requests by them, and what of that is due."""
    outcomes, flying = collect.outcomes(step.run), ledger.in_flight(step.book)
    still = wanted(requests, outcomes, flying, step.run.study)
    return outcomes, still, asking.due(step.run, requests, outcomes, still, flying)


def _withdraw(
    step: Step,
    requests: pd.DataFrame,
    outcomes: pd.DataFrame,
    due: Due,
    verdicts: dict[str, Verdict],
) -> bool:
    """Release the shards that are not batches yet and hold a line that is not to be asked now, more
    than the limits of today admit, or what a canary has to go before; gives whether any was."""
    waiting = ledger.shards(step.book, "planned", "uploaded")
    if not waiting:
        return False
    answered = set(outcomes.loc[outcomes["outcome"].eq("valid"), "key"])
    asked, not_now = set(requests["key"]) - answered, due.later | due.spared
    n_released = len(ledger.shards(step.book, "released"))
    for shard in waiting:
        keys = set(ledger.sends(step.book, shard["shard"])["key"])
        if not asked >= keys:
            push.release(step, shard, "its requests have changed since it was planned")
        elif shard["model"] not in verdicts:
            push.release(step, shard, "the study asks its model no more")
        elif queues.is_paused([shard]):
            continue
        elif not_now & keys:
            push.release(step, shard, "some of its lines need not be asked now")
        elif verdicts[shard["model"]].state == "canary" and shard["purpose"] != "canary":
            push.release(step, shard, "its model has to pass a canary first")
        elif shard["n_requests"] > 1:
            window = queues.window_tokens(step.run, step.book, shard["model"])
            bounds = _bounds(step, shard["model"], window)
            if (
                (window is not None and shard["n_input_tokens"] > window)
                or shard["n_requests"] > bounds.max_requests
                or shard["size_bytes"] > bounds.max_bytes
            ):
                push.release(step, shard, "its lines go into smaller ones")
    return len(ledger.shards(step.book, "released")) > n_released


def _verdicts(step: Step, requests: pd.DataFrame, outcomes: pd.DataFrame) -> dict[str, Verdict]:
    """What may be sent to each model, by what has come in up to now."""
    book, now = step.book, clock.now()
    # A command is known by its hold; what it has seen stop, only the next one tries again.
    if (ledger.fact(book, "hold") or "").split(" ")[0] != step.hold:
        ledger.bind(book, "hold", f"{step.hold} {now.isoformat()}", again=True)
    began_at = _began_at(book) if step.hold else None
    return brake.verdicts(requests, outcomes, ledger.shards(book), step.run.study, now, began_at)


def _began_at(book: sqlite3.Connection) -> datetime | None:
    """When the command began that holds the run, or held it last."""
    held = ledger.fact(book, "hold")
    return datetime.fromisoformat(held.split(" ")[1]) if held else None


def _cancel(step: Step, verdicts: dict[str, Verdict]) -> None:
    """Cancel what is in flight to the models that the brake stops, if the study says so."""
    if step.run.study.sending.brake != "cancel":
        return
    for shard in ledger.shards(step.book, "submitted"):
        verdict = verdicts.get(shard["model"])
        running = shard["status"] in ("validating", "in_progress")
        if running and verdict and verdict.state in ("braked", "stopped"):
            ledger.note(step.book, "brake", shard["shard"], why=verdict.why)
            service.cancel(step.to, shard["batch_id"])
            crash_point("brake cancelled")
            ledger.observe(step.book, shard["shard"], status="cancelling")


def _send(step: Step, model: str, rows: pd.DataFrame, verdict: Verdict, n_models: int) -> None:
    """Submit to one model what its verdict, its queue and the hour admit now."""
    run, book = step.run, step.book
    mine = [s for s in ledger.shards(book, *ledger.OPEN_STATES) if s["model"] == model]
    waiting = [shard for shard in mine if shard["state"] in ("planned", "uploaded")]
    if verdict.state not in ("open", "canary") or queues.is_paused(waiting):
        return
    _check_model(run, model)
    _check_queue(step, model)
    is_canary = verdict.state == "canary"
    if step.canaries_only:
        waiting = [shard for shard in waiting if shard["purpose"] == "canary"]
    window = queues.window_tokens(run, book, model)
    n_most = _n_creates(step, model, n_models)
    enqueued = sum(shard["n_input_tokens"] for shard in mine if shard["state"] == "submitted")
    sizes = [shard["n_input_tokens"] for shard in waiting]
    n_pushed = pacing.admit(sizes, enqueued, window, n_most)
    for shard in waiting[:n_pushed]:
        push.push(step, shard)
    if n_pushed < len(waiting) or (step.canaries_only and not is_canary):
        return
    n_most, enqueued = n_most - n_pushed, enqueued + sum(sizes)
    if is_canary:
        parts = [] if mine else [_canary(rows, run.study.sending.canary, window)]
    else:
        parts = _parts(step, model, rows, window, enqueued, n_most)
    for part in parts[: max(0, n_most)]:
        if len(part):
            push.push(step, planning.plan(step, model, part, "canary" if is_canary else "main"))


def _check_model(run: Run, model: str) -> None:
    """Raise ModelError before anything is sent that the model is known to refuse."""
    today = clock.now().date()
    for annotator in run.study.annotators.values():
        if model in (annotator.model, *annotator.fallback):
            models.check(model, annotator.parameters, today)


def _check_queue(step: Step, model: str) -> None:
    """Raise ServiceError for a model that the service has refused for a day: then one batch an hour
    is tried, and none by the command that has seen the last refusal."""
    queue, began_at = queues.known(step.run, step.book, model), _began_at(step.book)
    n = pacing.n_in_a_row(queue, queues.seen(step.book, model).admitted_at)
    if n < pacing.HOPELESS or queue.refused_at is None:
        return
    ends_at = pacing.pause_ends(n, queue.refused_at)
    is_seen = began_at is not None and queue.refused_at >= began_at
    if is_seen or pacing.is_paused(ends_at, clock.now()):
        what = (
            f"stopped: {step.to.name} has had no room for {model} for more than a day: it refused"
        )
        fix = "Let nothing else use its queue, or lower max_output_tokens or items: max_tokens"
        facts = {"code": "queue_full", "status": 429, "unclear": False, "final": True}
        again = f"the same command tries it once more from {ends_at:%H:%M} UTC on"
        raise ServiceError(f"{what} {n} batches in a row. {fix}; {again}.", **facts)


def _n_creates(step: Step, model: str, n_models: int) -> int:
    """How many batches of a model may be made now: one at a time while its queue refuses."""
    hour_ago = (clock.now() - timedelta(hours=1)).isoformat(timespec="milliseconds")
    an_hour = step.to.facts.max_batches_per_hour or pacing.BATCHES_AN_HOUR
    n_made = ledger.n_events(step.book, "submitted", hour_ago)
    n_most = pacing.n_creates(n_made, n_models, an_hour)
    queue, beside = queues.known(step.run, step.book, model), queues.seen(step.book, model)
    if not pacing.n_in_a_row(queue, beside.admitted_at):
        return n_most
    return 0 if beside.is_checking else min(n_most, 1)


def _canary(rows: pd.DataFrame, n: int, window: int | None) -> pd.DataFrame:
    """A canary of the rows: those that were tried least, so that none uses up its attempts, and no
    more of them than an empty queue admits."""
    least = rows[rows["attempt"].eq(rows["attempt"].min())]
    drawn = least[prompts.sample(least["key"], n)]
    fits = drawn["n_input_tokens"].cumsum().le(float("inf") if window is None else window)
    return drawn[fits] if fits.any() else drawn[:1]


def _parts(
    step: Step, model: str, rows: pd.DataFrame, window: int | None, enqueued: int, n_most: int
) -> list[pd.DataFrame]:
    """The rows of the next shards, as many as the queue admits beside what is enqueued."""
    if window is not None:  # more than fits into an empty queue need not be looked at
        before = rows["n_input_tokens"].cumsum() - rows["n_input_tokens"]
        rows = rows[before <= window]
    numbers = shards.pack(rows, _bounds(step, model, window))
    parts = [part for _, part in rows.groupby(numbers, sort=True)]
    sizes = [int(part["n_input_tokens"].sum()) for part in parts]
    return parts[: pacing.admit(sizes, enqueued, window, n_most)]


def _bounds(step: Step, model: str, window: int | None) -> shards.Limits:
    """What a shard for a model may hold at this service."""
    facts, most = step.to.facts, step.run.study.sending.max_requests
    # The sizes of requests.parquet are those of lines to OpenAI.
    longer = len(facts.called(model)) + len(facts.url) - len(model) - len(prompts.ENDPOINT)
    most_bytes = facts.max_bytes - max(0, longer) * most
    return shards.limits(most, window, facts.max_requests, most_bytes)


def _changes_at(step: Step, verdicts: dict[str, Verdict]) -> datetime | None:
    """When time alone may admit more: a pause ends, or a window has grown."""
    now = clock.now()
    waiting = ledger.shards(step.book, "planned", "uploaded")
    pauses = [datetime.fromisoformat(s["not_before"]) for s in waiting if s["not_before"]]
    ends = [*pauses, *(verdict.until for verdict in verdicts.values() if verdict.until)]
    hour_ago = (now - timedelta(hours=1)).isoformat(timespec="milliseconds")
    n_made = ledger.n_events(step.book, "submitted", hour_ago)
    if ledger.limits(step.book) or n_made >= pacing.BATCHES_AN_HOUR // 2:
        ends.append(now + timedelta(seconds=LOOK_AGAIN_SECONDS))
    return min((end for end in ends if end > now), default=None)
