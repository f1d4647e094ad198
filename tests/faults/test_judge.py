"""The judge can fail: each rule is broken on purpose, and the judge names it.

The evidence of a run that nothing disturbed breaks no rule. Every test changes one thing in it.
"""

import dataclasses
import shutil

import judge
import killing
import pandas as pd
import pytest
import reading
import sending

from lib import dispatch


@pytest.fixture(scope="module")
def calm(places):
    """The case of a run with two shards that nothing disturbed."""
    at = places[0]
    run = at.copy("canary")
    before = judge.look(at.endpoint)
    ends = at.ask(at.command(run))
    seen = judge.since(before, at.endpoint)
    nothing = judge.Seen({}, {}, {})
    results = judge.results(run)
    return judge.Case(run, seen, ends, again=nothing, results=results, secrets=(killing.SECRET,))


@pytest.fixture
def case(calm, tmp_path):
    """The same with a folder of its own."""
    folder = shutil.copytree(calm.run.folder, tmp_path / "guests")
    return dataclasses.replace(calm, run=dataclasses.replace(calm.run, folder=folder))


def broken(case, **changed):
    """The numbers of the rules that are broken when parts of a case are replaced."""
    found = judge.violations(dataclasses.replace(case, **changed))
    return {violation.rule for violation in found}


def seen_with(case, **changed):
    """What the service saw, with parts replaced."""
    return dataclasses.replace(case.seen, **changed)


def rewrite(case, change):
    """Change the first outcome file of a case."""
    path = min(case.run.path("outcomes").iterdir())
    change(pd.read_parquet(path)).to_parquet(path)


def test_an_undisturbed_run_breaks_no_rule(case):
    """Nothing is found where nothing is wrong."""
    assert broken(case) == set()


def test_a_line_that_was_run_in_two_batches(case):
    """I1: paid twice, by the book."""
    name, entry = next(iter(case.seen.book.items()))
    twice = {**entry, "n_executions": 2, "batches": [*entry["batches"], "batch_2"]}
    assert "I1" in broken(case, seen=seen_with(case, book={**case.seen.book, name: twice}))


def test_a_usable_answer_that_was_asked_for_again(case):
    """I1: the second attempt at a request whose first was answered."""
    (batch, lines), *others = case.seen.lines.items()
    name = lines[0]["custom_id"]
    again = {**lines[0], "custom_id": f"{name[:-1]}1"}
    book = {**case.seen.book, again["custom_id"]: case.seen.book[name]}
    seen = seen_with(case, book=book, lines={batch: [*lines, again], **dict(others)})
    assert "I1" in broken(case, seen=seen)


def test_a_request_without_an_end(case):
    """I2: an outcome is missing, and with it a paid answer."""
    rewrite(case, lambda table: table.iloc[1:])
    assert {"I2", "I3"} <= broken(case)


def test_a_row_that_stands_twice(case):
    """I6 and I3: doubled results."""
    rewrite(case, lambda table: pd.concat([table, table.head(1)]))
    assert {"I3", "I6"} <= broken(case)


def test_money_that_is_not_what_the_book_says(case):
    """I4: outcomes, ledger and book must agree, within the budget."""
    assert broken(case, max_usd=1e-9) == {"I4"}
    rewrite(case, lambda table: table.assign(spend_usd=table["spend_usd"] * 2))
    assert broken(case) == {"I4"}


def test_another_answer_than_in_an_undisturbed_run(case):
    """I6: the content of an answer differs; then a table made of them."""
    other = dict.fromkeys(case.results, "{}")
    assert broken(case, results=other) == {"I6"}
    case.run.path("index.parquet").write_bytes(b"one")
    assert broken(case, results={**case.results, "index.parquet": b"other"}) == {"I6"}


def test_a_batch_and_a_file_that_nobody_knows(case):
    """I8: orphans."""
    batch = {**next(iter(case.seen.batches.values())), "id": "batch_nobody_knows"}
    file = {"id": "file-nobody-knows", "purpose": "batch"}
    seen = seen_with(case, batches={**case.seen.batches, "batch_nobody_knows": batch})
    assert broken(case, seen=seen) == {"I8"}
    seen = seen_with(case, files={**case.seen.files, "file-nobody-knows": file})
    assert broken(case, seen=seen) == {"I8"}


def test_a_finished_run_that_pays_again(case):
    """I9: the command after the end made a batch."""
    assert broken(case, again=case.seen) == {"I9"}


def test_a_document_that_nobody_asks_about(case):
    """I10: an item has fewer requests than the panel has votes, or is no document."""
    requests = case.run.table("requests")
    requests.assign(item="all/000").to_parquet(case.run.path("requests.parquet"))
    assert "I10" in broken(case)


def test_a_secret_in_a_file_and_in_words(case):
    """I11: the key stands somewhere."""
    said = [{**case.ends[-1], "said": f"{killing.SECRET}\n{case.ends[-1]['said']}"}]
    assert broken(case, ends=said) == {"I11"}
    case.run.path("log.txt").write_text(f"key={killing.SECRET}", encoding="utf-8")
    assert broken(case) == {"I11"}


def test_a_run_that_does_not_end_or_lies_about_it(case):
    """I12: not done in the end. I14: exit code 0 after "waiting", or a traceback."""
    waiting = {**case.ends[-1], "code": 3, "said": "waiting: 1 of 6 answered, 5 in flight"}
    assert broken(case, ends=[waiting]) == {"I12"}
    assert broken(case, ends=[{**waiting, "code": 0}]) == {"I14"}
    assert broken(case, ends=[{**case.ends[-1], "code": 1}]) == {"I12", "I14"}


def test_two_payers_and_a_flood_of_refusals(case):
    """I7: two commands worked at once. I13: more than a canary was sent to a certain refusal."""
    codes = [{"code": 0}, {"code": 0}]
    assert [one.rule for one in judge.not_alone(codes)] == ["I7"]
    assert [*judge.not_alone([{"code": 0}, {"code": judge.BUSY}])] == []
    assert [one.rule for one in judge.sent_too_much(case.seen, 2)] == ["I13"]
    assert [*judge.sent_too_much(case.seen, 6)] == []


@pytest.mark.parametrize("name", ["outcomes/x.parquet", "answers/x.jsonl.gz", "shards/x.jsonl"])
def test_a_reader_sees_files_that_are_not_whole(name, case):
    """I5: two thirds of a file under its final name, while all that is whole is fine."""
    path = case.run.path(name)
    whole = [one for one in path.parent.iterdir() if one.suffix == path.suffix]
    raw = whole[0].read_bytes() if whole else b'{"a": 1}\n{"a": 2}\n'
    reader = reading.Reader(case.run.folder)
    reader.look()
    assert reader.readings == []
    path.write_bytes(raw[: len(raw) * 2 // 3])
    reader.look()
    assert len(reader.readings) == 1


def test_what_a_reader_has_seen_is_a_violation(case):
    """I5, as it comes to the list."""
    assert broken(case, readings=["x.parquet is not whole"]) == {"I5"}


def test_a_ledger_that_is_deleted_with_its_traces_pays_all_again(make_run, endpoint):
    """The whole way: all lines are run twice, by the service's own book."""
    before, run = judge.look(endpoint), make_run()
    sending.finish(run, sending.service_at(endpoint))
    for path in run.folder.glob("ledger*.sqlite"):
        path.unlink()
    for name in ("shards", "outcomes"):
        shutil.rmtree(run.path(name))
    assert dispatch.status(run).n_to_send == 6
    sending.finish(run, sending.service_at(endpoint))
    (found,) = judge.paid_twice(judge.since(before, endpoint))
    assert (found.rule, found.kind, found.n) == ("I1", "paid twice", 6)
    assert judge.counted([found, found]) == {"paid twice": 12}
