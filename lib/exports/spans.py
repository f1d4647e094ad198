"""Spans: texts with what is decided on them, for tools that show or learn it.

Decides which places of elected names are marked: of those that overlap the longest, then the one
with the highest share. A name that stands nowhere in its text has no place and is not in these
files; the tables have it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from lib import runs
from lib.entities import places
from lib.errors import VotebookError
from lib.review import panelled
from lib.runs import Run

if TYPE_CHECKING:
    from spacy.tokens import Doc

_DOCS = 1000


class Span(NamedTuple):
    """A name in a text: its place, its field, and the share that elected it."""

    start: int
    end: int
    field: str
    share: float


def found(text: str, named: pd.DataFrame) -> list[Span]:
    """The places of elected names (field, key, share) that do not overlap, in their order."""
    there = places.find(text, set(named["key"]))
    spans = [
        Span(start, end, row.field, row.share)
        for row in named.itertuples()
        for start, end in there[row.key]
    ]
    kept: list[Span] = []
    free = bytearray(len(text))
    order = sorted(spans, key=lambda one: (one.start - one.end, -one.share, one.start, one.field))
    for one in order:
        if not any(free[one.start : one.end]):
            free[one.start : one.end] = b"\1" * (one.end - one.start)
            kept.append(one)
    return sorted(kept)


def texts(run: Run) -> Iterator[tuple[str, str, list[Span]]]:
    """Every item with its text and the places of its names, in the order of the documents."""
    columns = ["item", "field", "key", "share", "elected"]
    named = pd.read_parquet(run.path("entities.parquet"), columns=columns)
    named = named[named["elected"].astype(bool)]
    of_item, none = dict(list(named.groupby("item"))), named[:0]
    for frame in runs.stream(run.path("documents.parquet"), ["item", "text"], _DOCS):
        for item, text in zip(frame["item"], frame["text"], strict=True):
            yield item, text, found(text, of_item.get(item, none))


def write_conll(run: Run, folder: Path, _: bool) -> dict[str, int]:
    """names.conll: token, start, end and B-, I- or O, apart by tabs; an empty line ends an item.

    Lines that begin with "# " and have no tab tell the run and the item. Gives the items.
    """
    n_items = 0
    with runs.replacing(folder / "names.conll") as part, part.open("wb") as file:
        simulated = _is_simulated(run)
        file.write(f"# run = {json.dumps(run.name)}, simulated = {simulated}\n\n".encode())
        for item, text, spans in texts(run):
            lines = [f"# item = {json.dumps(item, ensure_ascii=False)}"]
            lines += [
                f"{text[start:end]}\t{start}\t{end}\t{tag}" for start, end, tag in tags(text, spans)
            ]
            file.write(("\n".join(lines) + "\n\n").encode())
            n_items += 1
    return {"names.conll": n_items}


def tags(text: str, spans: list[Span]) -> Iterator[tuple[int, int, str]]:
    """Start, end and tag of every token of a text.

    >>> list(tags("Kay left.", [Span(0, 3, "people", 1.0)]))
    [(0, 3, 'B-people'), (4, 8, 'O'), (8, 9, 'O')]
    """
    rest = iter(spans)
    span = next(rest, None)
    for start, end in places.tokens(text):
        while span and span.end <= start:
            span = next(rest, None)
        inside = span is not None and span.start <= start
        tag = f"{'B' if start == span.start else 'I'}-{span.field}" if span and inside else "O"
        yield start, end, tag


def write_spacy(run: Run, folder: Path, _: bool) -> dict[str, int]:
    """names-00000.spacy and so on: DocBin files of at most 1,000 items; gives the items of each.

    `doc.user_data` has item, run and simulated. Raises VotebookError where spaCy is not installed.
    """
    try:
        import spacy
        from spacy.tokens import DocBin
    except ImportError as error:
        what = "spaCy is not installed here, and it is no part of Votebook."
        raise VotebookError(f"{what} `pip install spacy`, then run the same again.") from error
    nlp, counts, simulated = spacy.blank("xx"), {}, _is_simulated(run)
    docs: list[Doc] = []

    def flush() -> None:
        name = f"names-{len(counts):05}.spacy"
        with runs.replacing(folder / name) as part:
            part.write_bytes(DocBin(docs=docs, store_user_data=True).to_bytes())
        counts[name] = len(docs)
        docs.clear()

    for item, text, spans in texts(run):
        doc = nlp.make_doc(text)
        named = [doc.char_span(*one[:2], one.field, alignment_mode="expand") for one in spans]
        doc.set_ents(spacy.util.filter_spans([one for one in named if one is not None]))
        doc.user_data |= {"item": item, "run": run.name, "simulated": simulated}
        docs.append(doc)
        if len(docs) == _DOCS:
            flush()
    if docs or not counts:
        flush()
    return counts


def write_tasks(run: Run, folder: Path, _: bool) -> dict[str, int]:
    """tasks.json and config.xml for Label Studio: what the panel says as predictions."""
    decided, named = run.table("consensus"), run.table("entities")
    of_item = dict(list(decided.groupby("item")))
    names = dict(list(named.groupby("item")))
    told = {"run": run.name, "model_version": f"panel {run.study.panel}"}
    n_tasks = 0
    with (
        runs.replacing(folder / "tasks.json") as part,
        part.open("w", encoding="utf-8", newline="\n") as file,
    ):
        columns = ["item", "sha256", "text"]
        for frame in runs.stream(run.path("documents.parquet"), columns, _DOCS):
            mine = [of_item[item] for item in frame["item"] if item in of_item]
            ours = [names[item] for item in frame["item"] if item in names]
            tables = (
                pd.concat(mine) if mine else decided[:0],
                pd.concat(ours) if ours else named[:0],
            )
            for task in panelled.tasks(frame, *tables, run.study.fields, told):
                file.write(f"{',' if n_tasks else '['}\n{json.dumps(task, ensure_ascii=False)}")
                n_tasks += 1
        file.write("\n]\n" if n_tasks else "[]\n")
    with runs.replacing(folder / "config.xml") as part:
        part.write_text(panelled.config(run.study.fields), encoding="utf-8")
    return {"tasks.json": n_tasks, "config.xml": 0}


def _is_simulated(run: Run) -> bool:
    said = pd.read_parquet(run.path("consensus.parquet"), columns=["simulated"])
    return bool(said["simulated"].any())
