"""The documents say what is there: notebooks, commands, layers, and every column of every file."""

import argparse
import contextlib
import re
import sqlite3

import pyarrow.parquet
import pyarrow.types
import pytest
import test_layers
import yaml

import lib
from lib import __main__ as command
from lib import commands, ledger, pipeline, runs

README = (runs.ROOT / "README.md").read_text(encoding="utf-8")
CODEBOOK = (runs.ROOT / "CODEBOOK.md").read_text(encoding="utf-8")
TYPES = {
    "text": (pyarrow.types.is_string, pyarrow.types.is_large_string),
    "JSON": (pyarrow.types.is_string, pyarrow.types.is_large_string),
    "whole": (pyarrow.types.is_integer,),
    "number": (pyarrow.types.is_floating,),
    "true/false": (pyarrow.types.is_boolean,),
    "time": (pyarrow.types.is_timestamp,),
}
UNITS = {"_usd": "USD", "_tokens": "tokens", "_bytes": "bytes", "hours_": "hours"}
FILES = [*(f"{name}.parquet" for name in runs.MADE_IN), "outcomes/*.parquet"]


def section(title):
    """The rows of the table below a heading of the codebook: name -> (type, unit, meaning)."""
    body = re.split(rf"^#+ {re.escape(title)}$", CODEBOOK, flags=re.MULTILINE)[1]
    body = re.split(r"^#", body, flags=re.MULTILINE)[0]
    rows = [line.strip("|").split("|") for line in body.splitlines() if line.startswith("| `")]
    assert all(len(row) == 4 for row in rows), title
    return {row[0].strip(" `"): tuple(cell.strip() for cell in row[1:]) for row in rows}


def picture(text):
    """The layers of a picture: name -> modules; a line without a name goes on."""
    found, layer = {}, ""
    for line in text.splitlines():
        first, *rest = line.split()
        layer, words = (layer, [first, *rest]) if line.startswith(" ") else (first, rest)
        found.setdefault(layer, []).extend(words)
    return found


def layers_in(text):
    """The five layers of the picture in a text that also has other lines."""
    block = re.search(r"^ *top  .*?(?=^ *apart )", text, re.MULTILINE | re.DOTALL)[0]
    margin = len(block) - len(block.lstrip(" "))
    return picture("\n".join(line[margin:] for line in block.splitlines() if line.strip()))


def test_every_notebook_is_in_the_readme():
    """With its question as the notebook asks it, or nearly, and in its order."""
    rows = re.findall(r"^\| `(\d\d_\w+)` \|", README, re.MULTILINE)
    assert rows == [path.stem for path in pipeline.notebooks()]


def test_every_file_of_a_run_is_in_the_readme(whole_run):
    """What the notebooks leave stands in their rows."""
    for path in whole_run.run.folder.iterdir():
        if path.suffix in (".parquet", ".csv", ".yml", ".sqlite"):
            assert f"`{path.name}`" in README, path.name


def test_every_command_is_in_the_readme():
    """Each command of `--help`, with each of its options and arguments that people may use."""
    parser = command._parser()
    subs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    rows = re.findall(r"^\| `([\w-]+)", README, re.MULTILINE)
    assert set(subs.choices) <= set(rows)
    for name, sub in subs.choices.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}"))
        options = [a for a in sub._actions if a.dest not in ("help", "study", "rest")]
        for option in (a for a in options if a.help != argparse.SUPPRESS):
            words = option.option_strings or [option.metavar or "|".join(option.choices)]
            assert any(word in row.replace("\\|", "|") for word in words), f"{name} {option.dest}"


def test_every_exit_code_is_in_the_readme():
    """0, 2, 3 and 75 with what they mean."""
    said = README[README.index("Exit codes:") :].split("\n")[0]
    for code in (*commands.CODES.values(), commands.BUSY):
        assert re.search(rf"\b{code} ", said)


def test_the_layers_are_one_picture():
    """README, the docstring of `lib` and the tested layers name the same modules."""
    drawn = layers_in(lib.__doc__)
    assert layers_in(README) == drawn
    there = {name.split("/")[0] for name in test_layers.MODULES}
    tested = {
        layer: {name for name in names if name and name.strip("/") in there}
        for layer, names in test_layers.LAYERS.items()
    }
    assert {layer: set(names) for layer, names in drawn.items()} == tested


def test_links_of_the_documents_lead_somewhere():
    """Files that the documents name are there."""
    for text in (README, CODEBOOK):
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (runs.ROOT / target).exists(), target


@pytest.mark.parametrize("name", FILES)
def test_every_column_is_in_the_codebook(name, whole_run):
    """No more and no fewer, of the type that is said; a column without any value has no type."""
    told = section(name)
    for path in sorted(whole_run.run.folder.glob(name)):
        schema = pyarrow.parquet.read_schema(path)
        assert set(schema.names) == set(told)
        for field in schema:
            fits = TYPES[told[field.name][0]]
            assert pyarrow.types.is_null(field.type) or any(fit(field.type) for fit in fits), field


@pytest.mark.parametrize("name", ["prevalence.csv", "review.csv", "unanswered.csv"])
def test_every_column_of_a_csv_is_in_the_codebook(whole_run, name):
    """In its order."""
    header = whole_run.run.path(name).read_text(encoding="utf-8-sig").splitlines()[0]
    assert header.split(",") == list(section(name))


def test_every_column_of_the_ledger_is_in_the_codebook(whole_run):
    """Each table has a section, and each section a table."""
    with contextlib.closing(sqlite3.connect(whole_run.run.path("ledger.sqlite"))) as book:
        names = [
            row[0] for row in book.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        for name in names:
            columns = [row[1] for row in book.execute(f"PRAGMA table_info({name})")]
            assert columns == list(section(name)), name
    assert set(names) == set(re.findall(r"^### (\w+)$", CODEBOOK, re.MULTILINE))


def test_every_state_and_outcome_is_in_the_codebook():
    """States of shards, and reasons that a reader will meet."""
    for state in (*ledger.OPEN_STATES, "collected", "released"):
        assert state in section("shards")["state"][2]
    outcomes = "valid empty truncated refused malformed invalid failed missing expired cancelled"
    for outcome in outcomes.split():
        assert outcome in section("outcomes/*.parquet")["outcome"][2]


def test_every_entry_of_the_lock_is_in_the_codebook(whole_run):
    """The digests and the parts of the study."""
    text = whole_run.run.path("study.lock.yml").read_text(encoding="utf-8")
    entries = [f"{top}.{name}" for top, below in yaml.safe_load(text).items() for name in below]
    assert entries == list(section("study.lock.yml"))


def test_units_are_those_of_the_names():
    """A column that ends in a unit has that unit; nothing is called cost."""
    titles = [*FILES, "prevalence.csv", "review.csv", "unanswered.csv", "shards", "limits"]
    for title in titles:
        for name, (kind, unit, meaning) in section(title).items():
            for ending, word in UNITS.items():
                assert unit == word or not (name.endswith(ending) or name.startswith(ending)), name
            assert not name.endswith("_at") or kind == "time"
            assert not name.startswith("n_") or kind == "whole"
            assert "cost" not in name
            assert meaning
