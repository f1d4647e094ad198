"""Labelling: the files by which people label a sample of a run, in the folder of the study.

`gold_sample.csv` says what was drawn, `labelling/` has the sheets to fill in, `gold.csv` what came
back. A sheet that is there is never written again: people write in it.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lib import clock, gold, runs
from lib.errors import StudyError
from lib.fields import Field
from lib.gold import labels, labelstudio, sampling
from lib.runs import Run

FOLDER = "labelling"
CONFIG = "label_studio.xml"
USUAL = 200
_GUIDE = "# allowed"
_DECIDED = ["item", "field", "value", "status", "margin"]
_MOST_CHARS = 32_000  # a cell of a spreadsheet holds 32,767


def draw(
    run: Run, n: int | None = None, seed: str = "", by: list[str] | None = None, anew: bool = False
) -> tuple[pd.DataFrame, int]:
    """Draw a sample for gold, or make the one that is there larger; gives it and its size before.

    What is not given stays as it was (at first: 200 items, seed 1, one stratum). `anew` draws
    another one. Raises StudyError where a larger sample would not be a random one.
    """
    path = Path(run.study.folder) / sampling.FILE
    before = sampling.read(path) if path.is_file() else None
    kept = None if anew else before
    if kept is not None:
        seed = seed or kept["seed"].iloc[0]
        by = kept["by"].iloc[0].split() if by is None else by
        n = n or len(kept)
    seed, by, n = seed or sampling.SEED, by or [], n or USUAL
    sampling.check_by(by, run.study)
    documents, decided = _documents(run), run.path("consensus.parquet")
    decided = pd.read_parquet(decided, columns=_DECIDED) if decided.is_file() else None
    strata = sampling.strata(documents, decided, by)
    same = {"by": " ".join(by), "seed": seed, "frame": sampling.frame(strata)}
    strata = strata[strata.index.isin(_asked(run, documents))]
    if kept is None:
        drawn = sampling.draw(strata, n, seed)
    else:
        drawn = sampling.extend(kept, strata, same["frame"], n, seed, same["by"])
    if anew and before is not None:  # texts that have changed since stand on no sheet
        before = before.merge(documents[["item", "sha256"]], on=["item", "sha256"])
    sample = sampling.stamped(drawn, documents, before, clock.now(), **same)
    runs.write_csv(sample, path)
    return sample, 0 if before is None else int(sample["item"].isin(before["item"]).sum())


def write(run: Run, sample: pd.DataFrame, kind: str = "both") -> list[Path]:
    """Write the sheets that are not there yet, as `csv`, `label-studio` or `both`; gives the paths.

    A sheet has the items that were drawn together, in random order, without those that gold.csv
    labels already.
    """
    folder, open_items = Path(run.study.folder) / FOLDER, unlabelled(run, sample)
    items = _texts(run, open_items).set_index("item", drop=False).loc[open_items]
    items = items.assign(sheet=items["item"].map(sample.set_index("item")["sheet"]))
    written = []
    for number, part in items.groupby("sheet"):
        path = folder / f"sheet_{number}.csv"
        if kind != "label-studio" and not path.exists():
            runs.write_csv(sheet(part, run.study.fields), path)
            written.append(path)
        path = path.with_suffix(".json")
        if kind != "csv" and not path.exists():
            tasks = json.dumps(labelstudio.tasks(part), ensure_ascii=False, indent=1)
            written += _saved({path: tasks, folder / CONFIG: labelstudio.config(run.study.fields)})
    return written


def sheet(items: pd.DataFrame, fields: Mapping[str, Field]) -> pd.DataFrame:
    """A table to fill in: item, text, a column a field; its first row says what may stand there.

    It is blind: nothing of what a panel said is in it. Texts end where a spreadsheet's cell ends.
    Raises StudyError for a field that has the name of another column.
    """
    for name in {"item", *labels.BESIDE} & set(fields):
        what = f"a sheet has a column {name!r} already, so it cannot have one for that field."
        raise StudyError(f"{what} Use --format label-studio.")
    texts = items["text"].map(_fitting)
    table = pd.DataFrame({"item": items["item"], "text": texts})
    guide = {
        "item": _GUIDE,
        "text": f"Leave empty what is not labelled yet. {labels.NONE}: no names.",
    }
    guide |= {name: _guide(field) for name, field in fields.items()}
    return pd.concat([pd.DataFrame([guide]), table], ignore_index=True).fillna("")


def unlabelled(run: Run, sample: pd.DataFrame) -> list[str]:
    """The drawn items for which gold.csv leaves a field open, in their order."""
    found = _gold(run)
    values = {
        place: [value for value in rows if value]
        for place, rows in found.groupby(["item", "field"])["value"]
    }
    n_open = labels.n_open(sample["item"], values, run.study.fields)
    return [item for item, n in n_open.items() if n]


def take_in(run: Run, path: Path) -> tuple[labels.Labels, pd.DataFrame]:
    """Put the labels of a filled file into gold.csv; gives all of them, and those that are new.

    Raises StudyError, and changes nothing, when any of them cannot be used.
    """
    texts = _documents(run).set_index("item")["sha256"].to_dict()
    target = Path(run.study.folder) / "gold.csv"
    sample, _ = stored(run)
    found = labels.read(path, run.study, texts, sample)
    fresh = labels.new(found.table, _gold(run), target, run.study)
    if len(fresh):
        old = labels.as_written(target) if target.is_file() else pd.DataFrame()
        names = [*gold.COLUMNS, "who"] if fresh["who"].any() else gold.COLUMNS
        whole = pd.concat([old, fresh[names]], ignore_index=True).fillna("")
        runs.write_csv(whole, target)
    return found, fresh


def stored(run: Run) -> tuple[pd.DataFrame | None, list[str]]:
    """The sample that the study has, or None, and its items whose texts are other ones now.

    Labels on those were given to another text: they must not count.
    """
    path = Path(run.study.folder) / sampling.FILE
    if not path.is_file():
        return None, []
    drawn = sampling.read(path)
    now = drawn["item"].map(_documents(run).set_index("item")["sha256"])
    return drawn, drawn.loc[now.notna() & now.ne(drawn["sha256"]), "item"].tolist()


def _gold(run: Run) -> pd.DataFrame:
    path = Path(run.study.folder) / "gold.csv"
    if not path.is_file():
        return pd.DataFrame(columns=[*gold.COLUMNS, "line"])
    return gold.read(path, run.study, frozenset(_documents(run)["item"]))


def _documents(run: Run) -> pd.DataFrame:
    """The items of a run, without their texts."""
    names, path = ["item", "source", "group", "sha256"], run.path("documents.parquet")
    return pd.read_parquet(path, columns=names) if path.is_file() else run.table("documents")


def _asked(run: Run, documents: pd.DataFrame) -> set[str]:
    """The items that the run asks about; all of them before notebook 02."""
    path = run.path("requests.parquet")
    return set(
        pd.read_parquet(path, columns=["item"])["item"] if path.is_file() else documents["item"]
    )


def _texts(run: Run, items: list[str]) -> pd.DataFrame:
    wanted, names = set(items), ["item", "sha256", "text"]
    frames = runs.stream(run.path("documents.parquet"), names)
    return pd.concat([frame[frame["item"].isin(wanted)] for frame in frames], ignore_index=True)


def _saved(texts: dict[Path, str]) -> list[Path]:
    for path, text in texts.items():
        with runs.replacing(path) as part:
            part.write_text(text, encoding="utf-8")
    return list(texts)


def _guide(field: Field) -> str:
    bounds = {"at least": field.minimum, "at most": field.maximum}
    bounded = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
    kinds = {"entities": f"one name a line, or {labels.NONE}", "text": "any text"}
    words = " | ".join(field.allowed) or kinds.get(field.type) or ", ".join([field.type, *bounded])
    return f"if {field.when}: {words}" if field.when else words


def _fitting(text: str) -> str:
    left = len(text) - _MOST_CHARS
    return text if left <= 0 else f"{text[:_MOST_CHARS]} [cut: {left:,} more characters]"
