"""The brake: whether a model may be sent to, by what its answers and its batches say so far.

Decides from tables alone, model by model. A model goes through a canary first, stops when too many
of its answers are not valid, and stops at the first line that the account is the cause of; such a
stop is tried anew, with a canary, by the next command and after a pause that grows.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pandas as pd

from lib import advice, answers, pacing, wanted, words
from lib.study import Sending, Study

_NEVER = datetime.min.replace(tzinfo=UTC)


class Verdict(NamedTuple):
    """What may be sent to a model now.

    `state` is open, canary, paused (till `until`), braked (while a batch fails), or stopped (a
    person has to act); `why` says so for the last three.
    """

    state: str
    why: str = ""
    until: datetime | None = None


class End(NamedTuple):
    """A collected batch: `kind` is good (it has judged lines), model or account (it has lines that
    they are the cause of), or idle (the service has answered none)."""

    model: str
    is_canary: bool
    made_at: datetime
    ended_at: datetime
    kind: str


def verdicts(
    requests: pd.DataFrame,
    outcomes: pd.DataFrame,
    shards: Sequence[Mapping[str, Any]],
    study: Study,
    now: datetime,
    began_at: datetime | None = None,
) -> dict[str, Verdict]:
    """By model of the requests and of every fallback: what may be sent to it now.

    `shards` are the ledger's. `began_at` is when the command began that asks: what it has seen
    stop, it does not try again itself. Without it, the command is new.
    """
    table = wanted.health(requests, outcomes, study).set_index("model")["verdict"].to_dict()
    chains = (annotator.fallback for annotator in study.annotators.values())
    ends, found = past(outcomes, shards), {}
    for model in sorted({*table, *(model for chain in chains for model in chain)}):
        state = table.get(model, "untried")
        held = None
        if state == "failed":
            held = Verdict("stopped", wanted.stopped(study, [model], outcomes))
        elif held := _tried(model, state == "untried", ends, study.sending, now, began_at):
            held = held._replace(why=_why(model, held, outcomes))
        elif state == "untried":
            held = Verdict("canary")
        mine = [shard for shard in shards if shard["model"] == model]
        found[model] = held or _failing(mine, study.sending) or Verdict("open")
    return found


def past(outcomes: pd.DataFrame, shards: Iterable[Mapping[str, Any]]) -> list[End]:
    """How the run's batches ended, in no order."""
    blocked, batches = answers.blocked(outcomes), outcomes["batch"]
    account = set(batches[blocked & answers.blames_account(outcomes)].unique())
    model = set(batches[blocked].unique())
    good = set(batches[~(blocked | answers.retryable(outcomes))].unique())
    found = []
    for shard in shards:
        if shard["state"] == "collected":
            names = {"account": account, "model": model, "good": good}
            kind = next((name for name, held in names.items() if shard["batch_id"] in held), "idle")
            times = (_time(shard["submitted_at"]), _time(shard["collected_at"]))
            found.append(End(shard["model"], shard["purpose"] == "canary", *times, kind))
    return found


def _tried(
    model: str,
    is_untried: bool,
    ends: Sequence[End],
    bounds: Sending,
    now: datetime,
    began_at: datetime | None,
) -> Verdict | None:
    """What follows when the last answers of a model are none; nothing when they are answers.

    The account is the cause: stopped at once. No line of a canary was answered: once more, then
    after growing pauses, and stopped after as many as the study's attempts. An answer to what was
    sent after that ends it.
    """
    goods = [end for end in ends if end.kind == "good"]
    good_at = max([end.made_at for end in goods if end.model == model], default=_NEVER)
    any_good_at = max([end.made_at for end in goods], default=_NEVER)
    mine = [end for end in ends if end.model == model and end.ended_at >= good_at]
    blocks = [end for end in mine if end.kind == "model"]
    blocks += [end for end in ends if end.kind == "account" and end.ended_at >= any_good_at]
    vain = [end for end in mine if end.is_canary and end.kind != "good"]
    if not blocks and not (is_untried and vain):
        return None
    last_at = max(end.ended_at for end in [*blocks, *vain])
    until = pacing.pause_ends(max(0, len(vain) - 1), last_at)
    is_final = bool(blocks) or len(vain) >= bounds.attempts
    if is_final and began_at is not None and last_at >= began_at:
        return Verdict("stopped")
    if not pacing.is_paused(until, now):
        return Verdict("canary")
    return Verdict("stopped" if is_final else "paused", until=until)


def _failing(shards: Iterable[Mapping[str, Any]], bounds: Sending) -> Verdict | None:
    """The brake on a model with a running batch of which too many lines have failed so far.

    These counts are the service's: they only hold back, until the lines themselves are there.
    """
    for shard in shards:
        if pacing.is_failing(shard, bounds.canary, bounds.max_failure_share):
            n_ended = shard["n_failed"] + (shard["n_completed"] or 0)
            what = f"{shard['n_failed']:,} of {words.n_of(n_ended, 'line')} failed so far in batch"
            what = f"{shard['model']}: {what} {shard['batch_id']}, more than"
            why = f"{what} {bounds.max_failure_share:.0%}. Nothing more is sent while it runs."
            return Verdict("braked", why)
    return None


def _why(model: str, verdict: Verdict, outcomes: pd.DataFrame) -> str:
    """The commonest faults, what a person can do, and when it is tried again."""
    if verdict.state == "canary":
        return ""
    mine = outcomes["model"].eq(model)
    blocked = outcomes[answers.blocked(outcomes) & (mine | answers.blames_account(outcomes))]
    bad = outcomes[mine & answers.retryable(outcomes)] if blocked.empty else blocked
    said = wanted.commonest(bad)
    if blocked.empty:
        what = f"the service answered no line of the last canary of {model} ({said})."
    else:
        row = blocked.iloc[-1][["outcome", "status", "code", "param", "message"]]
        given = [None if pd.isna(value) else value for value in row]
        what = f"{model} is refused to this account ({said}). {advice.of(*given)}"
    if verdict.state == "paused":
        return f"{what} It is tried again at {verdict.until:%H:%M} UTC."
    pause = f", from {verdict.until:%H:%M} UTC on" if verdict.until else ""
    again = f"the same command tries it again with a canary{pause}"
    return f"stopped: {what} Nothing more is sent to it; {again}."


def _time(text: str | None) -> datetime:
    return datetime.fromisoformat(text) if text else _NEVER
