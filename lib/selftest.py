"""A test of an account: two tiny requests through the same machinery as a run, step by step.

It says beforehand what they may cost at most, and sends nothing that this does not cover. What
takes longer than it waits is picked up by the same command, and nothing is paid twice. Its folder
lies below `.selftest` in `outputs/`, apart from the answers that runs share, and goes at the end.
"""

import contextlib
import gzip
import hashlib
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lib import (
    batches,
    clock,
    collect,
    dispatch,
    estimate,
    ledger,
    models,
    prompts,
    reconcile,
    runs,
    service,
)
from lib.errors import ServiceError
from lib.runs import Run
from lib.service import Service
from lib.study import Study

DONE, STOPPED, WAITING = 0, 2, 3
DEFAULT_MODEL = "gpt-6-luna"
WAIT_SECONDS = 900.0
CAP_TOKENS = 1_000
EFFORTS = ("none", "minimal", "low")  # the first that a model knows: little reasoning, little cost
TEXTS = ("The soup was warm and the waiter kind.", "A cold room, and nobody came.")
FENCE = "fence"  # the fact in the ledger that names the batch that must fail


@dataclass
class Test:
    """A test under way: where it sends, its small run, and what has been found so far."""

    run: Run
    to: Service
    say: Callable[[str], object]
    ends_at: float
    failures: list[str] = field(default_factory=list)

    def tell(self, holds: bool | None, what: str) -> None:
        """Say whether something holds; None is for what could not be measured."""
        self.say(f"{ {True: 'yes', False: 'NO', None: '?'}[holds]:5}{what}")
        if holds is False:
            self.failures.append(what)


def run(
    service_name: str,
    model: str = "",
    max_usd: float = 0.0,
    say: Callable[[str], object] = print,
) -> int:
    """Test an account and say what holds: 0 all does, 2 something does not, 3 answers are pending.

    Raises ServiceError without a key or connection, ModelError for a model that cannot be used.
    """
    to = service.connect(service_name)
    with contextlib.closing(to.client):
        return on(to, model or DEFAULT_MODEL, max_usd, say)


def on(
    to: Service,
    model: str,
    max_usd: float,
    say: Callable[[str], object],
    wait_seconds: float = WAIT_SECONDS,
) -> int:
    """Test a service that is connected already; otherwise as `run`."""
    study = _study(model, models.facts(model))
    models.check(model, study.annotators["one"].parameters, clock.now().date())
    folder = runs.outputs() / ".selftest" / _slug(f"{to.name}-{model}")
    test = Test(Run(folder.name, folder, study), to, say, clock.monotonic() + wait_seconds)
    requests = _requests(test.run)
    usd = estimate.worst_case_usd(requests)
    money = "simulated" if to.free else "real"
    say(f"Two requests to {model} at {to.name} cost at most ${usd:.6f} of {money} money.")
    say(f"With a third batch, which must fail and cost nothing, it is at most ${2 * usd:.6f}.")
    if not to.free and not max_usd >= 2 * usd:
        say(f"Nothing is sent: max_usd is {max_usd:g}. Give at least --max-usd {2 * usd:.6f}.")
        return STOPPED
    try:
        return _all(test, requests, usd)
    except ServiceError as error:
        test.tell(False, str(error))
        return STOPPED


def _all(test: Test, requests: pd.DataFrame, usd: float) -> int:
    """Every step, in the order in which it can be known."""
    test.tell(True, f"key accepted: {_n_batches(test.to)} in the list of batches")
    name = test.to.facts.called(str(requests["model"].iloc[0]))
    known = service.knows_model(test.to, name)
    test.tell(known or None, f"model {name} {'known' if known else 'not named'} at {test.to.name}")
    progress = _sent(test, usd)
    if progress.state == "waiting":
        test.say("Answers are pending. The same command goes on, and pays nothing twice.")
        return WAITING
    _judge(test, requests, progress)
    if progress.n_valid:
        fence = _fence(test)
        if fence is None:
            test.say("The last batch has not ended. The same command goes on, and pays nothing.")
            return WAITING
        test.tell(fence, "a batch of a deleted input file fails and runs nothing")
        _delete(test)
    shutil.rmtree(test.run.folder)
    test.say("All holds." if not test.failures else f"{len(test.failures)} do not hold.")
    return STOPPED if test.failures else DONE


def _study(model: str, facts: models.Model) -> Study:
    """A study that asks one small question."""
    efforts = [effort for effort in EFFORTS if effort in (facts.efforts or ())]
    parameters = {"max_output_tokens": CAP_TOKENS}
    parameters |= {"reasoning_effort": efforts[0]} if efforts else {}
    pleased = {"description": "Whether the guest was pleased.", "type": "boolean"}
    return Study.model_validate(
        {
            "name": "selftest",
            "title": "Selftest",
            "question": "Does the account work?",
            "corpus": {"all": {"path": "*.txt"}},
            "fields": {"pleased": pleased},
            "panel": "one",
            "panels": {"one": {"annotators": {"one": {"model": model, "parameters": parameters}}}},
            "sending": {"canary": len(TEXTS), "attempts": 1},
            "prompt": "Say whether the guest was pleased.",
            "folder": "selftest",
        }
    )


def _requests(of: Run) -> pd.DataFrame:
    """The run's two requests; a new test asks about new texts, so that no old answer serves."""
    path = of.path("requests.parquet")
    if not path.is_file():
        token = secrets.token_hex(4)
        texts = [f"{text} (Test {token}.)" for text in TEXTS]
        rows = [
            {"item": f"all/{n}", "text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
            for n, text in enumerate(texts)
        ]
        runs.write_table(pd.DataFrame(rows), of.path("documents.parquet"))
        items = runs.stream(of.path("documents.parquet"))
        runs.write_stream(prompts.requests(of.study, items), path)
    return of.table("requests")


def _sent(test: Test, usd: float) -> dispatch.Progress:
    """Follow the run until both answers are in or the time is over; look at the lists once."""
    looks = [] if _shards(test) else [_listed]
    told: set[str] = set()

    def show(progress: dispatch.Progress) -> None:
        if looks and _shards(test, "submitted", "collected"):
            looks.pop()(test)
        for reason in sorted(set(progress.reasons) - told):
            test.say(f"     {reason}")
            told.add(reason)

    hours = max(0.0, test.ends_at - clock.monotonic()) / 3600
    return dispatch.follow(test.run, test.to, usd, hours, show)


def _listed(test: Test) -> None:
    """Tell after how long the lists show what was sent, beside the grace that is kept."""
    shard = _shards(test, "submitted", "collected")[-1]
    with ledger.open_ledger(test.run.path("ledger.sqlite"), read_only=True) as book:
        labels = reconcile.metadata(str(ledger.fact(book, "run_id")), shard)
    began, name = pd.Timestamp(shard["submitted_at"]), reconcile.file_name(shard)
    looks = {
        f"file found by its name {name}": lambda: any(
            file.get("filename") == name for file in service.files(test.to)
        ),
        "batch found by its metadata": lambda: any(
            batch["metadata"].items() >= labels.items() for batch in service.batches(test.to)
        ),
    }
    grace = test.to.grace_seconds
    for what, look in looks.items():
        at_once = found = look()
        while not found and (clock.now() - began).total_seconds() < 2 * grace:
            clock.sleep(min(1.0, test.to.poll_seconds))
            found = look()
        lag = (clock.now() - began).total_seconds()
        when = "at the first look" if at_once else f"{'' if found else 'not '}within {lag:.1f} s"
        holds = at_once or (found and lag < grace)
        test.tell(holds, f"{what} {when} (grace_seconds is {grace:g})")


def _judge(test: Test, requests: pd.DataFrame, progress: dispatch.Progress) -> None:
    """Tell how the batch ended, whether both answers are valid, and how far our count is off."""
    for shard in _shards(test):
        ended = f"batch {shard['batch_id']} of {shard['n_requests']} ended as {shard['status']}"
        test.tell(shard["status"] == "completed", ended)
    outcomes = collect.outcomes(test.run)
    test.tell(progress.n_valid == len(requests), f"{progress.n_valid} of 2 answers valid")
    for row in outcomes[outcomes["outcome"].ne("valid")].to_dict("records"):
        test.say(f"     {row['outcome']}: {row['status']} {row['code']}: {row['message']}")
    counted, told = int(requests["n_input_tokens"].sum()), outcomes["n_input_tokens"].sum()
    if pd.isna(told) or not told:
        test.tell(None, "no usage reported")
        return
    off = f"{told / counted - 1:+.1%}" if counted else "?"
    n_output = int(outcomes["n_output_tokens"].sum())
    what = f"usage: {told:,} input tokens, we counted {counted:,} ({off}); {n_output:,} output"
    test.tell(bool(told == counted) or None, what)
    test.say(f"     spent ${progress.spend_usd:.6f}")


def _fence(test: Test) -> bool | None:
    """Whether a batch of an input file that was deleted before fails without running anything.

    Nothing while it has not ended. A batch that an earlier command made is looked for first.
    """
    shard = _shards(test)[-1]
    label = {"votebook_selftest": str(shard["batch_id"])}
    with ledger.open_ledger(test.run.path("ledger.sqlite"), read_only=True) as book:
        known = ledger.fact(book, FENCE)
    mine = (b for b in service.batches(test.to) if b["metadata"].items() >= label.items())
    batch = service.retrieve(test.to, known) if known else next(mine, None)
    try:
        batch = batch or _batch_of_deleted(test, shard, label)
    except ServiceError as error:
        if error.unclear or error.status not in (400, 404, 409, 422):
            raise
        return True
    with ledger.open_ledger(test.run.path("ledger.sqlite")) as book:
        ledger.bind(book, FENCE, batch["id"])
    while batch["status"] not in batches.ENDED and clock.monotonic() < test.ends_at:
        clock.sleep(test.to.poll_seconds)
        batch = service.retrieve(test.to, batch["id"])
    if batch["status"] not in batches.ENDED:
        return None
    n_run = (batch["request_counts"] or {}).get("total", 0)
    return bool(batch["status"] == "failed" and not n_run)


def _batch_of_deleted(test: Test, shard: dict[str, Any], label: dict[str, str]) -> dict[str, Any]:
    """Upload the lines once more, delete the file, and ask for a batch of it."""
    path = test.run.path("shards") / shard["file"]
    sent = path.with_name(f"{path.name}.gz")
    if not path.is_file():
        with runs.replacing(path) as part:
            part.write_bytes(gzip.decompress(sent.read_bytes()))
    file_id = service.upload(test.to, path, "votebook-selftest.jsonl")
    service.delete_file(test.to, file_id)
    return service.create(test.to, file_id, prompts.ENDPOINT, label)


def _delete(test: Test) -> None:
    """Delete what the test left at the service, and tell whether that is possible."""
    shard = _shards(test)[-1]
    batch = service.retrieve(test.to, str(shard["batch_id"]))
    ids = [batch.get("output_file_id"), batch.get("error_file_id"), shard["file_id"]]
    for file_id in filter(None, ids):
        service.delete_file(test.to, file_id)
    gone = all(file["id"] != shard["file_id"] for file in service.files(test.to))
    test.tell(gone, "files can be deleted")


def _shards(test: Test, *states: str) -> list[dict[str, Any]]:
    path = test.run.path("ledger.sqlite")
    with ledger.open_ledger(path, read_only=True) as book:
        return ledger.shards(book, *states)


def _n_batches(to: Service) -> str:
    first = next(service.batches(to, 1), None)
    return "at least one" if first else "nothing yet"


def _slug(name: str) -> str:
    """A folder's name for a service and model."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "service"
