"""Counts: what the command `count` does: votes from a file, their consensus, and what it is worth.

Gives the lines to show. How votes count is for `counting`, what they are worth for `measured`.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lib import counting, inference, runs, weights, words, yamls
from lib.counting import measured, polls
from lib.errors import StudyError

MOST_SHOWN = 10


@dataclass(frozen=True)
class Wanted:
    """How votes are to be counted: as `counting.write` has it; `numbers` is "mean" or "median"."""

    labels: counting.Labels = ()
    weight_of: Mapping[str, float] = field(default_factory=dict)
    quorum: float = 0.5
    per_run: bool = False
    numbers: str = ""


def labels(words: Sequence[str]) -> counting.Labels:
    """The labels of the command line: one list, or one for each field.

    >>> labels(["yes,no"]), labels(["mood=calm,angry", "day=1,2"])
    (['yes', 'no'], {'mood': ['calm', 'angry'], 'day': ['1', '2']})
    """
    of_field = [word.partition("=") for word in words if "=" in word]
    plain = [label for word in words if "=" not in word for label in word.split(",")]
    if of_field and plain:
        raise StudyError("labels are either one list (a,b,c) or by field (FIELD=a,b,c), not both.")
    found = {name: _listed(name, values.split(",")) for name, _, values in of_field}
    return found or _listed("", plain)


def count(
    votes: Path, wanted: Wanted, truth: Path | None = None, out: Path | None = None, *, infer: bool
) -> Iterator[str]:
    """Count and write; gives what there is to say, line by line.

    Raises StudyError for every mistake in the files, and for an `out` that is neither .parquet nor
    .csv; nothing is written then.
    """
    if out and out.suffix not in {".parquet", ".csv"}:
        raise StudyError(f"{yamls.shown(out)}: the result is written to a .parquet or .csv file.")
    what = polls.overview(votes)
    yield _overview(votes, what)
    if wanted.numbers:
        yield from _averaged(votes, wanted, truth, out)
        return
    if not wanted.labels:
        yield from _occurring(votes)
    declared = counting.declared(votes, wanted.labels)
    true = polls.truth(truth, declared) if truth else None
    with tempfile.TemporaryDirectory(prefix="vb-") as folder:
        whole = out if out and out.suffix == ".parquet" else Path(folder) / "count.parquet"
        counting.write(
            votes,
            whole,
            declared.get("", declared),
            wanted.weight_of,
            wanted.quorum,
            per_run=wanted.per_run,
        )
        yield from _stated(votes, declared, measured.statuses(whole), what)
        yield from _warnings(votes, wanted)
        yield from _agreement(votes, declared)
        items = None if infer else true["item"] if true is not None else ()
        one_each = measured.collapsed(votes, declared, items)
        yield from _worth(one_each, true)
        if true is not None or infer or (out and out != whole):
            counted = pd.read_parquet(whole)
            place = [name for name in ("item", "field") if name in counted]
            counted = counted.sort_values(place, ignore_index=True)
            if out and out != whole:
                _write(counted, out)
            yield from _accuracy(counted, one_each, true, out) if true is not None else ()
            yield from _inferred(counted, one_each, declared, true) if infer else ()
    if out:
        yield f"written: {yamls.shown(out)}"


def _listed(name: str, values: Sequence[str]) -> list[str]:
    if len(set(values)) < len(values) or "" in values:
        what = (
            f"the labels {','.join(values)!r}{f' of {name}' if name else ''} have an empty one, or"
        )
        raise StudyError(f"{what} one twice.")
    return list(values)


def _overview(votes: Path, what: Mapping[str, int]) -> str:
    runs_of = f" in {what['n_runs']:,} runs" if what["n_runs"] > what["n_voters"] else ""
    pairs = (("n_votes", "vote"), ("n_items", "item"), ("n_voters", "voter"))
    n_votes, items, voters = (words.n_of(what[name], one) for name, one in pairs)
    return f"{yamls.shown(votes)}: {n_votes} on {items} by {voters}{runs_of}."


def _occurring(votes: Path) -> Iterator[str]:
    """What was said where nobody declared labels: one that is no answer counts like the others."""
    table = polls.labels(votes).dropna(subset="label").query("label != ''")
    table = table.sort_values("n_votes", ascending=False, kind="stable")
    for name, rows in table.groupby(table.get("field", pd.Series("", table.index))):
        most = rows.head(MOST_SHOWN)
        said = [f"{row.label} ({row.n_votes:,})" for row in most.itertuples()]
        more = f" and {len(rows) - len(most):,} more" if len(rows) > len(most) else ""
        on = f" on {name}" if name else ""
        listed = f"{', '.join(said)}{more}"
        yield f"Labels said{on}, all of which count (--labels declares them): {listed}."


def _stated(
    votes: Path,
    declared: Mapping[str, Sequence[str]],
    states: Mapping[str, int],
    what: Mapping[str, int],
) -> Iterator[str]:
    """Decided, ties, no quorum; abstentions with their reasons; repeated votes."""
    decided, ties, few = (states.get(name, 0) for name in ("decided", "tie", "no_quorum"))
    yield f"{decided:,} decided, {words.n_of(ties, 'tie')}, {few:,} without quorum."
    strays = counting.strays(votes, declared)
    n_stray = int(strays["n_votes"].sum())
    if states["n_abstained"]:
        reasons = f"{n_stray:,} stray, {what['n_missing']:,} missing"
        yield f"{words.n_of(states['n_abstained'], 'abstention')}: {reasons}."
    for row in strays.head(MOST_SHOWN).itertuples():
        on = f" on {row.field}" if row.field else ""
        yield f"  stray{on}: {row.label!r}, {words.n_of(row.n_votes, 'time')}"
    if len(strays) > MOST_SHOWN:
        yield f"  and {words.n_of(len(strays) - MOST_SHOWN, 'other label')} not declared"
    if n := what["n_repeated"]:
        second = words.n_of(n, "second vote")
        yield f"{second} of the same worker on the same item: each weighs as much as the first."


def _warnings(votes: Path, wanted: Wanted) -> Iterator[str]:
    """Repeats that outvote a stronger model."""
    if wanted.per_run:
        for line in weights.outvoted(counting.panel(votes, wanted.weight_of)):
            yield f"Warning: {line}"


def _agreement(votes: Path, declared: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for row in measured.alphas(votes, declared).itertuples():
        on = f" on {row.field}" if row.field else ""
        found = f"{row.alpha:.3f} ({row.low:.3f} to {row.high:.3f})"
        value = found if pd.notna(row.alpha) else "cannot be told"
        yield f"Krippendorff's alpha {row.who}{on}: {value}, {words.n_of(row.n_items, 'item')}."


def _worth(one_each: pd.DataFrame, true: pd.DataFrame | None) -> Iterator[str]:
    found = measured.worth(one_each, true)
    if found and pd.notna(found["n_effective"]):
        yield (
            f"The {found['n_voters']} voters are worth {found['n_effective']:.2f} independent "
            f"votes (correlation of {found['basis']} {found['correlation']:.2f})."
        )
        if found["n_effective"] < 2:
            yield "Warning: that is less than two votes: more voters of this kind add little."


def _accuracy(
    counted: pd.DataFrame, one_each: pd.DataFrame, true: pd.DataFrame, out: Path | None
) -> Iterator[str]:
    """The panel and its members on truth; many members go into a file beside the result."""
    table = measured.accuracy(counted, one_each, true)
    shown = table if len(table) <= MOST_SHOWN else table.head(2)
    for row in shown.itertuples():
        found = f"{row.accuracy:.4f} ({row.low:.3f} to {row.high:.3f})"
        yield f"  {row.who}: right on {row.n_right:,} of {row.n:,}, {found}"
    if len(table) > len(shown):
        rest = table["accuracy"].iloc[1:]
        yield f"  {len(rest):,} voters; the median one is right on {rest.median():.4f}"
    n, n_ties, expected = measured.broken_ties(counted, true)
    if n_ties:
        share = f"{n_ties / n:.4f}"
        yield f"With ties ({share}) broken at random, the panel would be right on {expected:.4f}."
    yield measured.sentence(table)
    if out:
        target = out.with_suffix(".accuracy.csv")
        runs.write_csv(table, target)
        yield f"written: {yamls.shown(target)}"


def _inferred(
    counted: pd.DataFrame,
    one_each: pd.DataFrame,
    declared: Mapping[str, Sequence[str]],
    true: pd.DataFrame | None,
) -> Iterator[str]:
    yield "Truth inference beside the vote (never written as the result):"
    for row in measured.inferred(counted, one_each, declared, true).itertuples():
        right = f", right on {row.accuracy:.4f} of {row.n:,}" if true is not None else ""
        changed = f"changes {words.n_of(row.n_flips, 'decided label')}"
        steps = words.n_of(row.n_iterations, "iteration")
        still = ", and has not settled" if row.n_iterations == inference.MAX_ITERATIONS else ""
        yield f"  {row.method}: {changed} in {steps}{right}{still}"


def _averaged(votes: Path, wanted: Wanted, truth: Path | None, out: Path | None) -> Iterator[str]:
    """Numbers: their mean or median, and how far it is from the truth."""
    counted = counting.average(
        votes, wanted.numbers, wanted.weight_of, wanted.quorum, per_run=wanted.per_run
    )
    n_decided, n_abstained = counted["status"].eq("decided").sum(), counted["n_abstained"].sum()
    yield f"{n_decided:,} decided, {len(counted) - n_decided:,} without quorum."
    yield f"{words.n_of(n_abstained, 'vote')} without a number: they abstain."
    if truth:
        n, error = measured.error_of_numbers(counted, polls.truth(truth))
        yield f"Root mean square error against {words.n_of(n, 'truth')}: {error:.4g}."
    if out:
        _write(counted, out)
        yield f"written: {yamls.shown(out)}"


def _write(counted: pd.DataFrame, out: Path) -> None:
    (runs.write_csv if out.suffix == ".csv" else runs.write_table)(counted, out)
