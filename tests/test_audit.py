"""Ledgers from old copies, copied folders, doubles and other projects, judged by the service."""

import contextlib
import json
import shutil
import urllib.request

import pytest
import sending

from lib import audit, check, dispatch, ledger, local_api, runs
from lib.errors import VotebookError
from lib.services import Facts

STAGES = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0")


def ledger_of(run):
    """The ledger of a run, to be read."""
    return ledger.open_ledger(run.path("ledger.sqlite"), read_only=True)


def shards_of(run):
    """The shards of a run by its ledger."""
    with ledger_of(run) as book:
        return ledger.shards(book)


def kinds_of(run):
    """The kinds of all events of a run."""
    with ledger_of(run) as book:
        return ledger.events(book)["kind"].tolist()


def after_canary(run, to):
    """Take steps until the canary is in and nothing else is sent."""
    dispatch.canary(run, to, 0.0)


def without_metadata(method, path):
    """A rule: a service that keeps no metadata."""

    def strip(answer):
        for batch in answer.get("data", [answer]):
            if "metadata" in batch:
                batch["metadata"] = None
        return answer

    is_batch = path.startswith("/v1/batches")
    return strip if is_batch else None


@contextlib.contextmanager
def faults(endpoint, **on):
    """Faults of a service that are switched on within the block."""
    url = endpoint["base_url"].removesuffix("v1") + "votebook/faults"
    headers = {"Authorization": f"Bearer {endpoint['token']}"}

    def put(switches):
        data = json.dumps({"seed": 0, "faults": switches}).encode()
        request = urllib.request.Request(url, data, headers, method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    put(on)
    try:
        yield
    finally:
        put({})


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Another service, which stands for another project."""
    state = tmp_path_factory.mktemp("elsewhere")
    found = local_api.start(state, idle_exit_seconds=600, options=STAGES)
    yield found
    shutil.rmtree(state)


@pytest.mark.parametrize("lost", [(), ("shards",), ("shards", "outcomes", "answers")])
@pytest.mark.parametrize("rule", [lambda *_: None, without_metadata])
def test_a_ledger_from_an_old_copy_pays_nothing_twice(make_run, endpoint, lost, rule):
    """The four main lines were sent after the copy was made: their batch is adopted.

    Also when the whole folder is as old, and when the service keeps no metadata.
    """
    before, run = sending.batches_of(endpoint), make_run(canary=2)
    with sending.spoiled(endpoint, rule) as url:
        to = sending.service_at(endpoint, url)
        after_canary(run, to)
        old = run.folder.with_name("old")
        shutil.copytree(run.folder, old)
        assert sending.finish(run, to).n_valid == 6
        shutil.copy(old / "ledger.sqlite", run.path("ledger.sqlite"))
        for name in lost:
            shutil.rmtree(run.path(name))
            shutil.copytree(old / name, run.path(name))
        progress = sending.finish(run, to)
    assert (progress.state, progress.n_valid) == ("done", 6)
    assert sending.paid(endpoint, before).total() == 6
    assert "adopted" in kinds_of(run)
    assert progress.spend_usd == pytest.approx(sum(s["settled_usd"] for s in shards_of(run)))


@pytest.mark.parametrize("state", ["planned", "uploaded", "submitting"])
def test_a_ledger_from_just_before_the_create_adopts(make_run, endpoint, state):
    """The shard stood in this state when the copy was made, and has become a batch since."""
    before, run = sending.batches_of(endpoint), make_run()
    to = sending.service_at(endpoint)
    dispatch.advance(run, to, 0.0)
    forget = "status = NULL, submitted_at = NULL, batch_id = NULL, state = ?"
    forget += ", file_id = NULL" if state == "planned" else ""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        book.execute(f"UPDATE shards SET {forget}", (state,))
        book.execute("DELETE FROM events")
    assert sending.finish(run, to).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


def test_a_copied_folder_and_its_original_pay_once_together(make_run, endpoint, monkeypatch):
    """The copy goes on to the end; then the original does, and takes over what the copy paid."""
    before, run = sending.batches_of(endpoint), make_run(canary=2)
    to = sending.service_at(endpoint)
    after_canary(run, to)
    copy = run.folder.parent.with_name("elsewhere") / run.name
    shutil.copytree(run.folder, copy)
    assert sending.finish(runs.Run(run.name, copy, run.study), to).n_valid == 6
    assert sending.finish(run, to).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


def test_the_same_name_with_other_lines_is_another_shard(make_run, endpoint, tmp_path):
    """A copy packed its shard 1 with two lines; the original took four for it. All are paid once.

    The original's ledger is as before, then: shard 1 of the copy is adopted beside its own.
    """
    before, run = sending.batches_of(endpoint), make_run(canary=2)
    to = sending.service_at(endpoint)
    after_canary(run, to)
    copy = runs.Run(run.name, run.folder.parent.with_name("elsewhere") / run.name, run.study)
    shutil.copytree(run.folder, copy.folder)
    small = run.study.model_copy(
        update={"sending": run.study.sending.model_copy(update={"max_requests": 2})}
    )
    dispatch.advance(runs.Run(run.name, copy.folder, small), to, 0.0)
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.bind(book, "audited", "x", again=True)
    n_paid = sending.paid(endpoint, before).total()
    assert n_paid >= 4
    assert sending.finish(run, to).n_valid == 6
    lines = sending.paid(endpoint, before)
    assert len(lines) == lines.total() == 6


def test_a_double_that_shows_late_is_cancelled_and_counted(make_run, elsewhere):
    """The service made two batches of one create and answered with one: the next process sees it.

    Its worst case counts as spent; a third process counts it no more.
    """
    run, to = make_run(), sending.service_at(elsewhere)
    with faults(elsewhere, batch_doubled={}):
        sending.finish(run, to)
    for _ in range(2):
        progress = dispatch.advance(run, to, 0.0)
    (shard,) = shards_of(run)
    assert shard["lost_usd"] == shard["reserved_usd"] > 0
    assert kinds_of(run).count("double") == 1
    assert progress.spend_usd == pytest.approx(shard["settled_usd"] + shard["lost_usd"])


def test_a_key_of_another_project_stops_and_costs_nothing(make_run, endpoint, elsewhere):
    """Nothing of the run is known there: it stops with one sentence, and the right key goes on."""
    before, run = sending.batches_of(endpoint), make_run(canary=2)
    to = sending.service_at(endpoint)
    after_canary(run, to)
    there = sending.batches_of(elsewhere)
    progress = sending.finish(run, sending.service_at(elsewhere))
    assert progress.state == "stopped"
    assert "this key sees another project" in progress.reasons[0]
    assert sending.batches_of(elsewhere) == there
    assert sending.finish(run, to).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


@pytest.mark.parametrize("action", ["lose", "drop"])
def test_an_open_intent_is_not_freed_by_another_project(make_run, endpoint, elsewhere, action):
    """The list there is empty for the whole grace, and says nothing about the create here."""
    before, run = sending.batches_of(endpoint), make_run()
    struck = []

    def rule(method, path):
        if (method, path) == ("POST", "/v1/batches") and not struck:
            struck.append(path)
            return action
        return None

    with sending.spoiled(endpoint, rule) as url:
        dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    assert [shard["state"] for shard in shards_of(run)] == ["submitting"]
    progress = sending.finish(run, sending.service_at(elsewhere))
    assert progress.state == "stopped"
    assert [shard["state"] for shard in shards_of(run)] == ["submitting"]
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


def test_results_are_not_given_up_because_of_another_project(make_run, endpoint, elsewhere):
    """A day of 404 under the wrong key loses nothing: the batch is still there under the right."""
    before, run = sending.batches_of(endpoint), make_run()
    dispatch.advance(run, sending.service_at(endpoint), 0.0)
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        book.execute("UPDATE shards SET unseen_at = '2026-01-01T00:00:00+00:00'")
    progress = sending.finish(run, sending.service_at(elsewhere))
    assert progress.state == "stopped"
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


@pytest.mark.parametrize("n_others", [99, 100, 300])
def test_a_batch_is_found_behind_many_and_between_pages(make_run, elsewhere, n_others):
    """So many batches of others are newer; the first item of each further page is left out."""
    run, before = make_run(), sending.batches_of(elsewhere)
    struck = []

    def lose(method, path):
        if (method, path) == ("POST", "/v1/batches") and not struck:
            struck.append(path)
            return "lose"
        return None

    with sending.spoiled(elsewhere, lose) as url:
        dispatch.advance(run, sending.service_at(elsewhere, url), 0.0)
    to = sending.service_at(elsewhere)
    nothing = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    for _ in range(n_others):
        to.client.batches.create(input_file_id="file-none", **nothing)
    with faults(elsewhere, list_drops={}):
        assert sending.finish(run, to).n_valid == 6
    assert sending.paid(elsewhere, before).total() == 6


def test_a_list_without_an_end_frees_nothing(make_run, endpoint):
    """A service that ignores `after` shows one page for ever: that is told, and waited for."""
    run, to = make_run(), sending.service_at(endpoint)
    nothing = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    to.client.batches.create(input_file_id="file-none", **nothing)

    def rule(method, path):
        if method == "GET" and path.startswith("/v1/batches?"):
            return lambda page: {**page, "data": page["data"] or first, "has_more": True}
        return None

    first = [batch.to_dict() for batch in to.client.batches.list(limit=100)]
    with sending.spoiled(endpoint, rule) as url:
        progress = dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    assert (progress.state, progress.n_in_flight) == ("waiting", 0)
    assert "repeats itself" in progress.reasons[0]


def test_a_service_without_lists_is_not_audited(make_run, endpoint):
    """Its word on each batch is all that there is; a lost create stays open, and is never freed."""
    run, to = make_run(canary=2), sending.service_at(endpoint, facts=Facts(lists=[]))
    after_canary(run, to)
    before = sending.paid(endpoint).total()
    struck = []

    def lose(method, path):
        if (method, path) == ("POST", "/v1/batches") and not struck:
            struck.append(path)
            return "lose"
        return None

    with sending.spoiled(endpoint, lose) as url:
        dispatch.advance(run, sending.service_at(endpoint, url, facts=to.facts), 0.0)
    progress = sending.finish(run, to)
    assert progress.state == "stopped"
    assert "does not list its batches" in progress.reasons[0]
    assert sending.paid(endpoint).total() == before + 4


def test_a_ledger_with_another_line_than_its_file_sends_nothing(make_run, endpoint):
    """A flipped bit in the id of a line in flight would pass for one that was never sent."""
    before, run = sending.batches_of(endpoint), make_run()
    to = sending.service_at(endpoint)
    dispatch.advance(run, to, 0.0)
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        (key,) = book.execute("SELECT key FROM sends ORDER BY key LIMIT 1").fetchone()
        flipped = bytes([key[0] ^ 1, *key[1:]])
        book.execute("UPDATE sends SET key = ? WHERE key = ?", (flipped, key))
    with pytest.raises(VotebookError, match=r"is damaged .*other lines in shard"):
        sending.finish(run, to)
    assert "repaired" in check.check(run, to)["state"].to_list()
    assert sending.finish(run, to).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


def test_second_uploads_go_and_unknown_ones_are_told(make_run, endpoint):
    """A second upload of a shard that is sent is deleted; one of an unknown shard is recorded."""
    run, to = make_run(), sending.service_at(endpoint)
    sending.finish(run, to)
    (shard,) = shards_of(run)
    name = f"votebook-{shard['shard']}-{shard['sha256'][:12]}.jsonl"
    other = name.replace("00000", "00099")
    made = [to.client.files.create(file=(n, b"{}\n"), purpose="batch").id for n in (name, other)]
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        audit.audit(book, to, run, ledger.fact(book, "run_id"))
    assert [one for one in made if one in {f.id for f in to.client.files.list()}] == made[1:]
    assert kinds_of(run).count("orphan_file") == 2


def test_a_batch_whose_lines_are_unknown_stops_the_run(make_run, endpoint):
    """An old ledger, no shard on disk and no input file: nothing is sent, with what to do."""
    before, run = sending.batches_of(endpoint), make_run(canary=2)
    to = sending.service_at(endpoint)
    after_canary(run, to)
    old = run.folder.with_name("old")
    shutil.copytree(run.folder, old)
    sending.finish(run, to)
    last = shards_of(run)[-1]
    assert sending.paid(endpoint, before).total() == 6
    to.client.files.delete(last["file_id"])
    shutil.rmtree(run.folder)
    shutil.copytree(old, run.folder)
    n_batches = len(sending.batches_of(endpoint))
    progress = dispatch.advance(run, to, 0.0)
    assert progress.state == "stopped"
    assert "its input file is gone" in progress.reasons[0]
    assert len(sending.batches_of(endpoint)) == n_batches


def test_a_ledger_away_from_home_waits_for_the_grace(make_run, endpoint):
    """At home the audit takes one look; elsewhere it looks for the whole grace."""
    run, to = make_run(), sending.service_at(endpoint, grace_seconds=0.5)
    sending.finish(run, to)
    with ledger_of(run) as book:
        assert audit._is_at_home(book, run)
    copy = runs.Run(run.name, run.folder.with_name("copy"), run.study)
    shutil.copytree(run.folder, copy.folder)
    with ledger_of(copy) as book:
        assert not audit._is_at_home(book, copy)
    (run.path("shards") / "0-model-00009.jsonl").touch()
    with ledger_of(run) as book:
        assert not audit._is_at_home(book, run)
