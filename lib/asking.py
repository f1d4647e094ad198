"""Asking: which requests of a run may be sent now, which wait for other answers, which are spared.

The seam between what a run holds and `decisive`. With `ask: all` everything may be sent at once.
With `ask: decisive` items of the pilot and labelled items are asked in full; when the pilot is in,
the others follow in the waves of a plan, until no vote that is left can matter. Decides from
requests and outcomes alone, so that a crash changes nothing; it withdraws nothing that was sent.
"""

import contextlib
import itertools
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow
import pyarrow.parquet

from lib import collect, decisive, estimate, gold, lengths, prompts, runs, votes, waves
from lib import study as studies
from lib.errors import StudyError
from lib.runs import Run
from lib.study import Study

# So large a part of the pilot is enough for a plan: one late answer does not hold up all others.
PILOT_SHARE = 0.9
_SLOT = ["item", "annotator", "repeat"]
_PRICED = 50  # items whose requests give the price of one, where there is no pilot
_WHY = "{} abstained"


class Due(NamedTuple):
    """What may be asked: the `rows` to send now, and all `requests` that have been due up to now.

    `later` are keys that may follow, by what others say; `spared` those that can matter no more.
    """

    rows: pd.DataFrame
    requests: pd.DataFrame
    later: frozenset[str] = frozenset()
    spared: frozenset[str] = frozenset()


def due(
    run: Run,
    requests: pd.DataFrame,
    outcomes: pd.DataFrame,
    still: pd.DataFrame,
    in_flight: Collection[str],
) -> Due:
    """Which of the requests may be asked now; `still` are the rows that `wanted` gives for all."""
    if not is_decisive(run.study):
        return Due(still, requests)
    is_finished = _finished(requests, outcomes, {*in_flight, *still["key"]})
    asked = is_finished | requests["item"].isin(items_in_full(run, requests["item"]))
    said = _said(run, requests[is_finished]) if not asked.all() else None
    plan = None if said is None else plan_of(run, requests, outcomes, is_finished, said)
    if plan is not None:
        full = items_in_full(run, requests["item"])
        finished = set(requests.loc[is_finished, "key"])
        asked = decisive.due(requests, said, finished, run.study, plan, full)
    is_due = requests["key"].isin(set(requests.loc[asked, "key"]))
    left = requests[~is_due & ~requests["key"].isin(set(in_flight))]
    under_way = requests.loc[is_due & ~is_finished, "item"] if plan else left["item"]
    later = frozenset(left.loc[left["item"].isin(set(under_way)), "key"])
    rows = still[still["key"].isin(set(requests.loc[is_due, "key"]))].reset_index(drop=True)
    return Due(rows, requests[is_due], later, frozenset(left["key"]) - later)


def is_decisive(study: Study) -> bool:
    """Whether votes may be spared; an alarm is worth nothing unless all are asked."""
    return study.voting.ask == "decisive" and study.panels[study.panel].mode == "vote"


def warn(study: Study) -> list[str]:
    """What to know about the votes that the study wants to spare, as sentences."""
    if study.voting.ask == "all":
        return []
    said = []
    if not is_decisive(study):
        said.append("voting: ask: decisive has no effect with mode: alarm: every vote is asked.")
    fields = study.fields.items()
    always = [n for n, f in fields if not (f.allowed or f.when or f.type == "entities")]
    if always or study.n_votes < 3:
        why = f"every vote on {', '.join(always)} counts" if always else "there are too few votes"
        said.append(f"voting: ask: decisive can save nothing here: {why}.")
    return said


def items_in_full(run: Run, items: pd.Series) -> set[str]:
    """The items of which every vote is asked, whatever the others say: on these alone it can be
    measured how the annotators agree, and how often each is right.

    With `ask: all` all of them, else those of the pilot and those with labels in gold.csv.
    """
    if not is_decisive(run.study):
        return set(items)
    return pilot_items(run.study, items) | (_labelled(run.study) & set(items))


def pilot_items(study: Study, items: pd.Series) -> set[str]:
    """The items of the pilot: the first ones of the random order in which samples are drawn."""
    different = items.drop_duplicates()
    return set(different[prompts.draw_order(different) <= study.voting.pilot])


def spared(run: Run) -> frozenset[str]:
    """The keys of a run's requests that need not be asked, because they can matter no more."""
    from lib import ledger, wanted

    if not is_decisive(run.study):
        return frozenset()
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        flying = ledger.in_flight(book)
    requests, outcomes = run.table("requests"), collect.outcomes(run)
    still = wanted.wanted(requests, outcomes, flying, run.study)
    return due(run, requests, outcomes, still, flying).spared


def plan_of(
    run: Run,
    requests: pd.DataFrame,
    outcomes: pd.DataFrame,
    is_finished: pd.Series,
    said: pd.DataFrame,
) -> list[waves.Wave] | None:
    """The waves in which items are asked; nothing while too little of the pilot is in."""
    pilot = pilot_items(run.study, requests["item"])
    known = pilot - set(requests.loc[~is_finished, "item"])
    if len(known) < PILOT_SHARE * len(pilot):
        return None
    usd_of = prices(run.study, requests, outcomes)
    return waves.choose(run.study, usd_of, said[said["item"].isin(known)] if pilot else None)


def prices(study: Study, requests: pd.DataFrame, outcomes: pd.DataFrame) -> dict[str, float]:
    """USD of one request of each annotator, as a mean over the pilot; answers are as long as those
    of the pilot, or as guessed.
    """
    items = requests["item"].drop_duplicates()
    drawn = items[prompts.draw_order(items) <= (study.voting.pilot or _PRICED)]
    rows = requests[requests["item"].isin(set(drawn))]
    in_pilot = rows if study.voting.pilot else rows.iloc[:0]
    measured = lengths.measure(outcomes.merge(in_pilot[["key", *_SLOT]], on="key"))
    tokens = lengths.answer_tokens(study.annotators, prompts.schema(study.fields), measured)
    priced = estimate.price_requests(rows, tokens)
    usd = priced.groupby("annotator")["units_expected"].mean() / estimate.UNITS_PER_MICRO_USD / 1e6
    return {name: float(usd[name]) for name in study.annotators}


def _finished(requests: pd.DataFrame, outcomes: pd.DataFrame, unfinished: set[str]) -> pd.Series:
    """Whether each request has its answer, or was given up for good."""
    valid = set(outcomes.loc[outcomes["outcome"].eq("valid"), "key"])
    return requests["key"].isin(valid | (set(outcomes["key"]) - unfinished))


def _labelled(study: Study) -> set[str]:
    """The items with gold labels; what is wrong with the file is for notebook 05 to say."""
    path = Path(study.folder) / "gold.csv"
    if not path.is_file():
        return set()
    with contextlib.suppress(StudyError):
        return {row["item"] for _, row in gold.rows(path, ["item"])}
    return set()


def _said(run: Run, finished: pd.DataFrame) -> pd.DataFrame:
    """The votes of the finished requests: item, field, annotator, repeat, value, abstained."""
    tables = list(_values(run))
    table = pyarrow.concat_tables(tables).to_pandas() if tables else pd.DataFrame({"key": []})
    if table["key"].duplicated().any():  # of two valid answers the first counts, as in `votes`
        table = table.sort_values(["attempt", "batch"]).drop_duplicates("key")
    rows = finished[["key", *_SLOT]].merge(table.astype({"key": "str"}), on="key", how="left")
    parts = []
    for name in run.study.fields:
        value, why = (rows.get(column) for column in (name, _WHY.format(name)))
        part = rows[_SLOT].assign(field=name, value=value, abstained=why)
        parts.append(part)
    whole = pd.concat(parts, ignore_index=True)
    is_silent = whole["value"].isna() & whole["abstained"].isna()
    return whole.assign(abstained=whole["abstained"].mask(is_silent, "no answer"))


def _values(run: Run) -> Iterator[pyarrow.Table]:
    """What the valid answers say, a table for each outcome file; kept beside them, because neither
    the files nor what they say ever change."""
    fields = studies.digest(
        {name: f.model_dump(mode="json") for name, f in run.study.fields.items()}
    )
    code = Path(votes.__file__).stat()
    for path in sorted(run.path("outcomes").glob("*.parquet")):
        kept, stat = run.path("said") / path.name, path.stat()
        state = [fields, code.st_size, code.st_mtime_ns, stat.st_size, stat.st_mtime_ns]
        of = studies.digest(state).encode()
        if (
            not kept.is_file()
            or (pyarrow.parquet.read_schema(kept).metadata or {}).get(b"of") != of
        ):
            _keep(path, kept, of, run.study)
        yield pyarrow.parquet.read_table(kept).replace_schema_metadata()


def _keep(path: Path, kept: Path, of: bytes, study: Study) -> None:
    """Write what the valid answers of an outcome file say."""
    names = [column for name in study.fields for column in (name, _WHY.format(name))]
    schema = pyarrow.schema(
        {"key": "string", "attempt": "int64", "batch": "string"} | dict.fromkeys(names, "string"),
        metadata={"of": of},
    )
    columns = ["key", "attempt", "batch", "outcome", "content"]
    with (
        runs.replacing(kept) as part,
        pyarrow.parquet.ParquetFile(path) as file,
        pyarrow.parquet.ParquetWriter(part, schema, compression="zstd") as writer,
    ):
        for some in file.iter_batches(batch_size=collect.ROWS, columns=columns):
            rows = [
                (
                    row["key"],
                    row["attempt"],
                    row["batch"],
                    *itertools.chain(*votes.said(row["content"], study)),
                )
                for row in some.to_pylist()
                if row["outcome"] == "valid"
            ]
            arrays = zip(*rows, strict=True) if rows else [()] * len(schema)
            table = dict(zip(schema.names, map(list, arrays), strict=True))
            writer.write_table(pyarrow.table(table, schema))
