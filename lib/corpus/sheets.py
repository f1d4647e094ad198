"""The two tables of the corpus on disk, written row group by row group, and their census.

It decides the columns and types of `documents.parquet` and `skipped.parquet`. How many documents
were found stands in the metadata of `skipped.parquet`, counted where they were read, so that
`census` can compare it with what was written.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib import runs
from lib.errors import AccountingError, CorpusError
from lib.study import Study

if TYPE_CHECKING:
    import pandas as pd

_FOUND = "votebook.found"
_KEY = ["source", "format"]
_GROUP_ROWS = 10_000
_GROUP_CHARS = 8_000_000
_CENSUS_ROWS = 50_000
_TEXT, _COUNT = pa.string(), pa.int64()
_DOCUMENTS = {
    **dict.fromkeys(("item", "document", "source", "format", "path", "group"), _TEXT),
    "date": pa.timestamp("us"),
    "text": _TEXT,
    **dict.fromkeys(("start", "end", "n_chars", "n_tokens"), _COUNT),
    "sha256": _TEXT,
    **dict.fromkeys(("n_document_chars", "n_cut_start", "n_cut_end"), _COUNT),
    **dict.fromkeys(("title", "author"), _TEXT),
}
SKIPPED = pa.schema(
    dict.fromkeys(("source", "path", "format"), _TEXT)
    | {"row": _COUNT}
    | dict.fromkeys(("document", "reason", "detail"), _TEXT)
    | {"n_bytes": _COUNT}
)


@dataclass
class Sheet:
    """A Parquet file that is being written: rows wait until they fill a row group."""

    writer: pq.ParquetWriter
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    n_chars: int = 0


def documents_schema(study: Study) -> pa.Schema:
    """The columns of `documents.parquet`: the fixed ones, then what the sources keep, as text.

    `start` and `end` count characters in the document's text as it is after cleaning, which has
    `n_document_chars` of them; `n_cut_start` and `n_cut_end` count the characters of licence cut
    off before and after it. Raises CorpusError if a source keeps a column that has another meaning.
    """
    columns = dict(_DOCUMENTS)
    for name in (name for source in study.corpus.values() for name in source.keep):
        if name in _DOCUMENTS and name not in ("title", "author"):
            what = f"keep: {name!r} is a column of documents.parquet already, with another meaning."
            raise CorpusError(f"{what} Leave it out, or rename it in the corpus.", column=name)
        columns[name] = _TEXT
    return pa.schema(columns)


@contextlib.contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Sheet]:
    """A sheet that takes the place of `path` when the block ends well."""
    with (
        runs.replacing(path) as part,
        pq.ParquetWriter(part, schema, compression="zstd") as writer,
    ):
        sheet = Sheet(writer)
        yield sheet
        _flush(sheet)


def add(sheet: Sheet, row: Mapping[str, Any]) -> None:
    """Add a row; columns that it does not have are null."""
    sheet.rows.append(row)
    sheet.n_chars += len(row.get("text", ""))
    if len(sheet.rows) >= _GROUP_ROWS or sheet.n_chars >= _GROUP_CHARS:
        _flush(sheet)


def store_found(sheet: Sheet, found: Mapping[tuple[str, str], int]) -> None:
    """Write down how many documents were found by source and format."""
    rows = [[*key, n] for key, n in found.items()]
    sheet.writer.add_key_value_metadata({_FOUND: json.dumps(rows)})


def census(folder: Path) -> "pd.DataFrame":
    """Found, used, items and skipped by reason, for each source and format, in study order.

    `n_found` was counted while reading; AccountingError if it is not used + skipped. A source
    called "(none)" holds the files that no source asks for.
    """
    import pandas as pd

    metadata = pq.read_metadata(folder / "skipped.parquet").metadata
    rows = json.loads(metadata.get(_FOUND.encode(), b"[]"))
    found = Counter({(source, kind): n for source, kind, n in rows})
    used, items = _used(folder / "documents.parquet")
    skipped: Counter[tuple[str, str, str]] = Counter()
    for frame in runs.stream(folder / "skipped.parquet", [*_KEY, "reason"], _CENSUS_ROWS):
        skipped.update(frame.groupby([*_KEY, "reason"]).size().to_dict())
    reasons = sorted({reason for *_, reason in skipped})
    table = []
    for key in dict.fromkeys([*found, *used, *(tuple(key) for *key, _ in skipped)]):
        by_reason = {reason: skipped[*key, reason] for reason in reasons}
        check(found[key], used[key], sum(by_reason.values()), ", ".join(key))
        table.append([*key, found[key], used[key], items[key], *by_reason.values()])
    return pd.DataFrame(table, columns=[*_KEY, "n_found", "n_used", "n_items", *reasons])


def check(n_found: int, n_used: int, n_skipped: int, where: str) -> None:
    """Raise AccountingError unless found = used + skipped."""
    if n_found != n_used + n_skipped:
        what = f"{where}: {n_found:,} found, but {n_used:,} used + {n_skipped:,} skipped."
        hint = "Load the corpus again; documents.parquet and skipped.parquet belong together."
        facts = {"n_found": n_found, "n_used": n_used, "n_skipped": n_skipped}
        raise AccountingError(f"{what} {hint}", **facts)


def _used(path: Path) -> tuple[Counter, Counter]:
    """Documents and items by source and format; the items of a document stand together."""
    used, items, last = Counter(), Counter(), ""
    for frame in runs.stream(path, [*_KEY, "document"], _CENSUS_ROWS):
        begins = frame["document"] != frame["document"].shift(fill_value=last)
        used.update(frame[begins].groupby(_KEY).size().to_dict())
        items.update(frame.groupby(_KEY).size().to_dict())
        last = frame["document"].iloc[-1]
    return used, items


def _flush(sheet: Sheet) -> None:
    if sheet.rows:
        sheet.writer.write_table(pa.Table.from_pylist(sheet.rows, schema=sheet.writer.schema))
    sheet.rows.clear()
    sheet.n_chars = 0
