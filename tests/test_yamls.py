"""Files that people write: values with their lines, and messages that name the place."""

import datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import errors, yamls


def written(folder: Path, text: str | bytes) -> Path:
    """A study file with this text."""
    path = folder / "study.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


STUDY = """\
# a comment
name: allergy
panels:
  current:
    annotators:
      - model: gpt-6.1-terra
        weight: 2
      - model: gpt-6-luna
tiers: {1: 5, 2: 20}
as_of: 2026-11-22
"""


@pytest.mark.parametrize("opener", ["[", "{a: ", "- ", "? "])
def test_values_that_nest_without_end_are_refused(tmp_path, opener):
    """Fifty thousand levels are a mistake with a name, and not the end of the process."""
    with pytest.raises(errors.StudyError):
        yamls.read(written(tmp_path, opener * 50_000))


def test_a_tab_between_words_is_refused(tmp_path):
    """Nobody sees it, and it would make another word of it."""
    with pytest.raises(errors.StudyError, match="line 1"):
        yamls.read(written(tmp_path, "cues: [rash, cra\tmps]"))


def test_values_and_lines(tmp_path):
    """Every value comes with the line of its key, and list items with the line of their start."""
    data, lines = yamls.read(written(tmp_path, STUDY))
    assert data["panels"]["current"]["annotators"][1] == {"model": "gpt-6-luna"}
    assert data["as_of"] == datetime.date(2026, 11, 22)
    assert lines[("name",)] == 2
    assert lines[("panels", "current", "annotators", 0)] == 6
    assert lines[("panels", "current", "annotators", 0, "weight")] == 7
    assert lines[("panels", "current", "annotators", 1, "model")] == 8
    assert lines[("tiers", 2)] == 9
    assert lines[()] == 2


def test_missing_value_has_the_line_around_it(tmp_path):
    """A member that is not there is reported where its parent stands."""
    _, lines = yamls.read(written(tmp_path, STUDY))
    assert yamls.line_of(lines, "panels", "current", "annotators", 1, "weight") == 8
    assert yamls.line_of(lines, "nothing") == lines[()]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, '"a" stands twice, first on line 1'),
        ("p:\n  x: 1\n  x: 1\n", 3, '"x" stands twice, first on line 2'),
        ("a: &one 1\nb: *one\n", 2, "aliases"),
        ("a: &a [*a]\n", 1, "aliases"),
        ("a: !!python/object/apply:os.system [id]\n", 1, "tag"),
        ("a: !!python/name:os.system ''\n", 1, "could not determine a constructor"),
        ("a: !!set {x}\n", 1, "tag"),
        ("? [a, b]\n: 1\n", 1, "a key must be a word or a number"),
        ("a: 1\n\tb: 2\n", 2, "Indent with spaces"),
        ("a: [1, 2\nb: 3\n", 2, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
        ("a: " + 3000 * "[" + 3000 * "]", 1, "nested too deeply"),
        ("a: 1\n".encode("utf-16"), 1, "not UTF-8 text but UTF-16"),
        (b"PK\x03\x04 and so on", 1, "a workbook and no text"),
        ("a: 1\nb: 2026-02-30\n", 2, '"2026-02-30" is not valid'),
        ("a: 1\nb: \x00\n", 2, "not allowed in YAML"),
        (b"a: 1\nb: caf\xe9\n", 2, "not UTF-8"),
    ],
)
def test_refused_files(tmp_path, text, line, words):
    """What cannot be read as it seems is refused with file and line."""
    path = written(tmp_path, text)
    with pytest.raises(errors.StudyError) as caught:
        yamls.read(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{caught.value.file}, line {line}: ")
    assert caught.value.line == line
    assert caught.value.file == path.resolve().as_posix()


def test_missing_file_and_folder(tmp_path):
    """A path without a file and a folder are named in the message."""
    with pytest.raises(errors.StudyError, match="there is no such file"):
        yamls.read(tmp_path / "none.yml")
    with pytest.raises(errors.StudyError, match="cannot be read"):
        yamls.read(tmp_path)


def test_empty_file_and_byte_order_mark(tmp_path):
    """An empty file gives None, and a byte order mark is not part of the first key."""
    assert yamls.read(written(tmp_path, "# nothing\n")) == (None, {(): 1})
    assert yamls.read(written(tmp_path, b"\xef\xbb\xbfa: 1\n"))[0] == {"a": 1}


def test_paths_are_shown_relative(tmp_path, monkeypatch):
    """Below the current folder or the workspace a path is shown from there on."""
    monkeypatch.chdir(tmp_path)
    assert str(yamls.problem(tmp_path / "s.yml", None, "odd.")) == "s.yml: odd."
    assert yamls.shown(yamls.WORKSPACE / "data" / "models.yml") == "data/models.yml"


def test_nearest():
    """Small slips are suggested whatever their case, strange words are not."""
    assert yamls.nearest("GPT-6-Lunar", ["gpt-6-luna", "gpt-6-sol"]) == (
        ' Did you mean "gpt-6-luna"?'
    )
    assert yamls.nearest("weight", []) == ""
    assert yamls.nearest(3, ["three"]) == ""


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=12,
)


@settings(max_examples=50)
@given(PLAIN)
def test_reads_as_yaml_does(tmp_path_factory, value):
    """Whatever is accepted has the values that YAML's own safe loader gives."""
    path = tmp_path_factory.mktemp("any") / "any.yml"
    path.write_bytes(yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass"))
    expected = yaml.safe_load(path.read_bytes())
    if "&id" not in path.read_text(encoding="utf-8"):
        assert yamls.read(path)[0] == expected
