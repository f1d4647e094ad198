"""Findings: what the votes and verdicts of a run say, as the tables that notebooks 05 and 06 show.

Reads the study's optional files of gold and corrections; a file that is not there is an empty
table, a file with a mistake is an error.
"""

import itertools
import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from lib import aggregate, corrections, entities, gold, policies, runs, words, yamls
from lib import review as reviewing
from lib.errors import StudyError
from lib.gold import labelling
from lib.review import panelled, reviewed
from lib.runs import Run
from lib.study import Study

VERDICT_COLORS = ("#56B4E9", "#E69F00", "#D55E00", "#882255", "#332288", "#117733", "#AA4499")
NO_VERDICT = "#D9D9D9"


def labels(run: Run, items: Collection[str]) -> pd.DataFrame:
    """The gold labels of the study that stand on these items: item, field, value."""
    path = Path(run.study.folder) / "gold.csv"
    if not path.is_file():
        return pd.DataFrame(columns=gold.COLUMNS, dtype="str")
    known = set(run.table("documents")["item"])
    table = gold.read(path, run.study, known)
    return table[table["item"].isin(set(items))]


def labelled(run: Run, items: Collection[str]) -> tuple[pd.DataFrame, pd.DataFrame | None, int]:
    """What people say of these items: the labels of texts as they are now, the random sample that
    was drawn for them, if any, and how many of its items have another text since.
    """
    sample, stale = labelling.stored(run)
    table = labels(run, items)
    return table[~table["item"].isin(stale)], sample, len(stale)


def name_scores(run: Run, named: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Elected names against gold: of the panel, and of each annotator alone.

    Columns: who, and those of `entities.score`; the field "all" pools all lists.
    """
    wanted = table[table["field"].map(lambda name: run.study.fields[name].type == "entities")]
    if wanted.empty:
        return pd.DataFrame(columns=["who", "field", "match", "f1"])
    asked = wanted["item"].unique()
    votes, documents = (aggregate.on_items(run, name, asked) for name in ("votes", "documents"))
    found = {"panel": named}
    for name in run.study.annotators:
        mine = votes[votes["annotator"].eq(name)]
        alone = gold.alone_on(run.study, name)
        found[name] = entities.settle(entities.voted(mine, alone), documents, alone)
    scores = [
        entities.score(elected, wanted, documents).assign(who=who) for who, elected in found.items()
    ]
    return pd.concat(scores, ignore_index=True)[["who", *scores[0].columns.drop("who")]]


def on_gold(accuracies: pd.DataFrame, scores: pd.DataFrame) -> str:
    """What gold says of the panel and its best member, for either kind of answer."""
    said = [gold.sentence(accuracies)] if len(accuracies) else []
    strict = scores[scores["field"].eq("all") & scores["match"].eq("strict")]
    if len(strict):
        panel = strict[strict["who"].eq("panel")].iloc[0]
        best = strict[strict["who"].ne("panel")].sort_values("f1").iloc[-1]
        lists = words.n_of(panel["n_items"], "labelled list")
        said.append(
            f"Names of {lists}: the panel has F1 {panel['f1']:.3f}, "
            f"its best member, {best['who']}, {best['f1']:.3f}."
        )
    return " ".join(said) or "There is no gold: nobody knows yet whether the panel is right."


def review(
    run: Run, decided: pd.DataFrame, named: pd.DataFrame, n: int | None = None, text: bool = False
) -> pd.DataFrame:
    """What people should look at first, as a file of corrections to fill; see `review`.

    With the votes behind each row and, when asked for, the text.
    """
    table = reviewing.listed(decided, named, run.study, n)
    votes, documents = (
        aggregate.on_items(run, name, table["item"].unique()) for name in ("votes", "documents")
    )
    table = reviewing.with_votes(table, votes, run.study)
    table = reviewing.with_texts(table, documents, text)
    return table[[*reviewing.COLUMNS, *(["text"] if text else [])]]


def write_review(run: Run, table: pd.DataFrame, path: Path | None = None) -> Path:
    """Write a review list, `review.csv` of the run if no other; gives its path.

    A list there that people filled in and nobody has read is kept beside it.
    """
    path = path or run.path("review.csv")
    reviewed.set_aside(path, known_changes(run))
    runs.write_csv(table, path)
    return path


def write_tasks(
    run: Run, table: pd.DataFrame, decided: pd.DataFrame, named: pd.DataFrame, folder: Path
) -> list[Path]:
    """Write a review list as tasks of Label Studio, an item each, with their interface.

    Raises StudyError for a list without texts.
    """
    if "text" not in table:
        raise StudyError("Label Studio shows texts, and this list has none. Add --text.")
    items = table.drop_duplicates("item")[["item", "sha256", "text"]]
    decided, named = (one[one["item"].isin(items["item"])] for one in (decided, named))
    told = {"run": run.name, "model_version": f"panel {run.study.panel}"}
    tasks = list(panelled.tasks(items, decided, named, run.study.fields, told))
    text = json.dumps(tasks, ensure_ascii=False, indent=1)
    files = {"tasks.json": text, "config.xml": panelled.config(run.study.fields)}
    for name, content in files.items():
        with runs.replacing(folder / name) as part:
            part.write_text(content, encoding="utf-8")
    return [folder / name for name in files]


def known_changes(run: Run) -> dict[tuple[str, str], str]:
    """The corrections of the study: (item, field) to value."""
    table = aggregate.changes(run)
    places = zip(table["item"], table["field"], strict=True)
    return dict(zip(places, table["corrected"], strict=True))


def take_in(run: Run, path: Path) -> reviewed.Reviewed:
    """Put what people changed in a review into the study's corrections, all or nothing.

    Together with those that are there, the changes must fit what the votes say. Raises StudyError
    that names every mistake of the file.
    """
    before = aggregate.changes(run)
    known = known_changes(run)
    found = reviewed.read(path, run.study, aggregate.texts(run), known)
    problems = list(found.problems)
    if len(found.changes):
        both = [*before.to_dict("records"), *found.changes.to_dict("records")]
        with yamls.noting(problems):
            aggregate.check(run, corrections.table(both))
    yamls.refuse(problems, corrections.SO)
    if len(found.changes):
        corrections.append(Path(run.study.folder) / "corrections.csv", found.changes)
    return found


def groups(study: Study) -> pd.DataFrame:
    """The study's table about its groups, with the columns `group` and `name`.

    Raises StudyError with file and line for what is no such table.
    """
    if study.groups is None:
        return pd.DataFrame(columns=["group", "name"], dtype="str")
    path = Path(study.folder) / study.groups.path
    wanted = [study.groups.id, study.groups.name or study.groups.id]
    rows = []
    for line, row in gold.rows(path, wanted):
        if not row[study.groups.id]:
            raise yamls.problem(path, line, f"no {study.groups.id}: every group needs one.")
        rows.append(row)
    table = pd.DataFrame(rows, columns=None if rows else dict.fromkeys(wanted), dtype="str")
    return table.assign(group=table[wanted[0]], name=table[wanted[1]])


def policy_table(study: Study) -> pd.DataFrame:
    """The policies: id, title, how they decide, verdicts from mildest to severest, coverage."""
    rows = [
        {
            "policy": name,
            "title": policy.title,
            "decides_by": "points" if policy.points else "ordered rules",
            "verdicts": ", ".join(policy.verdicts),
            "coverage": policy.coverage,
        }
        for name, policy in study.policies.items()
    ]
    return pd.DataFrame(rows, columns=["policy", "title", "decides_by", "verdicts", "coverage"])


def verdict_grid(reached: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Verdicts by group name; the columns are pairs of policy and K, for the picture."""
    names = _group_names(table)
    shown = reached.assign(
        group=[names.get(group, group) for group in reached["group"]],
        k=reached["k"].astype("string").fillna("all"),
    )
    pairs = list(shown[["policy", "k"]].drop_duplicates().itertuples(index=False, name=None))
    if not pairs:
        return pd.DataFrame()
    return shown.pivot(index="group", columns=["policy", "k"], values="verdict")[pairs]


def verdict_colors(study: Study) -> dict[str, str]:
    """A color for every verdict of the study, from mildest to severest, and for no verdict."""
    words = list(dict.fromkeys(v for policy in study.policies.values() for v in policy.verdicts))
    named = dict(zip(words, itertools.cycle(VERDICT_COLORS), strict=False))
    return {**named, policies.INSUFFICIENT: NO_VERDICT}


def verdict_sentence(reached: pd.DataFrame) -> str:
    """On how many groups with enough data the policies agree at the highest K."""
    if reached.empty:
        return "No policies: no verdicts."
    last = reached[reached["k"].eq(reached["k"].max())] if reached["k"].notna().any() else reached
    said = last.groupby("group")["verdict"].agg(set)
    lacking = said.map(lambda verdicts: policies.INSUFFICIENT in verdicts)
    n_same, n_policies = int(said[~lacking].map(len).eq(1).sum()), last["policy"].nunique()
    enough, few = (words.n_of(int(some.sum()), "group") for some in (~lacking, lacking))
    if n_policies == 1:
        return f"{enough} with a verdict, {few} with too little data for one"
    what = f"All {n_policies} policies agree on {n_same:,} of {enough} with enough data"
    return f"{what}; too little for {lacking.sum():,}"


def _group_names(table: pd.DataFrame) -> dict[str, str]:
    """The name of each group that has one; beside a name that others have too stands the id."""
    names = {row["group"]: row["name"] for row in table.to_dict("records") if row["name"]}
    times = Counter(names.values())
    return {one: name if times[name] == 1 else f"{name} ({one})" for one, name in names.items()}
