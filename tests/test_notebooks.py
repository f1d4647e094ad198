"""The source notebooks: their form, and the guard against references that were never run.

nbval executes them all in the same session and compares the cells under "Bottom line"; it numbers
code cells from 0 in its messages.
"""

import re
from pathlib import Path

import nbformat
import pytest

from lib import pipeline, runs

SOURCES = pipeline.notebooks()
MAX_LINES = 15


def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    """The cells of one kind."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def tags(cell: nbformat.NotebookNode) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def test_there_are_six_in_order():
    """The road has seven notebooks, numbered from 01 to 07."""
    assert [path.name[:2] for path in SOURCES] == ["01", "02", "03", "04", "05", "06", "07"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_it_was_run_from_top_to_bottom(path):
    """Execution counts are 1 to n: nbval compares nothing in a notebook that was never run."""
    counts = [cell.execution_count for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_outputs_stand_in_check_cells_alone(path):
    """A check cell has both tags and its output; no other cell keeps any."""
    for cell in cells(path, "code"):
        is_check = "nbval-check-output" in tags(cell)
        assert is_check == ("keep_output" in tags(cell)) == bool(cell.outputs), cell.source


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_it_states_what_it_does(path):
    """It opens with a title, a question and the table of what it reads, writes and spends."""
    first = cells(path, "markdown")[0].source
    assert re.match(r"# \d\d [A-Z]\w+ \w+\n", first)
    assert all(f"| {row} |" in first for row in ("Reads", "Writes", "Spends", "Re-run"))
    assert "?" in first


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_it_ends_with_bottom_line_and_next(path):
    """The last heading is the bottom line, a check cell follows, then where to go."""
    kinds = nbformat.read(path, as_version=4).cells[-3:]
    assert kinds[0].source == "## Bottom line"
    assert "bottom-line" in tags(kinds[1])
    assert kinds[2].cell_type == "markdown"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_parameters_are_typed_and_explained(path):
    """One parameters cell, each line with name, type, default and help; never a boolean."""
    tagged = [cell for cell in cells(path, "code") if "parameters" in tags(cell)]
    assert len(tagged) == 1
    for line in tagged[0].source.splitlines():
        assert re.fullmatch(r"\w+: (str|int|float) = [^#]+  # \S.*", line), line


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_it_holds_no_logic_and_no_leftovers(path):
    """Short cells without definitions, raw markup, shell calls, or traces of an execution."""
    source = path.read_text(encoding="utf-8")
    assert "injected-parameters" not in source
    assert '"papermill"' not in source
    assert str(runs.ROOT) not in source
    for cell in cells(path, "code"):
        assert len(cell.source.splitlines()) <= MAX_LINES, cell.source
        forbidden = r"^\s*(def|class|try|%|!)\b|HTML\(|Markdown\(|escape=False|sys\.path|environ"
        assert not re.search(forbidden, cell.source, re.MULTILINE), cell.source


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_document_text_is_private(path):
    """At most one cell shows document text, and the report leaves it out."""
    showing = [cell for cell in cells(path, "code") if '"text"]]' in cell.source]
    assert len(showing) <= 1
    assert all("private" in tags(cell) for cell in showing)
