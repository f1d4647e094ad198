"""Faults in the life of a batch, asked for at each stage: nothing is changed where none strikes.

The engine asks, these functions answer; whether a fault strikes a batch is decided once, when its
stage is reached.
"""

import asyncio

import orjson

from lib.local_api import context, texts
from lib.local_api.faults import keeping, switches

PAUSE_SECONDS = 0.05
BAD_LINES = (
    ("invalid_json_line", texts.NOT_JSON_LINE, None),
    ("invalid_url", texts.WRONG_URL, "url"),
    ("model_not_found", texts.NOT_BATCHABLE.format("gpt-local"), "body.model"),
)
EARLY_ENDS = {
    "expires_early": (("batch_expired", texts.EXPIRED), "expired", "expired_at"),
    "cancels_itself": (("batch_cancelled", texts.CANCELLED), "cancelled", "cancelled_at"),
}


def struck(service: context.Service, row: dict, name: str) -> switches.Rule | None:
    """The rule by which a fault strikes a batch; None when it does not."""
    faults = service.faults
    if name not in faults.on and row["id"] not in faults.attached:
        return None
    n_struck = faults.on[name].n_struck if name in faults.on else 0
    rule = switches.of_batch(faults, name, row["id"], row["n"])
    if name in faults.on and faults.on[name].n_struck != n_struck:
        keeping.keep(service)
    return rule


async def hold(service: context.Service, row: dict, name: str) -> None:
    """Keep a batch in its stage until the fault is switched off, or the batch is cancelled."""
    waker = service.wakers[row["id"]]
    while struck(service, row, name):
        if waker.is_set() and name != "stuck_cancelling":
            return
        await asyncio.sleep(PAUSE_SECONDS)


def validation_errors(service: context.Service, row: dict, n_lines: int) -> bytes:
    """The errors of a file that has none, as the API shows them; empty when it passes."""
    rule = struck(service, row, "fails_validation")
    if rule is None:
        return b""
    numbers = range(1, min(n_lines, max(1, int(rule.value))) + 1)
    kinds = [(number, BAD_LINES[(number - 1) % len(BAD_LINES)]) for number in numbers]
    return orjson.dumps(
        {"object": "list", "data": [texts.line_error(*kind, number) for number, kind in kinds]}
    )


def queue_limit(service: context.Service, row: dict, documented: int | None) -> int | None:
    """The queue limit of a batch's model in tokens; None when there is no limit."""
    rule = struck(service, row, "queue_limit")
    return documented if rule is None else int(rule.value)


def late_seconds(service: context.Service, row: dict) -> float:
    """How many service seconds later than usual the queue forgets a batch."""
    rule = struck(service, row, "queue_released_late")
    return 0.0 if rule is None else rule.value


def early_end(
    service: context.Service, row: dict, n_more: int
) -> tuple[tuple[str, str], str, str] | None:
    """Why, how and when a batch ends before so many more lines are answered, if it does."""
    n_done = row["n_completed"] + row["n_failed"] + n_more
    for name, end in EARLY_ENDS.items():
        rule = struck(service, row, name)
        if rule is not None and n_done > rule.value * row["n_requests"]:
            return end
    return None
