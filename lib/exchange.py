"""What the commands about files for people and other tools do: count, sample-gold, review, export.

They speak to a terminal, and decide nothing that the library decides.
"""

import argparse
from typing import TYPE_CHECKING

from lib.commands import DONE, plain

if TYPE_CHECKING:
    from lib.runs import Run


def sample_gold(given: argparse.Namespace) -> int:
    """Draw a random sample for people to label, or read back what they have labelled."""
    from lib import labelling, runs, yamls

    run = runs.find(given.run)
    if given.read:
        return _take_in(given.read, run)
    by = given.by and [word for words in given.by for word in words.split(",")]
    sample, n_before = labelling.draw(run, given.n, given.seed, by, given.anew)
    written = labelling.write(run, sample, given.format)
    n_open = len(labelling.unlabelled(run, sample))
    kept = f", {n_before:,} of them before" if n_before else ""
    print(f"{len(sample):,} items are drawn for gold{kept}, seed {sample['seed'].iloc[0]}.")
    for stratum, part in sample.groupby("stratum"):
        chance = part["probability"].iloc[0]
        print(plain(f"  {stratum}: {len(part):,} of {round(len(part) / chance):,}"))
    print(f"{len(sample) - n_open:,} of them are labelled in gold.csv, {n_open:,} are open.")
    for path in written:
        print(f"written: {yamls.shown(path)}")
    if n_open:
        print(f"Fill the sheets in, then: python3 votebook.py sample-gold {run.name} --read FILE")
    return DONE


def _take_in(file: str, run: "Run") -> int:
    """Put the labels of a filled file into gold.csv, and say what is left."""
    from pathlib import Path

    from lib import labelling

    found, fresh = labelling.take_in(run, Path(file))
    n_places = len(found.table.drop_duplicates(["item", "field"]))
    n_fresh = len(fresh.drop_duplicates(["item", "field"]))
    print(
        f"{n_places:,} labels on {found.n_items:,} items: {n_fresh:,} are new in gold.csv, "
        f"{n_places - n_fresh:,} stood there already, {found.n_empty:,} cells are empty."
    )
    if found.undrawn:
        what = f"{len(found.undrawn):,} items were not drawn, such as {found.undrawn[0]}:"
        print(plain(f"{what} they count for nothing that needs a random sample."))
    return DONE
