"""The test of an account, against the local Batch API and services that do not keep their word."""

import dataclasses
import json
import os
import signal
import urllib.request

import dialects
import pytest
import sending

from lib import local_api, selftest
from lib.errors import ModelError, ServiceError

LUNA = selftest.DEFAULT_MODEL
FAST = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0")


@pytest.fixture
def said():
    """What the test has said, line by line."""
    return []


@pytest.fixture
def local(tmp_path, monkeypatch):
    """The local service where a selftest will find it."""
    monkeypatch.setenv("VOTEBOOK_OUTPUTS", str(tmp_path))
    found = local_api.start(tmp_path / ".local_api", idle_exit_seconds=3600, options=FAST)
    yield found
    os.kill(found["pid"], signal.SIGTERM)


@pytest.fixture
def remote(endpoint, tmp_path, monkeypatch):
    """A paid service that is the local one behind a proxy; gives it and the proxy's dialect."""
    monkeypatch.setenv("VOTEBOOK_OUTPUTS", str(tmp_path))
    dialect = dialects.Dialect()
    with dialects.speaking(endpoint, dialect) as url:
        yield (
            sending.service_at(endpoint, f"{url}/v1", free=False, name="openai", grace_seconds=60),
            dialect,
        )
    sending.close_clients()


def n_run(service):
    """How many lines the service ran, by its own book: the test deletes its files."""
    request = urllib.request.Request(
        service["base_url"].removesuffix("/v1") + "/votebook/book",
        headers={"Authorization": f"Bearer {service['token']}"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["n_executions"]


def test_against_the_local_service_all_holds(local, said):
    """Every step in its order, two lines run and a third batch that ran nothing, nothing left."""
    assert selftest.run("local", say=said.append) == selftest.DONE
    text = "\n".join(said)
    steps = ["cost at most $", "yes  key accepted", "yes  model gpt-6-luna known", "file found by"]
    steps += [
        "(grace_seconds is 1)",
        "batch found by its metadata at the first look",
        "ended as completed",
    ]
    steps += ["2 of 2 answers valid", "input tokens, we counted", "spent $"]
    steps += ["deleted input file fails", "files can be deleted", "All holds."]
    places = [text.find(step) for step in steps]
    assert places == sorted(places)
    assert -1 not in places
    assert "NO" not in text
    assert n_run(local) == 2


def test_a_second_test_asks_anew(local, said):
    """No old answer serves: the texts are others each time, and runs do not see them."""
    for n in (2, 4):
        assert selftest.run("local", "gpt-6.1-terra", say=said.append) == selftest.DONE
        assert n_run(local) == n


@pytest.mark.parametrize("max_usd", [0.0, 0.0001, -1.0, float("nan")])
def test_nothing_is_sent_that_the_budget_does_not_cover(remote, said, max_usd):
    """The cost is told, and not a single call is made."""
    to, dialect = remote
    assert selftest.on(to, LUNA, max_usd, said.append) == selftest.STOPPED
    assert "of real money" in said[0]
    assert said[-1].startswith("Nothing is sent: max_usd is")
    assert dialect.calls == []


def test_a_test_that_waits_too_long_goes_on_with_the_same_command(remote, endpoint, said):
    """The first command ends with 3 after its time; the second pays nothing twice."""
    to, dialect = remote
    before = n_run(endpoint)
    dialect.outward = dialects.slowly
    assert selftest.on(to, LUNA, 1.0, said.append, 1.0) == selftest.WAITING
    assert said[-1].startswith("Answers are pending. The same command goes on")
    dialect.outward = lambda call, answer, state: answer
    assert selftest.on(to, LUNA, 1.0, said.append) == selftest.DONE
    assert n_run(endpoint) - before == 2


def test_a_lost_answer_is_lived_through(remote, endpoint, said):
    """The create of the test itself is lost: found by its metadata, paid once."""
    to, dialect = remote
    before = n_run(endpoint)
    dialect.once["POST /batches"] = "lose"
    assert selftest.on(to, LUNA, 1.0, said.append) == selftest.DONE
    assert n_run(endpoint) - before == 2


def test_a_list_that_lags_is_measured(remote, said):
    """What was sent is shown after two looks: the lag is told, and counts against the grace."""
    to, dialect = remote
    looks = []

    def late(call, answer, _):
        is_list = call.what == "GET /batches" and "POST /batches" in dialect.calls
        looks.extend([1] if is_list else [])
        return {**answer, "data": []} if is_list and len(looks) < 3 else answer

    dialect.outward = late
    assert selftest.on(to, LUNA, 1.0, said.append) == selftest.DONE
    assert any("batch found by its metadata within " in line for line in said)
    dialect.outward = lambda call, answer, _: (
        {**answer, "data": []} if call.what == "GET /batches" else answer
    )
    to = dataclasses.replace(to, grace_seconds=0.1)
    assert selftest.on(to, LUNA, 1.0, said.append) == selftest.STOPPED
    assert any(line.startswith("NO   batch found by its metadata not within") for line in said)


def test_a_fence_that_does_not_hold_is_told(remote, endpoint, said):
    """A service that runs the batch of a deleted file: the one thing that must never be."""
    to, dialect = remote

    def keeps(call, _):
        return (200, {"id": "x", "deleted": True}) if call.method == "DELETE" else None

    dialect.inward = keeps
    assert selftest.on(to, LUNA, 1.0, said.append) == selftest.STOPPED
    assert "NO   a batch of a deleted input file fails and runs nothing" in said
    assert "NO   files can be deleted" in said
    # On a busy machine the listing may be late as well, which is one more.
    assert said[-1] == f"{sum(line.startswith('NO ') for line in said)} do not hold."


def test_a_service_that_refuses_the_deleted_file_at_once_holds_too(remote, said):
    """Some say 400 to create; then there is no batch at all."""
    to, dialect = remote
    made = []

    def refuses(call, _):
        made.append(call.what)
        if call.what == "POST /batches" and made.count(call.what) == 2:
            return 400, {"error": {"message": "Input file with ID 'file-x' not found"}}
        return None

    dialect.inward = refuses
    assert selftest.on(to, LUNA, 1.0, said.append) == selftest.DONE


def test_a_wrong_key_is_told_in_one_line(remote, said):
    """401 at the first call: nothing is uploaded."""
    to, dialect = remote
    dialect.once["GET /batches"] = (401, {"error": {"message": "Incorrect API key provided."}})
    assert selftest.on(to, LUNA, 1.0, said.append) == selftest.STOPPED
    assert said[-1].startswith("NO   openai answered 401")
    assert "answered 401: Incorrect API key provided. Set OPENAI_API_KEY" in said[-1]
    assert dialect.calls == ["GET /batches"]


def test_a_model_that_fails_shows_why(remote, endpoint, said):
    """All lines are refused: the outcomes are listed, and no fence is tried."""
    to, dialect = remote
    before = sending.batches_of(endpoint)
    dialect.once["POST /batches"] = dialects.with_fault("all_lines_refused")
    assert selftest.on(to, LUNA, 1.0, said.append) == selftest.STOPPED
    assert "NO   0 of 2 answers valid" in said
    assert sum("failed: 403" in line for line in said) == 2
    assert len(sending.batches_of(endpoint)) - len(before) == 1


@pytest.mark.parametrize(
    ("model", "words"), [("gpt-6-lunar", 'Did you mean "gpt-6-luna"'), ("gpt-4", "was shut down")]
)
def test_a_model_that_cannot_be_used_is_told_before_anything(remote, model, words):
    """An unknown or retired one."""
    to, dialect = remote
    with pytest.raises(ModelError, match=words):
        selftest.on(to, model, 1.0, print)
    assert dialect.calls == []


def test_without_a_key_nothing_begins(monkeypatch, tmp_path):
    """One sentence, before anything is said of costs."""
    monkeypatch.setenv("VOTEBOOK_OUTPUTS", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    with pytest.raises(ServiceError, match="no key for openai"):
        selftest.run("openai")
