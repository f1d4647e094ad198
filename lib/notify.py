"""Notifications: that a run is done, stopped, near its budget, or must fetch its files soon.

They hold counts and codes alone, never a sentence of a service or model, which may quote a
document. Each is told once; the ledger remembers. Addresses hold secrets: they come from
VOTEBOOK_NOTIFY or the system's keyring, and are never written anywhere. One that fails is recorded,
tried again with the next steps, and stops nothing.
"""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from datetime import timedelta

from lib import clock, collect, keys, ledger, outlook, words
from lib.errors import VotebookError
from lib.runs import Run
from lib.standing import Progress

VARIABLE, USER = "VOTEBOOK_NOTIFY", "notify"
SHARES = (1.0, 0.8, 0.5)
URGENT_DAYS = (1, 7)
ATTEMPTS = 3
TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class News:
    """Something to tell once: what kind it is, by what it differs from others of its kind."""

    kind: str
    mark: str
    text: str


def addresses() -> list[str]:
    """Where to tell, as addresses of apprise divided by blanks: the environment's, or the keyring's
    entry for `votebook`, `notify`; none is a choice.
    """
    return (os.environ.get(VARIABLE) or keys.from_keyring(USER)[0]).split()


def after(run: Run, progress: Progress, max_usd: float) -> list[str]:
    """Tell what is new after a step; gives the kinds that were told."""
    return tell(run, list(news(run, progress, max_usd)))


def news(run: Run, progress: Progress, max_usd: float) -> Iterator[News]:
    """All that is worth telling about where a run stands, told before or not."""
    counts = f"{progress.n_valid:,} of {progress.n_requests:,} answered"
    money = f"${progress.spend_usd:.2f} spent"
    if progress.state == "done":
        mark = f"{progress.n_valid} of {progress.n_requests}"
        yield News("done", mark, f"{counts}, {progress.n_left:,} for review, {money}.")
    if progress.state == "stopped":
        what = [counts, f"{progress.n_to_send:,} to send", money, *_codes(run)]
        yield stopped(", ".join(what))
    for share in SHARES:
        if max_usd and progress.spend_usd >= share * max_usd:
            yield News("money", f"{share:.0%} of {max_usd}", f"{money}, of ${max_usd:.2f} at most.")
            break
    yield from _deadline(run)


def stopped(why: str) -> News:
    """The news that a run goes no further by itself; `why` holds counts and codes alone."""
    return News("stopped", why, f"{why}. Run `advance` or notebook 04: they say what to do.")


def tell(run: Run, found: Sequence[News]) -> list[str]:
    """Tell what has not been told yet; gives the kinds that were told."""
    told = []
    for one in found if found and addresses() else ():
        if _is_due(run, one):
            failure = _send(f"Votebook: run {run.name}: {one.kind}", one.text)
            with ledger.open_ledger(run.path("ledger.sqlite")) as book:
                ledger.note(book, "told", None, what=one.kind, mark=one.mark, failure=failure)
            told += [] if failure else [one.kind]
    return told


def _is_due(run: Run, one: News) -> bool:
    """Whether something was not told yet, and not tried in vain too often."""
    try:
        with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
            events = ledger.events(book)
    except VotebookError:
        return False  # a ledger that cannot be read could not remember it either
    details = events.loc[events["kind"].eq("told"), "detail"]
    mine = [d["failure"] for d in details if (d["what"], d["mark"]) == (one.kind, one.mark)]
    return all(mine) and len(mine) < ATTEMPTS


def _send(title: str, text: str) -> str:
    """What kept a message from an address, in a word; nothing when all took it.

    In a thread of its own, whose errors and warnings are only looked at: apprise loads what others
    have written for more than a hundred services.
    """
    with warnings.catch_warnings(), futures.ThreadPoolExecutor(1) as pool:
        warnings.simplefilter("ignore")
        post = pool.submit(_post, title, text)
        error = post.exception()
    return type(error).__name__ if error else "" if post.result() else "refused"


def _post(title: str, text: str) -> bool:
    import apprise

    post = apprise.Apprise()
    known = post.add(addresses())
    return bool(known and post.notify(title=title, body=text, timeout=TIMEOUT_SECONDS))


def _codes(run: Run) -> list[str]:
    """What went wrong: the code of a service that let nobody in, and faults of lines by code."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        last = ledger.events(book).query("kind not in ('told', 'schedule')").tail(1)
    refused = last.loc[last["kind"].eq("service_error"), "detail"]
    tried = collect.outcomes(run)
    bad = tried[tried["outcome"].ne("valid")].fillna({"code": ""})
    counts = bad.groupby(["outcome", "code"]).size().sort_values(ascending=False, kind="stable")
    codes = [_word(str(detail.get("code") or "")) for detail in refused]
    return codes + [
        f"{n:,} x {_word(outcome)} {_word(code)}".rstrip()
        for (outcome, code), n in counts.head(3).items()
    ]


def _word(code: str) -> str:
    """A code as a word: a service decides what stands there."""
    return code if re.fullmatch(r"[\w.-]{0,60}", code) else "other"


def _deadline(run: Run) -> Iterator[News]:
    """That result files will soon be gone, a week and a day before."""
    now = clock.now()
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        found = outlook.deadlines(ledger.shards(book, "submitted"), now)
    first = min(found.values(), default=None)
    for days in URGENT_DAYS:
        if first and first - now < timedelta(days=days):
            ended = words.n_of(len(found), "ended batch", "ended batches")
            what = f"the results of {ended} are not downloaded"
            text = f"{what}; the service deletes the first from {first:%Y-%m-%d %H:%M} UTC on."
            yield News("deadline", f"{first:%Y-%m-%d} {days}", f"{text} Run `advance` before then.")
            break
