"""Hugging Face: a data set folder that `datasets.load_dataset` reads as it stands.

Decides the card: its head names the subsets with their files and columns, its body says what made
the labels and what they cannot be used for.
"""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import yaml

from lib import runs, study
from lib.exports import tables
from lib.runs import Run


def write(run: Run, folder: Path, text: bool) -> dict[str, int]:
    """README.md and data/*.parquet; gives the rows of each file.

    The subsets are labels (the default), and consensus and entities where they have rows (an empty
    split is an error to `datasets`); each has one split, train: what to hold out is for whoever
    trains.
    """
    batches = {"labels": tables.labels(run, text)}
    for name in tables.LONG:
        if pyarrow.parquet.read_metadata(run.path(f"{name}.parquet")).num_rows:
            batches[name] = tables.long(run, name)
    counts, configs, infos = {}, [], []
    for name, found in batches.items():
        file = f"data/{name}-00000-of-00001.parquet"
        counts[file] = tables.stream(found, folder / file)
        files = [{"split": "train", "path": f"data/{name}-*.parquet"}]
        default = {"default": True} if name == "labels" else {}
        configs.append({"config_name": name, "data_files": files, **default})
        schema = pyarrow.parquet.read_schema(folder / file)
        infos.append({"config_name": name, "features": [_feature(one) for one in schema]})
    simulated = any(_any_simulated(folder / file) for file in counts)
    tags = ["votebook", *(["simulated"] if simulated else [])]
    head = {"pretty_name": run.study.title, "tags": tags, "configs": configs}
    head["dataset_info"] = infos
    front = yaml.safe_dump(head, allow_unicode=True, sort_keys=False, width=100)
    with runs.replacing(folder / "README.md") as part:
        part.write_text(f"---\n{front}---\n\n{_card(run, simulated, text)}", encoding="utf-8")
    return {**counts, "README.md": 0}


def _feature(column: pyarrow.Field) -> dict[str, str]:
    """A column as the head of a card describes it."""
    kind = column.type
    if pyarrow.types.is_list(kind):
        return {"name": column.name, "list": str(kind.value_type)}
    named = {"double": "float64", "float": "float32"}
    return {"name": column.name, "dtype": named.get(str(kind), str(kind))}


def _any_simulated(path: Path) -> bool:
    with pyarrow.parquet.ParquetFile(path) as file:
        if "simulated" not in file.schema_arrow.names:
            return False
        batches = file.iter_batches(columns=["simulated"])
        return any(True in batch.column("simulated").to_pylist() for batch in batches)


def _card(run: Run, simulated: bool, text: bool) -> str:
    panel = run.study.panels[run.study.panel]
    how = "The labels are votes of language models, counted by weight"
    if panel.strong:
        how = f"The labels are the votes of {panel.strong} alone; the others only raise alarms"
    members = "\n".join(
        f"| {name} | {one.model} | {one.repeats} | {one.weight:g} |"
        for name, one in panel.annotators.items()
    )
    warning = (
        "**These answers are simulated.** Built-in annotators gave them: they show how the "
        "workspace works, and say nothing about the texts.\n\n"
        if simulated
        else ""
    )
    digests = study.freeze(run.study)["sha256"]
    return f"""# {run.study.title}

{warning}{run.study.question}

{how}; `*_status` says what is not decided, and
`*_corrected` what people changed. They are no gold: measure them before you rely on them.

| annotator | model | repeats | weight |
|---|---|---|---|
{members}

- Run `{run.name}`, study `{run.study.name}`, panel `{run.study.panel}`
- SHA-256 of the prompt `{digests["prompt"]}`, of the fields `{digests["fields"]}`
- Texts: {"included, in the column `text`" if text else "not included; `sha256` names them"}
- `manifest.json` has the answers by model and what was paid for them

## Licence

(To be filled in by whoever publishes this. The texts may have a licence of their own.)
"""
