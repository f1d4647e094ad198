"""The real notebooks, killed: first their kernel in the middle of a create, then the runner."""

import signal

import judge
import killing
import pytest
import signalling
import whole

TABLES = ("documents", "skipped", "requests", "votes", "mentions", "consensus", "entities")
TABLES += ("index", "verdicts")


@pytest.fixture(scope="module")
def undisturbed(places, tmp_path_factory):
    """A study, and what its stages leave when nobody disturbs them."""
    at, folder = places[0], tmp_path_factory.mktemp("notebooks")
    study = whole.write_study(folder / "guests")
    command = {"outputs": str(at.folder / "notebooks"), "study": str(study)}
    for stage in ("load", "count cost", "follow", "count votes"):
        (end,) = at.ask({**command, "do": stage})
        assert end["code"] == 0, end["said"]
    lock = at.folder / "notebooks" / "guests" / "study.lock.yml"
    return study, killing.Run("guests", lock.parent, killing.runs.studies.thaw(lock))


def test_notebooks_whose_kernel_and_runner_are_killed_end_well(undisturbed, tmp_path):
    """The kernel dies when a create is answered, the runner before a page is written: run again."""
    study, calm = undisturbed
    with signalling.bench(study, tmp_path / "outputs") as at:
        before = judge.look(at.endpoint)
        first = signalling.ended(at.start("create answered:1"))
        assert first["code"] == 2
        assert "died" in first["said"]
        assert "run the same command again" in first["said"]
        second = signalling.ended(at.start("notebook executed:1"))
        assert second["code"] == -signal.SIGKILL
        last = signalling.finished(at)
        assert last["code"] == 0, last["said"]
        assert signalling.violations(at, before, judge.results(calm)) == []
        for name in TABLES:
            mine, other = (run.path(f"{name}.parquet") for run in (at.run(), calm))
            assert judge.table_bytes(mine) == judge.table_bytes(other), name
