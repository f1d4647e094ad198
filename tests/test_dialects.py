"""Whole runs through services that speak the Batch API differently; the local one counts lines."""

import contextlib
import dataclasses

import dialects
import pytest
import sending

from lib import collect, dispatch, ledger, service, services
from lib.services import Facts

MODELS = {"gpt-6-luna": "luna-batch"}
NAMES = ["openai", "azure", "groq", "doubleword", "vllm", "own"]
VARIABLES = {"azure": "AZURE_OPENAI_ENDPOINT", "vllm": "VLLM_BASE_URL", "openai": "OPENAI_BASE_URL"}


@pytest.fixture
def connected(endpoint, monkeypatch):
    """Makes a service that speaks a dialect, connected as a user does it, but quick."""
    with contextlib.ExitStack() as stack:

        def make(name, **more):
            dialect = getattr(dialects, name, dialects.Dialect)()
            url = stack.enter_context(dialects.speaking(endpoint, dialect))
            facts = services.find(name) if name != "own" else Facts(name="own")
            for variable in (facts.key_variable, Facts().key_variable):
                monkeypatch.setenv(variable, endpoint["token"])
            address = url if name == "azure" else f"{url}{dialect.prefix}"
            if name in VARIABLES:
                monkeypatch.setenv(VARIABLES[name], address)
            to = service.connect(name if name in VARIABLES else address)
            stack.callback(to.client.close)
            models = MODELS if name == "azure" else {}
            facts = facts.model_copy(update={"models": models, **more})
            to = dataclasses.replace(to, grace_seconds=0.4, poll_seconds=0.05, facts=facts)
            return to, dialect

        yield make


def outcomes_of(run):
    """How many lines ended how, and why."""
    found = collect.outcomes(run)[["outcome", "code"]].astype(object)
    return {(a, b if isinstance(b, str) else None) for a, b in found.to_numpy()}


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_run_speaks_every_dialect(make_run, connected, endpoint, name):
    """Six questions, each run once by the service and answered, and no word of a key anywhere."""
    run, before = make_run(), sending.batches_of(endpoint)
    to, _ = connected(name)
    progress = sending.finish(run, to, 1.0)
    lines = sending.paid(endpoint, before)
    assert (progress.state, progress.n_valid, progress.reasons) == ("done", 6, ())
    assert len(lines) == lines.total() == 6
    assert progress.spend_usd > 0 == progress.reserved_usd
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        assert "lost" not in ledger.events(book)["kind"].tolist()
    for path in run.folder.rglob("*"):
        assert not path.is_file() or endpoint["token"].encode() not in path.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_and_a_batch_whose_answers_are_lost_are_adopted(make_run, connected, endpoint, name):
    """The file is found by its name, over all pages, and not uploaded again; the batch by metadata
    or, at a service that keeps none, by the input file: no line is run twice.
    """
    run, before = make_run(), sending.batches_of(endpoint)
    to, dialect = connected(name)
    dialect.once.update({"POST /files": "lose", "POST /batches": "lose"})
    progress = sending.finish(run, to, 1.0)
    assert (progress.n_valid, dialect.once) == (6, {})
    assert dialect.calls.count("POST /files") == len(sending.batches_of(endpoint)) - len(before)
    assert sending.paid(endpoint, before).total() == 6


QUEUE = {
    "azure": f"{dialects.FULL} 'luna-batch'. {dialects.AFTERWARDS}",
    "openai": "Enqueued token limit reached for m in organization. Limit: 30,000 enqueued tokens.",
}


@pytest.mark.parametrize("name", ["openai", "azure"])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_full_queue_is_a_wait(make_run, connected, endpoint, name, at_once):
    """It fails the batch or, where the region fails fast, refuses create: the same lines wait."""
    run, before = make_run(), sending.batches_of(endpoint)
    to, dialect = connected(name)
    error = {"code": "token_limit_exceeded", "message": QUEUE[name]}
    full = (400, {"error": error}) if at_once else dialects.failed(**error)
    dialect.once["POST /batches"] = full
    for _ in range(2):
        progress = dispatch.advance(run, to, 1.0)
    assert progress.state == "waiting"
    assert any("30,000 enqueued tokens" in reason for reason in progress.reasons)
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        assert [shard["n_refusals"] for shard in ledger.shards(book)] == [1]
        book.execute("UPDATE shards SET not_before = NULL")
    assert sending.finish(run, to, 1.0).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


@pytest.mark.parametrize(
    ("name", "code", "ours"),
    [
        ("openai", "invalid_url", "invalid_url"),
        ("azure", "url_mismatch", "invalid_url"),
        ("azure", "model_mismatch", "mismatched_model"),
        ("azure", "too_many_tasks", "too_many_requests_in_file"),
        ("groq", "invalid_json_line", "invalid_json_line"),
        ("doubleword", "invalid_request", "invalid_request"),
        ("vllm", "model_not_found", "model_not_found"),
        ("own", "empty_file", "empty_file"),
    ],
)
def test_a_failed_validation_has_our_code_and_costs_nothing(
    make_run, connected, endpoint, name, code, ours
):
    """Every line is told as failed, the run stops, and the service ran nothing."""
    run, before = make_run(), sending.batches_of(endpoint)
    to, dialect = connected(name)
    dialect.once["POST /batches"] = dialects.failed(code, "Not so.")
    progress = sending.finish(run, to, 1.0)
    assert outcomes_of(run) == {("failed", ours)}
    assert (progress.n_valid, progress.spend_usd) == (0, 0.0)
    assert sending.paid(endpoint, before).total() == 0


@pytest.mark.parametrize("name", NAMES)
def test_lines_that_failed_are_read_wherever_they_stand(make_run, connected, endpoint, name):
    """In an error file, in the output file, in a batch that is called failed: each has its end."""
    run, before = make_run(), sending.batches_of(endpoint)
    to, dialect = connected(name)
    dialect.once["POST /batches"] = dialects.with_fault("all_lines_refused")
    sending.finish(run, to, 1.0)
    found = collect.outcomes(run)
    assert (len(found), set(found["outcome"])) == (6, {"failed"})
    assert set(found["status"]) == {403}
    assert sending.paid(endpoint, before).total() == 6


def test_a_list_of_many_pages_is_read_to_its_end(connected, endpoint):
    """From an id or from an offset: pages of three give what one page gives, in the same order."""
    for name in ("openai", "vllm"):
        to, _ = connected(name)
        found = [batch["id"] for batch in service.batches(to, 3)]
        assert len(found) > 3
        assert found == list(sending.batches_of(endpoint))[: len(found)]
        assert len(found) == len(set(found)) == len(sending.batches_of(endpoint))
    assert len(list(service.batches(connected("groq")[0]))) > 3


def test_cancelling_what_has_ended_passes_at_every_service(connected, endpoint):
    """Some say 409 and some 400; both say that nothing is left to cancel."""
    ended = next(iter(sending.batches_of(endpoint)))
    for name in ("openai", "vllm"):
        service.cancel(connected(name)[0], ended)


def test_limits_and_the_url_of_a_service_reach_the_lines(make_run, connected, endpoint):
    """At most two lines a file, and the url of older pages: three batches for six questions."""
    run, before = make_run(canary=2), sending.batches_of(endpoint)
    to, dialect = connected("own", max_requests=2, url="/chat/completions")

    def written(call, _):
        assert call.body.count(b'"url":"/chat/completions"') == 2
        call.body = call.body.replace(b'"url":"/chat', b'"url":"/v1/chat')

    dialect.inward = lambda call, state: call.what == "POST /files" and written(call, state)
    assert sending.finish(run, to, 1.0).n_valid == 6
    assert len(sending.batches_of(endpoint)) - len(before) == 3


@pytest.mark.parametrize("name", ["openai", "azure"])
@pytest.mark.parametrize(("status", "words"), [(401, "Set {} (or the"), (403, "Ask for access")])
def test_a_key_that_is_not_let_in_stops_the_run(make_run, connected, endpoint, name, status, words):
    """One sentence with the variable of this very service, and nothing is sent."""
    run, before = make_run(), sending.batches_of(endpoint)
    to, dialect = connected(name)
    dialect.once["POST /files"] = (status, {"error": {"code": str(status), "message": "Denied."}})
    progress = dispatch.advance(run, to, 1.0)
    assert progress.state == "stopped"
    assert words.format(to.facts.key_variable) in progress.reasons[0]
    assert f"answered {status}: Denied." in progress.reasons[0]
    assert sending.batches_of(endpoint).keys() == before.keys()
