"""Finding: every name below a source's folder is read, or skipped with a reason, in one order."""

import os
import sys
from pathlib import Path

import fsspec
import pytest
from corpora import load, load_all, write
from hypothesis import given
from hypothesis import strategies as st

from lib.corpus import find, shapes
from lib.errors import CorpusError

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of Unix")


def test_order_is_that_of_paths(tmp_path):
    """Files come sorted by their whole path, folders and files mixed."""
    names = ["b.txt", "a.txt", "a/b.txt", "a b.txt", "Z.txt", "a/B/c.txt", "ä.txt"]
    for name in names:
        write(tmp_path, f"corpus/{name}", name)
    assert load(tmp_path).texts == sorted(names)


GLOBS = {
    "corpus": ["a.txt", "x/b.txt", "x/y/c_text.json"],
    "corpus/": ["a.txt", "x/b.txt", "x/y/c_text.json"],
    "corpus/**/*.txt": ["a.txt", "x/b.txt"],
    "corpus/*.txt": ["a.txt"],
    "corpus/*/*.txt": ["x/b.txt"],
    "corpus/x/**": ["b.txt", "y/c_text.json"],
    "corpus/**/[ab].t?t": ["a.txt", "x/b.txt"],
    "./corpus/../corpus/x/b.txt": ["b.txt"],
}


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("glob", GLOBS)
def test_globs(tmp_path, glob, absolute):
    """Globs start at the study's folder or are absolute; ids start at their first wildcard."""
    write(tmp_path, "corpus/a.txt", "A")
    write(tmp_path, "corpus/x/b.txt", "B")
    write(tmp_path, "corpus/x/y/c_text.json", '[[1, "C"]]')
    found = load(tmp_path, {"path": f"{tmp_path}/{glob}" if absolute else glob})
    assert found.documents["item"].tolist() == [f"s/{rel}" for rel in GLOBS[glob]]


def test_files_that_no_source_asks_for(tmp_path):
    """Files beside those that the globs match are found and skipped, never missed."""
    write(tmp_path, "corpus/a_text.json", '[[1, "A"]]')
    for n in range(3):
        write(tmp_path, f"corpus/txt/{n}.txt", "missed")
    write(tmp_path, "corpus/x/b.csv", "text\nB\n")
    found = load_all(
        tmp_path, {"bl": {"path": "corpus/**/*_text.json"}, "c": {"path": "corpus/x/*.csv"}}
    )
    assert found.documents["item"].tolist() == ["bl/a_text.json", "c/b.csv#1"]
    assert found.reasons == {f"corpus/txt/{n}.txt": "not in any source" for n in range(3)}
    assert found.skipped[["source", "format"]].values.tolist() == [["(none)", "txt"]] * 3


def test_a_single_file_brings_no_neighbours(tmp_path):
    """A path without wildcards is one file, and what lies beside it is not searched."""
    write(tmp_path, "corpus/a[1].txt", "A")
    write(tmp_path, "corpus/b.txt", "B")
    found = load(tmp_path, {"path": "corpus/a[1].txt"})
    assert (found.texts, found.skipped.empty) == (["A"], True)


def test_own_files_of_the_study(tmp_path):
    """The study's files are neither documents nor skips, whatever the globs match."""
    for name in ("study.yml", "prompt.md", "gold.csv", "corrections.csv", "policies/V0.yml"):
        write(tmp_path, name, "text\nx\n")
    write(tmp_path, "a.csv", "text\nA\n")
    found = load(tmp_path, {"path": "*.csv"})
    assert (found.texts, found.skipped.empty) == (["A"], True)


def test_hidden_and_system_files(tmp_path):
    """Hidden and system files are counted with their reason; a hidden folder is one row."""
    write(tmp_path, "corpus/a.txt", "A")
    for name in (".DS_Store", "._a.txt", "Thumbs.db", "~$a.docx", ".git/x/y.txt", ".git/z"):
        write(tmp_path, f"corpus/{name}", "x")
    found = load(tmp_path)
    assert found.texts == ["A"]
    names = [".DS_Store", "._a.txt", ".git/", "Thumbs.db", "~$a.docx"]
    assert found.reasons == {f"corpus/{name}": "hidden or system file" for name in names}


@needs_links
def test_links(tmp_path):
    """Links are followed to files inside the corpus, never out of it and never in circles."""
    write(tmp_path, "corpus/x/a.txt", "A")
    write(tmp_path, "outside/b.txt", "B")
    corpus = tmp_path / "corpus"
    (corpus / "loop").symlink_to(corpus)
    (corpus / "self").symlink_to(corpus / "self")
    (corpus / "folder").symlink_to(corpus / "x")
    (corpus / "file.txt").symlink_to(corpus / "x" / "a.txt")
    (corpus / "out.txt").symlink_to(tmp_path / "outside" / "b.txt")
    (corpus / "out").symlink_to(tmp_path / "outside")
    (corpus / "broken.txt").symlink_to(tmp_path / "nowhere")
    found = load(tmp_path)
    assert found.documents["item"].tolist() == ["s/file.txt"]
    assert found.reasons == {
        "corpus/broken.txt": "unreadable",
        "corpus/folder/": "link to a folder",
        "corpus/loop/": "symlink loop",
        "corpus/out/": "outside the corpus by link",
        "corpus/out.txt": "outside the corpus by link",
        "corpus/self": "symlink loop",
        "corpus/x/a.txt": "duplicate",
    }


@needs_links
def test_nasty_names(tmp_path):
    """Names with line breaks, bytes that are no text, or 255 bytes are read; ids escape them."""
    names = [b"new\nline.txt", b"caf\xe9.txt", b"-rf.txt", b"a" * 251 + b".txt", b"%0A.txt"]
    folder = write(tmp_path, "corpus/..x/a.txt", "A").parent.parent
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name)
    found = load(tmp_path, {"encoding": "latin-1"})
    assert found.documents["item"].tolist() == [
        "s/%250A.txt",
        "s/-rf.txt",
        f"s/{'a' * 251}.txt",
        "s/caf%E9.txt",
        "s/new%0Aline.txt",
    ]
    assert found.reasons == {"corpus/..x/": "hidden or system file"}


def test_nothing_matches(tmp_path):
    """A glob that matches nothing names itself, the folder, and what lies there by ending."""
    write(tmp_path, "corpus/x/a.txt", "A")
    write(tmp_path, "corpus/b.txt.gz", "B")
    write(tmp_path, "corpus/c.pdf", "C")
    with pytest.raises(CorpusError) as caught:
        load(tmp_path, {"path": "corpus/**/*_text.json"})
    assert str(caught.value) == (
        "source 's': nothing matches corpus/**/*_text.json. In corpus and below: 3 files "
        "(2 .txt, 1 .pdf). Correct its path in study.yml."
    )
    with pytest.raises(CorpusError, match=r"nothing matches corpus/d\.txt\. In corpus and below"):
        load(tmp_path, {"path": "corpus/d.txt"})
    with pytest.raises(CorpusError, match=r"There is no folder .*corpse"):
        load(tmp_path, {"path": "corpse/*.txt"})
    with pytest.raises(CorpusError, match=r"Write \*\* alone between slashes"):
        load(tmp_path, {"path": "corpus/**.txt"})


def test_urls(tmp_path):
    """Sources may be URLs, with the same ids, skips and neighbours as folders have."""
    memory = fsspec.filesystem("memory")
    memory.pipe(
        {"/vb/c/a.txt": b"A", "/vb/c/x/b.csv.gz": write(tmp_path, "b.gz", "text\nB\n").read_bytes()}
    )
    memory.pipe({"/vb/c/x/.hidden.txt": b"H", "/vb/c/n.pdf": b"N", "/vb/c/l.txt": b"\xff"})
    write(tmp_path, "files/f.txt", "F")
    found = load_all(
        tmp_path,
        {
            "m": {"path": "memory://vb/c/**/*.txt"},
            "one": {"path": "memory://vb/c/x/b.csv.gz"},
            "f": {"path": f"{(tmp_path / 'files').as_uri()}/*.txt"},
        },
    )
    memory.rm("/vb", recursive=True)
    assert found.documents["item"].tolist() == ["m/a.txt", "one/b.csv.gz#1", "f/f.txt"]
    assert found.texts == ["A", "B", "F"]
    assert found.reasons == {
        "memory://vb/c/l.txt": "not decodable",
        "memory://vb/c/x/.hidden.txt": "hidden or system file",
        "memory://vb/c/n.pdf": "not in any source",
    }


@pytest.mark.parametrize("path", ["memory://nowhere/*.txt", "nothing://x/*.txt"])
def test_urls_that_cannot_be_listed(tmp_path, path):
    """A URL that leads nowhere is an error, not an empty corpus."""
    with pytest.raises(CorpusError, match="source 's': "):
        load(tmp_path, {"path": path})


def test_secrets_of_urls_are_not_shown():
    """Users, passwords and signatures never reach ids, paths and messages."""
    assert find.public("s3://key:secret@bucket/*.txt") == "s3://bucket/*.txt"
    assert find.public("https://x.org/a.csv?sig=1") == "https://x.org/a.csv"


NAMES = st.text(st.sampled_from("ab%@#/019.\n\u2028\x00AF"), min_size=1, max_size=12)


@given(st.sets(NAMES, min_size=2, max_size=30))
def test_ids_of_paths_never_collide(names):
    """Different paths have different ids, and no id looks like a row or passage of another."""
    ids = {name: shapes.path_id("s", name) for name in names}
    derived = {f"{i}#{n}" for i in ids.values() for n in (1, 19)}
    derived |= {f"{i}@{n}" for i in [*ids.values(), *derived] for n in ("001", "1000")}
    assert len(set(ids.values())) == len(names)
    assert not derived & set(ids.values())
    assert len(derived) == 8 * len(names)


@given(st.sets(NAMES, min_size=2, max_size=30))
def test_ids_of_records_never_collide(names):
    """Different record ids stay different, and no id looks like a passage of another."""
    ids = {shapes.record_id("s", name) for name in names}
    assert len(ids) == len(names)
    assert not {f"{i}@{n}" for i in ids for n in ("001", "1000")} & ids


@given(st.text(st.characters(codec=None)), st.integers(1, 100))
def test_details_can_always_be_written(text, n_chars):
    """A value in a detail is one line of text that UTF-8 can hold, cut to its length."""
    shown = shapes.shortened(text, n_chars)
    assert len(shown) <= n_chars
    assert shown.encode().decode().splitlines() in ([shown], [])
