"""Said: the votes of the answers that are in, while a run is still going on.

Keeps beside each outcome file what its valid answers say, so that no step reads them all again; the
folder can be deleted at any time. Which answer is a vote is for `votes`, and so is votes.parquet.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

from lib import collect, runs, votes
from lib import study as studies
from lib.runs import Run
from lib.study import Study

FOLDER = "said"
_SLOT = ["item", "annotator", "repeat"]
_WHY = "{} abstained"


def votes_of(run: Run, finished: pd.DataFrame) -> pd.DataFrame:
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
        kept, stat = run.path(FOLDER) / path.name, path.stat()
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
