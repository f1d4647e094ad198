"""Pieces of what people write: strict types, and complaints that name the place."""

from pathlib import Path

import pydantic
import pytest

from lib import parts, yamls
from lib.errors import StudyError
from lib.parts import Part

PATH = Path("form.yml")


class Leaf(Part):
    """A piece inside of others."""

    text: str = ""
    size: float = 1.0
    open: bool = False


class Tree(Part):
    """A piece that holds others in every way that is used."""

    name: str
    leaf: Leaf | None = None
    leaves: list[Leaf] = []
    named: dict[str, Leaf] = {}
    free: dict[str, str | int | float | bool] = {}


def read(tmp_path, text):
    """A Tree from YAML text."""
    path = tmp_path / "form.yml"
    path.write_text(text, encoding="utf-8")
    data, lines = yamls.read(path)
    return parts.parse(Tree, data, path, lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("leaf: {}", "line 1: 'name' is missing."),
        (
            "nam: x",
            "line 1: unknown entry 'nam'. Did you mean \"name\"? "
            "Known: free, leaf, leaves, name, named.",
        ),
        (
            "name: x\nlaef: 1",
            "line 2: unknown entry 'laef'. Did you mean \"leaf\"? "
            "Known: free, leaf, leaves, name, named.",
        ),
        (
            "name: x\nleaf: {sise: 1}",
            "line 2: unknown entry 'sise' in leaf. Did you mean \"size\"? Known: open, size, text.",
        ),
        (
            "name: x\nleaves:\n  - {}\n  - {txt: a}",
            "line 4: unknown entry 'txt' in 1 in leaves. "
            'Did you mean "text"? Known: open, size, text.',
        ),
        (
            "name: x\nnamed:\n  leaf:\n    txt: a",
            "line 4: unknown entry 'txt' in leaf in named. "
            'Did you mean "text"? Known: open, size, text.',
        ),
        ("name: yes", "line 1: 'name' is the truth value true; write the word \"true\" in quotes."),
        ("name: 7", "line 1: 'name' is the number 7; write \"7\" in quotes."),
        (
            "name: 2026-01-02",
            "line 1: 'name' is the date 2026-01-02; write \"2026-01-02\" in quotes.",
        ),
        ("name:", "line 1: 'name' is empty: write something there or remove it."),
        ("name: [a]", "line 1: 'name' is ['a']: input should be a valid string."),
        (
            "name: x\nfree:\n  depth: [1]",
            "line 3: 'depth' in free is [1]: input should be a valid string.",
        ),
        ("name: x\nnamed: {1: {}}", 'line 2: 1 in named is the number 1; write "1" in quotes.'),
        (
            "name: x\nleaf: {size: true}",
            "line 2: 'size' in leaf is True: input should be a valid number.",
        ),
        (
            "name: x\nleaf: {open: 1}",
            "line 2: 'open' in leaf is 1: input should be a valid boolean.",
        ),
        (
            "name: x\nleaf: {on: 1}",
            'line 2: True in leaf is the truth value true; write the word "true" in quotes.',
        ),
        (
            "name: x\n7: 1",
            'line 2: 7 is the number 7; write "7" in quotes.',
        ),
        ("- a", "line 1: 'Tree' is ['a']: input should be a valid dictionary or instance of tree."),
    ],
)
def test_complaints(tmp_path, text, message):
    """Each says the line, the entry with all that is around it, and what to write."""
    with pytest.raises(StudyError) as caught:
        read(tmp_path, text)
    assert str(caught.value) == f"{yamls.shown(tmp_path / 'form.yml')}, {message}"


def test_without_lines():
    """A file whose lines nobody wrote is named without one."""
    with pytest.raises(StudyError) as caught:
        parts.parse(Tree, {"name": 3}, PATH, {})
    assert str(caught.value).endswith("form.yml: 'name' is the number 3; write \"3\" in quotes.")
    assert caught.value.line is None


def test_long_values_are_cut():
    """A whole table in the wrong place does not fill the screen."""
    with pytest.raises(StudyError) as caught:
        parts.parse(Tree, {"name": ["word"] * 1000}, PATH, {})
    assert len(str(caught.value)) < 200


def test_parts_never_change(tmp_path):
    """A piece that was read stays as it is."""
    tree = read(tmp_path, "name: x\nleaf: {size: 2}")
    assert tree.leaf.size == 2.0
    with pytest.raises(pydantic.ValidationError):
        tree.name = "y"
