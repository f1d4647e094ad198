"""What the commands about files for people and other tools do: count, sample-gold, review, export.

They speak to a terminal, and decide nothing that the library decides.
"""

import argparse
from typing import TYPE_CHECKING

from lib import words
from lib.commands import DONE, number, plain

if TYPE_CHECKING:
    import pandas as pd

    from lib.runs import Run


def sample_gold(given: argparse.Namespace) -> int:
    """Draw a random sample for people to label, or read back what they have labelled."""
    from lib import runs, yamls
    from lib.gold import labelling

    run = runs.find(given.run)
    if given.read:
        return _take_in(given.read, run)
    by = given.by and [name for names in given.by for name in names.split(",")]
    sample, n_before = labelling.draw(run, given.n, given.seed, by, given.anew)
    written = labelling.write(run, sample, given.format)
    n_open = len(labelling.unlabelled(run, sample))
    print(_drawn(len(sample), n_before, sample["seed"].iloc[0], given))
    for stratum, part in sample.groupby("stratum"):
        chance = part["probability"].iloc[0]
        print(plain(f"  {stratum}: {len(part):,} of {round(len(part) / chance):,}"))
    print(f"Labelled in gold.csv: {len(sample) - n_open:,} of them; still open: {n_open:,}.")
    for path in written:
        print(f"written: {yamls.shown(path)}")
    if n_open:
        print(f"Fill the sheets in, then: python3 votebook.py sample-gold {run.name} --read FILE")
    return DONE


def _drawn(n: int, n_before: int, seed: str, given: argparse.Namespace) -> str:
    """How many items are drawn, and how many of them were so before."""
    drawn = f"Drawn for gold: {words.n_of(n, 'item')}"
    if n > n_before or given.anew:
        kept = f", {n_before:,} of them before" if n_before else ""
        return f"{drawn}{kept}, seed {seed}."
    said = f"{drawn}, all of them before and none now, seed {seed}."
    if (given.n or n) < n:
        said += f" --n {given.n} is less than that: a sample only grows, and --anew draws another."
    return said


def _take_in(file: str, run: "Run") -> int:
    """Put the labels of a filled file into gold.csv, and say what is left."""
    from pathlib import Path

    from lib.gold import labelling

    found, fresh = labelling.take_in(run, Path(file))
    n_items = found.table["item"].nunique()
    n_places = len(found.table.drop_duplicates(["item", "field"]))
    n_fresh = len(fresh.drop_duplicates(["item", "field"]))
    print(
        f"{words.n_of(n_places, 'label')} on {words.n_of(n_items, 'item')}: "
        f"{n_fresh:,} new in gold.csv, {n_places - n_fresh:,} there already."
    )
    sample, _ = labelling.stored(run)
    if sample is not None:
        n_open = len(labelling.unlabelled(run, sample))
        print(f"Drawn items that still lack labels: {n_open:,} of {len(sample):,}.")
    if found.undrawn:
        what = f"Not drawn: {words.n_of(len(found.undrawn), 'item')}, such as {found.undrawn[0]}."
        print(plain(f"{what} Such labels count for nothing that needs a random sample."))
    return DONE


def review(given: argparse.Namespace) -> int:
    """Write the list of what people should look at first, or read back what they have filled in."""
    from pathlib import Path

    from lib import findings, runs, yamls

    run = runs.find(given.run)
    if given.read:
        return _corrected(given.read, run)
    decided, named = run.table("consensus"), run.table("entities")
    table = findings.review(run, decided, named, given.n, given.text)
    folder = Path(given.to) if given.to else run.path("review")
    if given.format == "label-studio":
        written = findings.write_tasks(run, table, decided, named, folder)
    else:
        written = [findings.write_review(run, table, folder / "review.csv")]
    _listed(table)
    for path in written:
        print(f"written: {yamls.shown(path)}")
    print(f"Fill it in, then: python3 votebook.py review {run.name} --read FILE")
    return DONE


def _listed(table: "pd.DataFrame") -> None:
    """Say how long the list is and why; fields below a condition are no part of its length."""
    is_below = table["why"].eq("condition")
    asked, n_items = table[~is_below], words.n_of(table["item"].nunique(), "item")
    print(f"{words.n_of(len(asked), 'value')} to review, of {n_items}:")
    for why, n_rows in asked["why"].str.split(", ").explode().value_counts().items():
        print(plain(f"  {why}: {n_rows:,}"))
    if n_below := int(is_below.sum()):
        rows = words.n_of(n_below, "row")
        print(f"and {rows} of fields that need a value only if their condition is true after all.")


def export(given: argparse.Namespace) -> int:
    """Write the results for other tools."""
    from pathlib import Path

    from lib import aggregate, exports, runs, yamls

    run = runs.find(given.run)
    aggregate.check_current(run)
    folder = Path(given.to).expanduser() if given.to else run.path("export")
    files = exports.write(run, folder, given.format, given.text)
    for row in files.itertuples():
        path = yamls.shown(folder / row.format / row.file)
        rows = f"{words.n_of(row.n_rows, 'row')}, " if row.n_rows else ""
        print(plain(f"written: {path} ({rows}{words.n_of(row.n_bytes, 'byte')})"))
    print("With the texts." if given.text else "No text of a document is in them (--text).")
    return DONE


def _corrected(file: str, run: "Run") -> int:
    """Put the changes of a filled review into corrections.csv, and say what was none."""
    from pathlib import Path

    from lib import findings

    found = findings.take_in(run, Path(file).expanduser())
    print(
        f"New in corrections.csv: {words.n_of(len(found.changes), 'change')}; there already: "
        f"{found.n_known:,}. Rows that confirm what was decided: {found.n_same:,}; empty ones: "
        f"{found.n_empty:,}."
    )
    if len(found.changes):
        print("Run notebooks 05 and 06 again: they apply them before the verdicts.")
    return DONE


def count(given: argparse.Namespace) -> int:
    """Count votes from anywhere, and say what the count is worth."""
    from pathlib import Path

    from lib import counts

    for line in counts.count(
        Path(given.votes),
        counts.Wanted(
            labels=counts.labels(given.labels),
            weight_of=dict(given.weights),
            quorum=given.quorum,
            per_run=given.per_run,
            numbers=given.numbers,
        ),
        Path(given.truth) if given.truth else None,
        Path(given.out) if given.out else None,
        infer=given.infer,
    ):
        print(plain(line))
    return DONE


def share(text: str) -> float:
    """A number from 0 up to, and not, 1: no more than all can answer."""
    if not (value := number(text)) < 1:
        raise ValueError(text)
    return value


def named_number(text: str) -> tuple[str, float]:
    """A name and a number, as "name=2"."""
    name, _, value = text.rpartition("=")
    if not name:
        raise ValueError(text)
    return name, number(value)
