"""Result files that come cut, short or never, from a local Batch API behind a proxy."""

import gzip

import pytest
import sending

from lib import batches, collect, dispatch, ledger, runs


def is_content(method, path):
    """Whether a call asks for the bytes of a file."""
    return path.endswith("/content")


def cut(endpoint, shorten, n_times):
    """A rule that serves result files `shorten`ed so many times, as if they were whole."""
    left = [n_times]

    def rule(method, path):
        if not is_content(method, path) or not left[0]:
            return None
        left[0] -= 1
        return 200, shorten(sending.got(endpoint, path.removeprefix("/v1/")))

    return rule


def last_line_cut(whole):
    """Ends in the middle of the last line."""
    return whole[:-40]


def newline_cut(whole):
    """Lacks the last line and its newline, so that nothing looks cut."""
    return whole[: whole.rstrip(b"\n").rfind(b"\n")]


def half(whole):
    """Ends after the third line."""
    return b"".join(whole.splitlines(keepends=True)[:3])


def spoilt(whole):
    """Has another byte where the first line names its request."""
    return whole.replace(b'"custom_id"', b'"custom_ie"', 1)


def nothing(whole):
    """Is empty."""
    return b""


def stepped(run, endpoint, to, n_steps):
    """Take some steps, each when all batches have ended; gives the last."""
    for _ in range(n_steps):
        progress = dispatch.advance(run, to, 0.0)
        sending.have_ended(endpoint)
    return progress


def follow(run, endpoint, rule):
    """Follow a run behind the proxy."""
    with sending.spoiled(endpoint, rule) as url:
        return sending.finish(run, sending.service_at(endpoint, url))


def shard_of(run):
    """The one shard of a run."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        (shard,) = ledger.shards(book)
    return shard


@pytest.mark.parametrize("shorten", [last_line_cut, newline_cut, half, spoilt, nothing])
@pytest.mark.parametrize("n_times", [1, 3])
def test_a_download_that_was_cut_is_fetched_again(make_run, endpoint, shorten, n_times):
    """No line is called missing because of it, and nothing is paid again."""
    run, before = make_run(), sending.batches_of(endpoint)
    progress = follow(run, endpoint, cut(endpoint, shorten, n_times))
    assert (progress.state, progress.n_valid) == ("done", 6)
    assert sending.paid(endpoint, before).total() == 6
    assert shard_of(run)["n_short"] == n_times
    assert collect.outcomes(run)["outcome"].tolist() == ["valid"] * 6
    assert not list(run.path("answers").glob("*.again"))


def test_a_longer_copy_is_not_given_up_for_a_shorter_one(make_run, endpoint):
    """The first download lacks a line, all later ones lack four: five answers are kept."""
    run, n = make_run(), [0]

    def shorten(whole):
        n[0] += 1
        return b"".join(whole.splitlines(keepends=True)[: 5 if n[0] == 1 else 2])

    with sending.spoiled(endpoint, cut(endpoint, shorten, 100)) as url:
        to = sending.service_at(endpoint, url, grace_seconds=0.05)
        while not len(collect.outcomes(run)):
            dispatch.advance(run, to, 0.0)
    assert collect.outcomes(run)["outcome"].value_counts().to_dict() == {"valid": 5, "missing": 1}
    assert n[0] > batches.SHORT_LOOKS


def test_lines_that_stay_away_are_missing_in_the_end(make_run, endpoint):
    """The service has them not: after some looks a grace apart it is believed, and asked again."""
    run, before = make_run(), sending.batches_of(endpoint)
    progress = follow(run, endpoint, cut(endpoint, half, batches.SHORT_LOOKS + 1))
    assert (progress.state, progress.n_valid) == ("done", 6)
    assert sending.paid(endpoint, before).total() == 6 + 3
    outcomes = collect.outcomes(run)["outcome"].value_counts().to_dict()
    assert outcomes == {"valid": 6, "missing": 3}


def test_files_that_are_short_say_so_and_are_left_alone_for_a_grace(make_run, endpoint):
    """The reason stands in the progress; the service is not asked for them all the time."""
    run, n_downloads = make_run(), [0]
    shortened = cut(endpoint, half, 100)

    def rule(method, path):
        n_downloads[0] += is_content(method, path)
        return shortened(method, path)

    with sending.spoiled(endpoint, rule) as url:
        progress = stepped(run, endpoint, sending.service_at(endpoint, url, grace_seconds=3600), 4)
    assert n_downloads[0] == 1
    assert progress.state == "waiting"
    assert progress.reasons[0].startswith("no line yet for 3 of 6 requests in the files of")


def test_one_file_that_breaks_off_holds_up_no_other_batch(make_run, endpoint):
    """The first batch's download hangs up each time; the second batch is collected meanwhile."""
    two = {**sending.LUNA, "terra": {"model": "gpt-6.1-terra"}}
    run, broken = make_run(annotators=two), []

    def rule(method, path):
        if not is_content(method, path):
            return None
        broken[:] = broken or [path]
        return "drop" if path in broken else None

    with sending.spoiled(endpoint, rule) as url:
        to = sending.service_at(endpoint, url)
        to.client.max_retries = 0
        progress = stepped(run, endpoint, to, 3)
    assert (progress.n_valid, progress.n_in_flight) == (6, 6)
    assert "did not answer" in progress.reasons[0]
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 12


def test_a_clock_that_was_set_back_keeps_no_batch_waiting(make_run, endpoint):
    """Times that are still to come count from now on."""
    run = make_run()
    with sending.spoiled(endpoint, cut(endpoint, half, 1)) as url:
        stepped(run, endpoint, sending.service_at(endpoint, url), 2)
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        book.execute("UPDATE shards SET short_at = '2099-01-01T00:00:00+00:00'")
    to = sending.service_at(endpoint, grace_seconds=3600)
    assert dispatch.advance(run, to, 0.0).n_valid == 6


def test_what_was_downloaded_before_a_crash_is_read_from_disk(make_run, endpoint):
    """A file that is there and whole is not fetched a second time."""
    run, to, paths = make_run(), sending.service_at(endpoint), []
    dispatch.advance(run, to, 0.0)
    batch_id = shard_of(run)["batch_id"]
    sending.have_ended(endpoint)
    found = sending.batches_of(endpoint)[batch_id]
    whole = sending.got(endpoint, f"files/{found['output_file_id']}/content")
    path = run.path("answers") / f"{batch_id}_output.jsonl.gz"
    with runs.replacing(path) as part:
        part.write_bytes(gzip.compress(whole))
    with sending.spoiled(endpoint, lambda method, path: paths.append(path)) as url:
        assert sending.finish(run, sending.service_at(endpoint, url)).n_valid == 6
    assert not any(path.endswith("/content") for path in paths)
