"""Loading: every format is read, every broken document is skipped with its reason."""

import datetime
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import load, load_all, study, write

from lib import corpus, tokens
from lib.corpus import members
from lib.errors import AccountingError, CorpusError

GOOD = "corpus/good.txt"
ROWS = [{"id": "a", "text": "One. «é»"}, {"id": "b", "text": 'Two,\n"three"'}]


def parquet(rows: list[dict]) -> bytes:
    """The bytes of a Parquet file."""
    held = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), held)
    return held.getvalue()


CSV = 'id,text\r\na,One. «é»\r\nb,"Two,\r\n""three"""\r\n'
FORMATS = {
    "a_text.json": (json.dumps([[1, ""], [2, "One."], [3, None], ["iv", "Two"]]), ["One.\nTwo"]),
    "a.txt": ("One.\r\nTwo\rThree", ["One.\nTwo\nThree"]),
    "a.json": (json.dumps(ROWS[0]), ["One. «é»"]),
    "list.json": (json.dumps(ROWS), ["One. «é»", 'Two,\n"three"']),
    "pages.json": (json.dumps([[1, "One."], [2, "Two"]]), ["One.\nTwo"]),
    "a.jsonl": ("\n".join(map(json.dumps, ROWS)), ["One. «é»", 'Two,\n"three"']),
    "a.csv": (CSV, ["One. «é»", 'Two,\n"three"']),
    "mac.csv": ("id,text\ra,One\rb,Two\r", ["One", "Two"]),
    "a.parquet": (parquet(ROWS), ["One. «é»", 'Two,\n"three"']),
}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path, name, packed):
    """Each format gives its texts, also packed by gzip, in any depth of folders."""
    content, texts = FORMATS[name]
    write(tmp_path, f"corpus/x/y/{name}{packed}", content)
    found = load(tmp_path)
    assert found.texts == texts
    assert found.skipped.empty
    rows = found.documents
    assert rows["n_chars"].tolist() == rows["end"].tolist() == [len(text) for text in texts]
    assert rows["n_tokens"].tolist() == tokens.count(texts)


def test_ids_of_files_rows_and_records(tmp_path):
    """A file is called by its path, a row by path and number, a record by its own id."""
    write(tmp_path, "corpus/x/a.txt.gz", "A")
    write(tmp_path, "corpus/b.jsonl", '\n{"text": "B", "k": 7}\n')
    assert load(tmp_path).documents["item"].tolist() == ["s/b.jsonl#2", "s/x/a.txt.gz"]
    found = load(tmp_path, {"path": "corpus/*.jsonl", "id": "k"})
    assert found.documents["document"].tolist() == ["s/7"]
    assert found.documents["path"].tolist() == ["corpus/b.jsonl"]
    assert found.reasons == {"corpus/x/a.txt.gz": "not in any source"}


ENCODED = [
    ("é€".encode("utf-8-sig"), "utf-8"),
    ("é€".encode("utf-16"), "utf-8"),
    ("é€".encode("utf-32"), "utf-8"),
    ("é€".encode("utf-16-le"), "utf-16-le"),
    ("é€".encode("cp1252"), "cp1252"),
    ("é€".encode("utf-8-sig"), "cp1252"),
]


@pytest.mark.parametrize(("data", "encoding"), ENCODED)
def test_encodings(tmp_path, data, encoding):
    """A byte order mark says the encoding, before what the source declares."""
    write(tmp_path, "corpus/a.txt", data)
    assert load(tmp_path, {"encoding": encoding}).texts == ["é€"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings_of_tables(tmp_path, encoding):
    """Tables are decoded like files."""
    write(tmp_path, "corpus/a.csv", "text\né\n".encode(encoding))
    write(tmp_path, "corpus/b.jsonl", '{"text": "ü"}\n'.encode(encoding))
    assert load(tmp_path, {"encoding": "cp1252"}).texts == ["é", "ü"]


def test_text_is_changed_in_nothing_else(tmp_path):
    """Line ends, a leading mark and NUL are normalised; hyphens, spaces and U+2028 stay."""
    text = "\ufeff  so-\r\ncalled\u2028 \u0085 fi\ufb01 e\u0301 <|endoftext|> \x1b[1m" + "x" * 30
    write(tmp_path, "corpus/a.txt", text + "\x00")
    expected = text[1:].replace("\r\n", "\n")
    assert load(tmp_path).texts == [expected]


BROKEN_FILES = {
    "bad.txt": (b"caf\xe9", "not decodable", "byte 3 (0xe9) is not utf-8"),
    "gzip.txt": (b"\x1f\x8b\x08\x00", "not decodable", "packed by gzip: add .gz to its name"),
    "utf16.txt": ("no mark".encode("utf-16-le"), "not decodable", "7 of 14 characters are NUL"),
    "empty.txt": ("", "empty", "no text"),
    "blank.txt": (" \n\t\u2003", "empty", "no text"),
    "short.txt": (" ab ", "too short", "2 characters, at least 3 are wanted"),
    "scan.pdf": ("%PDF", "unknown format", "no reader for .pdf; read are british-library, txt"),
    "README": ("x", "unknown format", "no reader for .none"),
    "cut.txt.gz": (None, "unreadable", "damaged gzip"),
    "half.json": ('{"text": "x', "malformed", "JSON, line 1, column 10: Unterminated string"),
    "nan.json": ('{"text": "abc", "n": NaN}', "malformed", "JSON: NaN is no number"),
    "huge.json": ('{"text": "abc", "n": 1e999}', "malformed", "the number 1e999 is too large"),
    "digits.json": ('{"n": ' + "9" * 5000 + "}", "malformed", "a number has too many digits"),
    "deep.json": ("[" * 100_000, "malformed", "JSON: nested too deeply"),
    "twice.json": ('{"text": "abc", "text": "d"}', "malformed", "'text' stands twice"),
    "lone.json": (r'{"text": "ab\ud800c"}', "not encodable", "text, character 2: U+D800"),
    "none.json": ('{"Text": "abc"}', "no text member", "no member 'text'. Did you mean \"Text\"?"),
    "bare.json": ("{}", "no text member", "the record has none at all"),
    "number.json": ('{"text": 12.5}', "text of another type", "text is float, not text: 12.5"),
    "null.json": ('{"text": null}', "empty", "text is null"),
    "word.json": ('"abc"', "no text member", "expected a list of [page, text], found abc"),
    "list.json": ("[]", "empty", "an empty list"),
    "page_text.json": ('[[1, "abc"], [2]]', "no text member", "page 2: expected [number, text"),
    "object_text.json": ('{"text": "abc"}', "no text member", "expected a list of [page, text]"),
    "nulls_text.json": ('[[1, ""], [2, null]]', "empty", "no text"),
    "head.csv": ("", "empty", "CSV without a header line"),
    "double.csv": ("text,a,a\nabc,1,2", "malformed", "the column 'a' stands twice"),
    "no.parquet": (b"PAR1 no", "malformed", "Parquet: "),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_broken_files(tmp_path, name):
    """A file that cannot be used is one skipped row with reason and detail; the rest is used."""
    content, reason, detail = BROKEN_FILES[name]
    write(tmp_path, GOOD, "good text")
    path = write(tmp_path, f"corpus/{name}", "some text " * 99 if content is None else content)
    if content is None:
        path.write_bytes(path.read_bytes()[:-12])
    found = load(tmp_path, min_chars=3)
    assert found.texts == ["good text"]
    assert found.reasons == {f"corpus/{name}": reason}
    assert detail in found.detail(reason)
    assert found.skipped["n_bytes"].tolist() == [path.stat().st_size]


BROKEN_ROWS = {
    "{": ("malformed", "JSON, line 1, column 2"),
    "[1]": ("no text member", "expected an object, found [1]"),
    '{"id": "x"}': ("no text member", "no member 'text'."),
    '{"text": "abc"}': ("no id", "no member 'id'"),
    '{"text": "abc", "id": " "}': ("no id", "id is ' '"),
    '{"text": "abc", "id": true}': ("no id", "id is 'True'"),
    '{"text": "abc", "id": 1}': ("no group", "no member 'g'"),
    '{"text": "abc", "id": 1, "g": ""}': ("no group", "g is ''"),
    '{"text": "abc", "id": 1, "g": 1}': ("unreadable date", "no member 'd'"),
    '{"text": "abc", "id": 1, "g": 1, "d": null}': ("unreadable date", "d is 'None'"),
    '{"text": "abc", "id": 1, "g": 1, "d": "03/04/2020"}': (
        "unreadable date",
        "d is '03/04/2020'; write it as 2026-11-22",
    ),
    '{"text": "abc", "id": "good", "g": 1, "d": 1999}': (
        "same id, other text",
        "the id stands first in corpus/a.jsonl, row 1, which is kept",
    ),
    '{"text": "good text", "id": 1, "g": 1, "d": 1999}': (
        "duplicate",
        "the same text as s/good, which is kept",
    ),
    r'{"text": "abc", "id": "\udc80", "g": 1, "d": 1999}': ("not encodable", "id, character 0"),
    r'{"text": "abc", "id": 1, "g": 1, "d": 1999, "k": "\ud800"}': ("not encodable", "k, char"),
}


@pytest.mark.parametrize("line", BROKEN_ROWS)
def test_broken_rows(tmp_path, line):
    """A row that cannot be used is skipped with its number; the rows around it are used."""
    reason, detail = BROKEN_ROWS[line]
    good = [
        {"id": n, "text": f"{n} text", "g": 1, "d": "2020-01-02", "k": 1} for n in ("good", "last")
    ]
    lines = [json.dumps(good[0]), line, json.dumps(good[1])]
    write(tmp_path, "corpus/a.jsonl", "\n".join(lines))
    found = load(tmp_path, {"id": "id", "group": "g", "date": "d", "keep": ["k"]})
    assert found.texts == ["good text", "last text"]
    assert found.reasons == {"corpus/a.jsonl#2": reason}
    assert detail in found.detail(reason)


def test_undecodable_row(tmp_path):
    """One byte that is not text costs one row of a table, not the file."""
    write(tmp_path, "corpus/a.jsonl", b'{"text": "one"}\n{"text": "tw\xff"}\n{"text": "three"}\n')
    write(tmp_path, "corpus/b.csv", b"text\nfour\nfi\xe9ve\nsix\n")
    found = load(tmp_path)
    assert found.texts == ["one", "three", "four", "six"]
    assert set(found.reasons.items()) == {
        ("corpus/a.jsonl#2", "not decodable"),
        ("corpus/b.csv#2", "not decodable"),
    }
    assert found.skipped["detail"].tolist() == [
        "byte 12 of the record (0xff)",
        "byte 2 of the record (0xe9)",
    ]


def test_csv_guesses_nothing(tmp_path):
    """`NA`, `null` and `007` stay words; rows of another length and stray quotes are skipped."""
    rows = ["text,id,k", "NA,007,null", "x,1", 'y,"2"2,z', "", "w,3,", '"open,4,z']
    write(tmp_path, "corpus/a.csv", "\n".join(rows))
    found = load(tmp_path, {"id": "id", "keep": ["k"]})
    assert found.documents[["item", "text", "k"]].values.tolist() == [
        ["s/007", "NA", "null"],
        ["s/3", "w", ""],
    ]
    assert found.skipped[["row", "reason", "detail"]].values.tolist() == [
        [2, "malformed", "CSV: 2 cells, the header has 3"],
        [3, "malformed", "CSV, lines 4-4: ',' expected after '\"'"],
        [5, "malformed", "CSV, lines 7-7: unexpected end of data"],
    ]


def test_kept_columns_have_one_type(tmp_path):
    """Kept values are text as JSON writes them, over all files; title and author always exist."""
    write(tmp_path, "corpus/a.jsonl", '{"text": "one", "k": 4.5, "title": "T"}\n{"text": "two"}')
    write(tmp_path, "corpus/b.csv", "text,k\nthree,007\n")
    write(tmp_path, "corpus/c.json", '[{"text": "four", "k": [true, "é"]}]')
    found = load(tmp_path, {"keep": ["k", "title"]}).documents
    assert found["k"].tolist()[0::2] == ["4.5", "007"]
    assert found["k"].isna().tolist() == [False, True, False, False]
    assert found["k"].tolist()[3] == '[true,"é"]'
    assert found["title"].tolist()[0] == "T"
    assert found["author"].isna().all()


def test_dates_and_groups_of_parquet(tmp_path):
    """Dates of Parquet are dates; whole floats are the numbers that they were before a gap."""
    day = datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.UTC)
    write(tmp_path, "corpus/a.parquet", parquet([{"text": "one", "g": 3.0, "d": day}]))
    row = load(tmp_path, {"group": "g", "date": "d"}).documents.iloc[0]
    assert (row["group"], row["date"]) == ("3", pd.Timestamp("2020-01-02 03:00"))


MOMENTS = {
    "2020-01-02": (2020, 1, 2),
    "2020-01-02T03:04:05Z": (2020, 1, 2, 3, 4, 5),
    "2020-01-02 03:04:05+02:00": (2020, 1, 2, 1, 4, 5),
    "2020/1/2": None,
    "2020/01/02": (2020, 1, 2),
    "20200102": (2020, 1, 2),
    "1887-05": (1887, 5, 1),
    1887: (1887, 1, 1),
    "Wed Oct 10 20:19:24 +0000 2018": (2018, 10, 10, 20, 19, 24),
    "4 March 2020": (2020, 3, 4),
    1583280000: None,
    "1512122500123": None,
    "10:30": None,
    "yesterday": None,
    "2020-02-30": None,
    "Maybe 9999999": None,
    True: None,
    12.5: None,
    "0001-01-01T00:00:00+10:00": None,
}


@pytest.mark.parametrize("value", MOMENTS)
def test_moments(value):
    """What is certain is read as UTC, what could mean two things is not."""
    expected = MOMENTS[value]
    assert members.moment(value) == (expected and datetime.datetime(*expected))


def test_damaged_table_after_some_rows(tmp_path):
    """Rows before the damage are used; the rest is one skip that says where it begins."""
    lines = "".join(json.dumps({"text": f"row {n} {n * n}"}) + "\n" for n in range(5_000))
    path = write(tmp_path, "corpus/a.jsonl.gz", lines)
    path.write_bytes(path.read_bytes()[:-1000])
    found = load(tmp_path)
    assert 0 < len(found.texts) < 5_000
    assert found.detail("unreadable").endswith(f"(after {len(found.texts):,} records)")


def test_duplicates_over_sources(tmp_path):
    """Equal texts are used once, the first in the order of sources, paths and rows."""
    write(tmp_path, "corpus/b.txt", "same")
    write(tmp_path, "corpus/a.txt", "\ufeffsame")
    write(tmp_path, "other/t.csv", "text\nsame\nother\n")
    found = load_all(tmp_path, {"z": {"path": "corpus/*"}, "a": {"path": "other/*"}})
    assert found.documents["item"].tolist() == ["z/a.txt", "a/t.csv#2"]
    assert set(found.skipped["detail"]) == {"the same text as z/a.txt, which is kept"}
    assert found.skipped["document"].tolist() == ["z/b.txt", "a/t.csv#1"]


LONG = "First sentence here. " * 40


@pytest.mark.parametrize(("long", "n_items"), [("passages", 4), ("cut", 1), ("refuse", 0)])
def test_long_documents(tmp_path, long, n_items):
    """Above the bound a document becomes passages, its first passage, or a skip, as declared."""
    write(tmp_path, "corpus/long.txt", LONG)
    write(tmp_path, GOOD, "good text")
    found = load(tmp_path, max_tokens=50, long=long)
    rows = found.documents[found.documents["document"] == "s/long.txt"]
    names = [f"s/long.txt@{n:03}" for n in range(1, 5)] if long == "passages" else ["s/long.txt"]
    assert rows["item"].tolist() == names[:n_items]
    assert all(rows["n_tokens"] <= 50)
    assert set(rows["n_document_chars"]) <= {len(LONG)}
    if long == "refuse":
        assert found.detail("too long") == "161 tokens, at most 50 are allowed"


def test_order_and_bytes_are_the_same_every_time(tmp_path):
    """Loading twice gives the same bytes."""
    for n in range(20):
        write(tmp_path, f"corpus/{n % 3}/{n}.txt", f"text {n % 15}")
    both = []
    for _ in range(2):
        out = load(tmp_path).folder
        both.append([(out / f"{name}.parquet").read_bytes() for name in ("documents", "skipped")])
    assert both[0] == both[1]


def test_nothing_left(tmp_path):
    """A corpus without any text is an error that counts the reasons; the skips can be read."""
    write(tmp_path, "corpus/a.pdf", "%PDF")
    write(tmp_path, "corpus/b.txt", " ")
    with pytest.raises(CorpusError, match=r"2 found and skipped \(unknown format 1, empty 1\)"):
        load(tmp_path)
    assert len(pd.read_parquet(tmp_path / "out" / "skipped.parquet")) == 2
    assert not (tmp_path / "out" / "documents.parquet").exists()


def test_keep_that_no_record_has(tmp_path):
    """A misspelt kept column is an error with the nearest name, not a column of nulls."""
    write(tmp_path, "corpus/a.csv", "text,stars\nx,5\n")
    with pytest.raises(
        CorpusError, match=r'''no record has the column 'star'.*Did you mean "stars"'''
    ):
        load(tmp_path, {"keep": ["star"]})
    with pytest.raises(CorpusError, match=r"'text' is a column of documents\.parquet already"):
        load(tmp_path, {"keep": ["text"]})


def test_census(tmp_path):
    """The census has a row for each source and format, and says when totals do not close."""
    write(tmp_path, "corpus/a.txt", "one")
    write(tmp_path, "corpus/b.txt", "one")
    write(tmp_path, "corpus/c.csv", "text\ntwo\n \n")
    write(tmp_path, "corpus/d.docx", "x")
    out = load(tmp_path).folder
    table = corpus.census(out).set_index("format")
    assert table.columns.tolist()[:4] == ["source", "n_found", "n_used", "n_items"]
    assert table.loc["txt"].tolist() == ["s", 2, 1, 1, 1, 0, 0]
    assert table.loc["csv", ["n_found", "n_used", "empty"]].tolist() == [2, 1, 1]
    assert table.loc["docx", ["n_found", "n_used", "unknown format"]].tolist() == [1, 0, 1]
    rows = pd.read_parquet(out / "documents.parquet")
    rows.iloc[1:].to_parquet(out / "documents.parquet")
    with pytest.raises(
        AccountingError, match=r"s, txt: 2 found, but 0 used \+ 1 skipped"
    ) as caught:
        corpus.census(out)
    assert (caught.value.n_found, caught.value.n_used, caught.value.n_skipped) == (2, 0, 1)


def test_counter_is_asked_in_chunks(tmp_path):
    """Texts are counted some thousand at a time, so that memory does not grow with the corpus."""
    rows = "".join(f"text {n}\n" for n in range(4500))
    write(tmp_path, "corpus/a.csv", f"text\n{rows}")
    asked = []

    def count(texts):
        asked.append(len(texts))
        return [1] * len(texts)

    loaded = corpus.load(study(tmp_path, {"s": {"path": "corpus/*"}}), tmp_path / "out", count)
    assert asked == [2000, 2000, 500]
    assert repr(loaded).startswith("4,500 found = 4,500 documents used + 0 skipped; 4,500 items")


def test_real_books(tmp_path, shared):
    """Real novels: 8 Gutenberg texts and 6 British Library volumes, none skipped, exact counts."""
    found = load_all(
        tmp_path,
        {
            "gutenberg": {"path": str(shared / "data" / "gutenberg" / "**" / "*.txt")},
            "bl": {"path": str(shared / "data" / "british-library" / "**" / "*_text.json")},
        },
    )
    rows = found.documents
    assert rows.groupby("source")["document"].nunique().to_dict() == {"gutenberg": 8, "bl": 6}
    assert found.skipped.empty
    assert rows["n_tokens"].between(1, 2000).all()
    some = rows.iloc[::7]
    assert some["n_tokens"].tolist() == tokens.count(some["text"].tolist())
    assert rows["item"].is_unique
    assert rows["item"].tolist() == sorted(rows["item"], key=lambda item: (item[0] != "g", item))
