"""Aggregate: the road from the votes of a run to its consensus, its names and their index.

Decides nothing: it says in which order the others do. Items are taken a range at a time, so that
memory does not grow with the corpus; no result of an item depends on another item.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow
import pyarrow.compute

from lib import alarm, consensus, corrections, entities, ranges, runs, savings, words
from lib.errors import StudyError
from lib.ranges import Rows
from lib.runs import Run
from lib.study import Study

N_VOTES = 2_000_000  # that are counted at a time


class Results(NamedTuple):
    """What is decided on some items: a value for each field, and every name that a vote gives."""

    values: pd.DataFrame
    names: pd.DataFrame


def count(votes: Rows, mentions: Rows, documents: Path, study: Study) -> Results:
    """What the votes say on these items, before people correct anything.

    Names are elected, then settled where they overlap in the texts; the names that stay are the
    value of their list. Alarms are counted on what the votes elected and decided.
    """
    names = alarm.raised_names(votes, entities.elect(mentions, votes, study), study)
    names = entities.settle(names, documents, study)
    values = alarm.raised(votes, consensus.decide(votes, study), study)
    return Results(entities.listed(values, names), names)


def counted(run: Run, items: Collection[str]) -> Results:
    """What the votes say on some items of the run, before people correct anything."""
    votes, mentions = (on_items(run, name, items) for name in ("votes", "mentions"))
    return count(votes, mentions, run.path("documents.parquet"), run.study)


def on_items(run: Run, name: str, items: Collection[str]) -> pd.DataFrame:
    """The rows of the table `name` of the run that are of these items."""
    wanted = pyarrow.compute.field("item").isin(pyarrow.array(list(items), pyarrow.string()))
    return pd.read_parquet(run.path(f"{name}.parquet"), filters=wanted)


def changes(run: Run) -> pd.DataFrame:
    """The study's corrections, checked against the run's texts; none where there is no file."""
    path = Path(run.study.folder) / "corrections.csv"
    return (
        corrections.read(path, run.study, texts(run)) if path.is_file() else corrections.table([])
    )


def texts(run: Run) -> dict[str, str]:
    """The SHA-256 of the text of each item."""
    known = run.table("documents", ["item", "sha256"])
    return dict(zip(known["item"], known["sha256"], strict=True))


def check(run: Run, made: pd.DataFrame) -> None:
    """Raise StudyError, with every mistake, unless these corrections fit what the votes say."""
    if len(made):
        corrections.apply(counted(run, made["item"].unique()).values, made, run.study)


def check_current(run: Run) -> None:
    """Raise StudyError where consensus.parquet was written with other corrections than there are.

    Nothing is checked where the study's folder is not on this machine.
    """
    if not Path(run.study.folder).is_dir():
        return
    table, made = run.table("consensus", ["item", "field", "value", "corrected"]), changes(run)
    wanted = _by_place(made[made["item"].isin(table["item"])], "corrected")
    there = _by_place(table[table["corrected"]], "value")
    # What a corrected condition leaves without a value has no correction of its own.
    below = {(item, name) for item, name in there if (item, run.study.fields[name].when) in wanted}
    n_other = sum(there.get(place) != value for place, value in wanted.items())
    n_other += len(there.keys() - wanted.keys() - below)
    if n_other:
        what = f"corrections.csv has changed since notebook 05 ran: {words.n_of(n_other, 'value')}"
        raise StudyError(f"{what} in consensus.parquet would be other. Run notebook 05 again.")


def correct(run: Run, said: Results, votes: Rows, made: pd.DataFrame) -> Results:
    """What the votes say with these corrections, flagged, and with the votes that were spared."""
    values = corrections.apply(said.values, made, run.study)
    names = corrections.apply_to_names(said.names, values, made, run.study)
    return Results(savings.marked(run, values, votes), names)


def write(run: Run, n_votes: int = N_VOTES) -> None:
    """Write consensus.parquet and entities.parquet, in the order of items, a range at a time.

    The study's corrections are checked before anything is counted; raises StudyError.
    """
    made, documents = changes(run), run.path("documents.parquet")
    check(run, made)
    paths = [run.path(f"{name}.parquet") for name in ("consensus", "entities")]
    with runs.appending(paths[0]) as add_values, runs.appending(paths[1]) as add_names:
        for votes in ranges.of(run.path("votes.parquet"), n_votes):
            mentions = votes._replace(path=run.path("mentions.parquet"))
            said = count(votes, mentions, documents, run.study)
            done = correct(run, said, votes, made)
            add_values(done.values)
            add_names(done.names)


def before_corrections(run: Run, columns: Collection[str] | None = None) -> pd.DataFrame:
    """The consensus as if people had corrected nothing, or some columns of it.

    It is read, and counted again for the items that people corrected.
    """
    wanted = None if columns is None else [*dict.fromkeys([*columns, "item", "corrected"])]
    table = run.table("consensus", wanted)
    is_touched = table["item"].isin(table.loc[table["corrected"], "item"])
    if is_touched.any():
        again = counted(run, table.loc[is_touched, "item"].unique()).values
        own = [name for name in again if name in table]
        table.loc[is_touched, own] = again[own].set_axis(table.index[is_touched])
    return table[list(columns)] if columns else table.drop(columns="corrected")


def write_places(run: Run) -> int:
    """Write places.parquet, where each elected name stands; gives the number of places."""
    names = run.table("entities", ["item", "field", "key", "elected"])
    return entities.contexts(names, run.path("documents.parquet"), run.path("places.parquet"))


def write_index(run: Run) -> pd.DataFrame:
    """Write index.parquet, the elected names over the corpus, and give it."""
    names, documents = run.table("entities"), run.table("documents", ["item", "document"])
    index = corrections.flagged(entities.merge(names, documents, run.study), names)
    runs.write_table(index, run.path("index.parquet"))
    return index


def _by_place(table: pd.DataFrame, column: str) -> dict[tuple[str, str], str]:
    places = zip(table["item"], table["field"], strict=True)
    return dict(zip(places, table[column], strict=True))
