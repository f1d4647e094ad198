"""Faults of documents, D01 to D28: what lies in a corpus, and where in the census it ends.

Every row is a corpus of real files, loaded as notebook 01 does. Nothing is skipped in silence: each
name that is seen is used, or stands in skipped.parquet with a reason, and the sums close.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import signal
import socket
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import corpora
import hurried
import pandas as pd
import pytest

from lib import accounts, corpus, dispatch, gold, runs
from lib.corpus import shapes
from lib.errors import AccountingError, StudyError

GOOD = "A good text."
BEYOND = shapes.MAX_RECORD_BYTES + 10
DEEP, DIGITS = "[" * 100_000, '{"text": "a", "n": ' + "9" * 5000 + "}"
NFC, NFD = (f"{unicodedata.normalize(form, 'é')}.txt" for form in ("NFC", "NFD"))


class Row(NamedTuple):
    """A fault: what lies in the corpus beside good.txt, and what becomes of it.

    `files` are contents by name, packed when the name ends in .gz, or a function that puts them
    into a folder. `texts` are the texts that are used, `skipped` the reason for each other path,
    `detail` a part of what is said about one of them.
    """

    number: str
    files: dict | Callable[[Path], None]
    texts: list[str] = []
    skipped: dict[str, str] = {}
    detail: str = ""
    source: dict = {}
    items: dict = {}


def pages(text):
    """A volume of the British Library with one page."""
    return json.dumps([[1, text]])


def zipped(name):
    """A zip archive with one member of this name."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, "out")
    return held.getvalue()


def of_bytes(folder):
    """A name whose bytes are no text in any usual encoding."""
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("A name of bytes.", encoding="utf-8")


def looped(folder):
    """A link to itself, and one to a folder in which it lies."""
    (folder / "self.txt").symlink_to(folder / "self.txt")
    (folder / "round").symlink_to(folder)


def leading_out(folder):
    """Links to a file and to a folder outside of the corpus, and one to nowhere."""
    corpora.write(folder.parent / "secret", "key.txt", "a secret")
    (folder / "key.txt").symlink_to(folder.parent / "secret" / "key.txt")
    (folder / "all").symlink_to(folder.parent / "secret")
    (folder / "none.txt").symlink_to(folder.parent / "nowhere")


def no_files(folder):
    """A pipe that nobody writes to, a socket, and a device by a link."""
    os.mkfifo(folder / "pipe.txt")
    with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as held:
        held.bind("socket.txt")  # a path of a socket has to be short


TABLE = [
    Row("D04", {"a.txt": ""}, [], {"a.txt": "empty"}, "no text"),
    Row("D04", {"b.csv": ""}, [], {"b.csv": "empty"}, "CSV without a header"),
    Row("D04", {"b.csv": "text\n"}, [], {"b.csv": "empty"}, "there is no record in it"),
    Row("D04", {"a.jsonl": ""}, [], {"a.jsonl": "empty"}, "there is no record in it"),
    Row("D05", {"a.txt": " \n\t\u2003\u3000"}, [], {"a.txt": "empty"}, "no text"),
    Row("D05", {"a.jsonl": '\n \n{"text": " "}\n'}, [], {"a.jsonl#3": "empty"}, "no text"),
    Row("D05", {"a.jsonl": "\n \n"}, [], {"a.jsonl": "empty"}, "there is no record in it"),
    Row(
        "D06", {"a.txt": b"caf\xe9s"}, [], {"a.txt": "not decodable"}, "byte 3 (0xe9) is not utf-8"
    ),
    Row(
        "D06",
        {"a.jsonl": b'{"text": "one"}\n{"text": "tw\xff"}\n{"text": "three"}\n'},
        ["one", "three"],
        {"a.jsonl#2": "not decodable"},
        "byte 12 of the record (0xff)",
    ),
    Row("D06", {"a.csv": b"text\none\ntw\xe9\n"}, ["one"], {"a.csv#2": "not decodable"}),
    Row(
        "D07", {"a.txt": "é€".encode("utf-16"), "b.csv": "text\nü\n".encode("utf-16")}, ["é€", "ü"]
    ),
    Row("D07", {"a.txt": "no mark".encode("utf-16-le")}, [], {"a.txt": "not decodable"}, "are NUL"),
    Row("D08", {"a.txt": "\ufeffé", "b.csv": "\ufefftext\nü\n"}, ["é", "ü"]),
    Row("D08", {"a.json": '\ufeff{"text": "é"}', "b_text.json": "\ufeff" + pages("ü")}, ["é", "ü"]),
    Row("D09", {"a.txt": "café".encode("latin-1")}, [], {"a.txt": "not decodable"}, "byte 3"),
    Row("D09", {"a.txt": "café".encode("latin-1")}, ["café"], source={"encoding": "latin-1"}),
    Row("D10", {"a.txt": gzip.compress(b"packed")}, [], {"a.txt": "not decodable"}, "add .gz to"),
    Row("D11", {"a.json.gz": '{"text": "one"}', "b_text.json.gz": pages("two")}, ["one", "two"]),
    Row(
        "D12",
        {"a.txt": "one\x00 text of forty characters, at the least"},
        ["one text of forty characters, at the least"],
    ),
    Row(
        "D12",
        {"a.txt": "o\x00n\x00e\x00"},
        [],
        {"a.txt": "not decodable"},
        "3 of 6 characters are NUL",
    ),
    Row(
        "D13",
        {
            "a.jsonl.gz": b'{"text": "one"}\n{"text": "'
            + bytes(100_000_000)
            + b'"}\n{"text": "two"}\n'
        },
        ["one", "two"],
        {"a.jsonl.gz#2": "too large"},
        "a line of more than 67,108,864 characters",
    ),
    Row(
        "D14",
        {"a.txt": "word " * 120},
        ["word " * 49 + "word", "word " * 49 + "word", "word " * 19 + "word"],
        items={"max_tokens": 50},
    ),
    Row(
        "D14",
        {"a.txt": "word " * 120},
        [],
        {"a.txt": "too long"},
        "at most 50 are allowed",
        items={"max_tokens": 50, "long": "refuse"},
    ),
    Row("D15", {"a.txt": "a\u2028b\u2029c\u0085d"}, ["a\u2028b\u2029c\u0085d"]),
    Row(
        "D15",
        {"a.jsonl": '{"text": "a\u2028b\u2029c\u0085d"}\n{"text": "e"}\n'},
        ["a\u2028b\u2029c\u0085d", "e"],
    ),
    Row("D15", {"a.csv": "text\na\u2028b\u2029c\u0085d\ne\n"}, ["a\u2028b\u2029c\u0085d", "e"]),
    Row("D16", {"a.jsonl": r'{"text": "ab\ud800c"}'}, [], {"a.jsonl#1": "not encodable"}, "U+D800"),
    Row("D16", {"a.json": r'{"text": "\ud83c\udf5c"}'}, ["🍜"]),
    Row("D17", {"a.json": '{"text": "x'}, [], {"a.json": "malformed"}, "JSON, line 1, column 10"),
    Row("D17", {"a.jsonl": '{"text": "one"}\n{\n'}, ["one"], {"a.jsonl#2": "malformed"}),
    Row(
        "D17", {"a.json": '{"Text": "x"}'}, [], {"a.json": "no text member"}, 'Did you mean "Text"?'
    ),
    Row(
        "D17",
        {"a.jsonl": '{"text": 7}\n[]'},
        [],
        {"a.jsonl#1": "text of another type", "a.jsonl#2": "no text member"},
    ),
    Row("D18", {"a.json": DEEP}, [], {"a.json": "malformed"}, "nested too deeply"),
    Row("D18", {"a.jsonl": DEEP + '\n{"text": "one"}'}, ["one"], {"a.jsonl#1": "malformed"}),
    Row("D18", {"a.json": DIGITS}, [], {"a.json": "malformed"}, "too many digits"),
    Row(
        "D19",
        {"h.txt": GOOD, "i.csv": f"text\n{GOOD}\n"},
        [],
        {"h.txt": "duplicate", "i.csv#1": "duplicate"},
        "the same text as s/good.txt, which is kept",
    ),
    Row("D20", {"x/a.txt": "one", "y/a.txt": "two"}, ["one", "two"]),
    Row(
        "D20",
        {"a.txt": "one", "A.txt": "two", NFC: "three", NFD: "four"},
        ["two", "one", "four", "three"],
    ),
    Row(
        "D21",
        {
            "new\nline.txt": "one",
            "-rf.txt": "two",
            "a" * 251 + ".txt": "three",
            "a..b.txt": "four",
            "..x.txt": "x",
        },
        ["two", "four", "three", "one"],
        {"..x.txt": "hidden or system file"},
    ),
    Row("D21", of_bytes, ["A name of bytes."]),
    Row("D22", looped, [], {"round/": "symlink loop", "self.txt": "symlink loop"}),
    Row(
        "D23",
        leading_out,
        [],
        {
            "all/": "outside the corpus by link",
            "key.txt": "outside the corpus by link",
            "none.txt": "unreadable",
        },
    ),
    Row("D24", no_files, [], {"pipe.txt": "not a file", "socket.txt": "not a file"}),
    Row(
        "D25",
        {"a.zip": zipped("../../out.txt")},
        [],
        {"a.zip": "unknown format"},
        "no reader for .zip",
    ),
    Row("D25", {"a.txt.gz": bytes(BEYOND)}, [], {"a.txt.gz": "too large"}, "67,108,864 bytes"),
    Row(
        "D26",
        {"a_text.json": pages("one"), "b.json": '{"text": "two"}', "c.doc": "x", "d": "y"},
        ["one", "two"],
        {"c.doc": "unknown format", "d": "unknown format"},
        "no reader for .doc",
    ),
    Row(
        "D26",
        {"a_text.json": pages("one"), "b.txt": "missed", "x/c.csv": "text\nmissed\n"},
        ["one"],
        {
            "b.txt": "not in any source",
            "x/c.csv": "not in any source",
            "good.txt": "not in any source",
        },
        source={"path": "corpus/**/*_text.json"},
    ),
    Row("D28", {"a.csv": 'id,text\r1,one\r2,"two,\rthree"\r'}, ["one", "two,\nthree"]),
]


def loaded(folder, row):
    """Put the files of a row beside a good one, and load them."""
    place = corpora.write(folder, "corpus/good.txt", GOOD).parent
    if callable(row.files):
        row.files(place)
    else:
        for name, content in row.files.items():
            corpora.write(place, name, content)
    return corpora.load(folder, row.source, **row.items)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.number)
def test_a_fault_of_documents_ends_as_the_table_says(row, tmp_path):
    """What can be read is used with its text unchanged; all else has its reason, and sums close."""
    found = loaded(tmp_path, row)
    kept = [] if "good.txt" in row.skipped else [GOOD]
    assert sorted(found.texts) == sorted([*row.texts, *kept])
    assert found.reasons == {f"corpus/{name}": reason for name, reason in row.skipped.items()}
    assert any(
        row.detail in str(detail)
        for detail in [*found.skipped["detail"], row.detail * (not row.skipped)]
    )


@contextlib.contextmanager
def nobody():
    """A folder and a block without the rights of root, for whom no file is forbidden."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder, is_root = Path(name), os.geteuid() == 0
        if is_root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield folder
        finally:
            for path in folder.rglob("*"):
                path.chmod(0o700)
            if is_root:
                os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="rights of Unix")
def test_d01_what_may_not_be_opened_is_skipped():
    """A file and a folder without permission stand as unreadable; the others are used."""
    with nobody() as folder:
        corpora.write(folder, "corpus/shut.txt", "B").chmod(0)
        corpora.write(folder, "corpus/x/c.txt", "C").parent.chmod(0)
        found = loaded(folder, Row("D01", {}))
    assert found.texts == [GOOD]
    assert found.reasons == {"corpus/shut.txt": "unreadable", "corpus/x/": "unreadable"}
    assert set(found.skipped["detail"]) == {"Permission denied", "folder: Permission denied"}


@pytest.mark.skipif(sys.platform != "linux", reason="a file that fails when it is read")
def test_d01_what_fails_while_it_is_read_is_skipped(tmp_path):
    """A file that opens and cannot be read says what the system says."""
    corpora.write(tmp_path, "corpus/good.txt", GOOD)
    sources = {"s": {"path": "corpus/*"}, "m": {"path": "/proc/self/mem", "format": "txt"}}
    found = corpora.load_all(tmp_path, sources)
    assert (found.texts, found.reasons) == ([GOOD], {"/proc/self/mem": "unreadable"})


@pytest.mark.skipif(sys.platform == "win32", reason="devices of Unix")
def test_d24_a_device_is_not_opened(tmp_path):
    """A device, named by its path, is no file."""
    corpora.write(tmp_path, "corpus/good.txt", GOOD)
    found = corpora.load_all(tmp_path, {"s": {"path": "corpus/*"}, "d": {"path": "/dev/zero"}})
    assert (found.texts, found.reasons) == ([GOOD], {"/dev/zero": "not a file"})


def meanwhile(folder, change):
    """Load a corpus of a.txt, b.txt and c.txt; `change` happens when a.txt has been read."""
    corpora.write(folder, "corpus/a.txt", "long " * 1_000_000)
    for name in ("b.txt", "c.txt"):
        corpora.write(folder, f"corpus/{name}", name)
    left = [change]

    def count(texts):
        while left:
            left.pop()()
        return [1] * len(texts)

    study = corpora.study(folder, {"s": {"path": "corpus/*"}})
    corpus.load(study, folder / "out", count)
    census = corpus.census(folder / "out")
    assert census["n_found"].sum() == 3
    return corpora.Result(
        *(pd.read_parquet(folder / "out" / f"{name}.parquet") for name in ("documents", "skipped")),
        folder,
    )


def test_d02_a_file_that_vanishes_after_it_was_found_is_skipped(tmp_path):
    """b.txt is deleted when the folder was listed and a.txt was read: it stands as vanished."""
    found = meanwhile(tmp_path, (tmp_path / "corpus" / "b.txt").unlink)
    assert found.reasons == {"corpus/b.txt": "vanished"}
    assert found.texts[1:] == ["c.txt"]


def test_d03_a_file_that_changes_after_it_was_found_is_what_was_read(tmp_path):
    """Text and SHA-256 are of one reading; a later change is another text, and so another key."""
    path = tmp_path / "corpus" / "b.txt"
    found = meanwhile(tmp_path, lambda: path.write_text("changed"))
    row = found.documents.set_index("item").loc["s/b.txt"]
    assert row["text"] == "changed"
    assert row["sha256"] == hashlib.sha256(b"changed").hexdigest()
    path.write_text("again")
    (tmp_path / "corpus" / "a.txt").unlink()
    again = corpora.load(tmp_path).documents.set_index("item").loc["s/b.txt"]
    assert (row["text"], again["text"]) == ("changed", "again")


def test_d03_what_was_estimated_is_what_is_sent(make_run, endpoint):
    """A text that changes between 01 and 03 is not sent: the requests are of the text as loaded."""
    run = make_run(["one", "two"])
    requests = run.table("requests")
    again = make_run(["one", "changed"])
    runs.write_table(requests, again.path("requests.parquet"))
    with pytest.raises(AccountingError, match="Run 01_load_documents and 02"):
        dispatch.advance(again, hurried.service_at(endpoint), 1.0)


def test_d14_what_no_model_can_hold_is_left_for_people(make_run, tmp_path):
    """150,000 tokens for a model that holds 128,000: refused, unpaid, shown with advice."""
    service = hurried.start(tmp_path / "service", "--tier=5")
    annotators = {"four": {"model": "gpt-4o"}}
    run = make_run(
        ["Lovely soup.", "word " * 150_000, "Cold."],
        annotators=annotators,
        canary=3,
        max_failure_share=0.5,
        tier=5,
    )
    with hurried.time_flies():
        progress = dispatch.follow(run, hurried.service_at(service), 10.0, hours=48)
    os.kill(service["pid"], signal.SIGTERM)
    assert (progress.state, progress.n_valid, progress.n_left) == ("done", 2, 1)
    (fault,) = accounts.faults(run).to_dict("records")
    assert fault["code"] == "context_length_exceeded"
    assert "max_tokens" in fault["what_to_do"]


@pytest.mark.parametrize("value", ["", "null", "None", "n/a"])
def test_d27_gold_without_values_is_refused_with_its_line(value, tmp_path):
    """Labels that say nothing measure nothing: the file is refused, not read as right."""
    path = tmp_path / "gold.csv"
    path.write_text(f"item,field,value\ns/a,f,true\ns/b,f,{value}\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"gold\.csv, line 3: .* Allowed: "):
        gold.read(path, corpora.study(tmp_path, {"s": {"path": "*"}}), ["s/a", "s/b"])


def test_all_faults_of_documents_in_one_corpus_add_up(tmp_path):
    """Every file of the table in one corpus: each path is used, a duplicate, or has its reason."""
    for n, row in enumerate(TABLE):
        if not callable(row.files) and not row.source:
            for name, content in row.files.items():
                if len(content) < 1_000_000:
                    corpora.write(tmp_path, f"corpus/{n:02}/{name}", content)
    found = corpora.load(tmp_path)
    n_files = sum(path.is_file() for path in (tmp_path / "corpus").rglob("*"))
    paths = {*found.documents["path"], *found.skipped["path"]}
    assert len(paths) == n_files
    assert found.documents["item"].is_unique
