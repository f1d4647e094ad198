"""Small corpora for the tests of loading: a study in a folder, its documents and its skips."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib import corpus
from lib.study import Annotator, Field, Items, Panel, Source, Study


@dataclass(frozen=True)
class Result:
    """Both tables of a loaded corpus."""

    documents: pd.DataFrame
    skipped: pd.DataFrame
    folder: Path

    @property
    def texts(self) -> list[str]:
        """The texts of all items in order."""
        return self.documents["text"].tolist()

    @property
    def reasons(self) -> dict[str, str]:
        """Reason by path, with the row where there is one."""
        rows = self.skipped.itertuples()
        places = {r.path if pd.isna(r.row) else f"{r.path}#{int(r.row)}": r.reason for r in rows}
        assert len(places) == len(self.skipped)
        return places

    def detail(self, reason: str) -> str:
        """The detail of the one skip with this reason."""
        (detail,) = self.skipped.loc[self.skipped["reason"] == reason, "detail"]
        return detail


def study(folder: Path, sources: dict[str, dict], **items: object) -> Study:
    """A study in `folder` with these sources, otherwise as small as it can be."""
    panel = Panel(annotators={"a": Annotator(model="gpt-6-luna")})
    return Study(
        name="test",
        title="Test",
        question="?",
        corpus={name: Source(**source) for name, source in sources.items()},
        items=Items(**items),
        fields={"f": Field(description="?", type="boolean")},
        panel="p",
        panels={"p": panel},
        prompt="{fields}",
        folder=str(folder),
    )


def write(folder: Path, name: str, content: str | bytes) -> Path:
    """A file of the corpus; packed if its name ends in .gz."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    return path


def load(folder: Path, source: dict | None = None, **items: object) -> Result:
    """Load `corpus/**/*` below `folder`, or the source given; the census must close."""
    return load_all(folder, {"s": {"path": "corpus/**/*", **(source or {})}}, **items)


def load_all(folder: Path, sources: dict[str, dict], **items: object) -> Result:
    """Load several sources."""
    out = folder / "out"
    loaded = corpus.load(study(folder, sources, **items), out)
    census = corpus.census(out)
    assert census["n_found"].sum() == loaded.n_found == loaded.n_documents + loaded.n_skipped
    tables = (pd.read_parquet(out / f"{name}.parquet") for name in ("documents", "skipped"))
    return Result(*tables, out)
