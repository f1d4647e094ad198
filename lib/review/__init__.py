"""Review: what people should look at, in an order that finds most errors, and a fair sample of all.

Decides the order: no quorum, tie, alarm, then the lowest margins, the fields in turn; between them,
evenly, rows drawn at random from everything that was decided or could have been. What the whole
panel says alike is listed only when it is drawn, and texts never: they are not voted on. The list
is a file of corrections that people fill.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping

import pandas as pd

from lib import corrections
from lib.study import Study

COLUMNS = [*corrections.COLUMNS, "status", "margin", "candidates", "why", "votes", "sha256"]
COLUMNS += ["simulated"]
RANDOM_SHARE = 0.1
_PLACE = ["item", "field"]
_DOUBTS = ["no_quorum", "tie", "alarm", "margin"]


def listed(
    decided: pd.DataFrame,
    named: pd.DataFrame,
    study: Study,
    n: int | None = None,
    random_share: float = RANDOM_SHARE,
    seed: int = 0,
) -> pd.DataFrame:
    """The first `n` rows to review, or all doubtful ones; a row an item and field.

    The columns of corrections, of which corrected, reason, who and date are empty, then status,
    margin, candidates, why and simulated. `why` names all reasons: no_quorum, tie, alarm, margin
    (not all votes alike), random; `condition` marks fields that need a value if people say that
    their condition is true, and these rows are not counted. The random rows are a share of the
    list, at least one, equally many of each field, and the same ones whatever order the tables
    have: those with the least SHA-256 of seed, item and field. The margin of a list of names is the
    distance of the most doubtful name's share from the threshold.
    """
    table = _asked(decided, named, study)
    doubtful = table[table["why"].ne("")]
    rank = doubtful["why"].map(_DOUBTS.index)
    doubtful = _interleaved(doubtful, [rank, "margin"], study)
    whole = len(doubtful) / (1 - random_share) if n is None else n
    drawn = [_draw(seed, *place) for place in zip(table["item"], table["field"], strict=True)]
    random = _interleaved(table, [pd.Series(drawn, index=table.index)], study)
    random = random[: max(1, math.ceil(random_share * whole))]
    rest = doubtful[~doubtful.index.isin(random.index)]
    rest = rest if n is None else rest[: max(0, n - len(random))]
    random = random.assign(why=(random["why"] + ", random").str.removeprefix(", "))
    parts = [_spread(rest), _spread(random)]
    found = pd.concat(parts).sort_values("place", kind="stable", ignore_index=True)
    found = _with_conditional(found[: n if n is None else max(n, 0)], decided, study)
    blank = dict.fromkeys(["corrected", "reason", "who", "date"], "")
    return found.assign(**blank)[[name for name in COLUMNS if name not in {"votes", "sha256"}]]


def with_votes(table: pd.DataFrame, votes: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The list with the column `votes`: each value with the models that gave it, and abstentions.

    The value of most weight stands first; in lists of names, each name counts for itself.
    """
    cast = votes[votes["item"].isin(table["item"]) & votes["field"].isin(table["field"])]
    places = list(zip(table["item"], table["field"], strict=True))
    wanted = set(places)
    said = {
        place: _said(some, study.fields[place[1]].type == "entities")
        for place, some in cast.groupby(_PLACE)
        if place in wanted
    }
    return table.assign(votes=[said.get(place, "") for place in places])


def with_texts(table: pd.DataFrame, documents: pd.DataFrame, text: bool = False) -> pd.DataFrame:
    """The list with the SHA-256 of each text, by which a stale one is noticed, and the text."""
    columns = ["sha256", "text"] if text else ["sha256"]
    return table.join(documents.set_index("item")[columns], on="item")


def _asked(decided: pd.DataFrame, named: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Everything that people could be asked: what applies and is no text, with the doubts of it."""
    kinds = decided["field"].map({name: field.type for name, field in study.fields.items()})
    table = decided[kinds.ne("text") & ~decided["status"].eq("not_applicable")]
    corrected = table.get("corrected", pd.Series(False, index=table.index)).astype(bool)
    table = table.assign(status=table["status"].mask(corrected, "corrected"))
    original = table["value"].astype(object).where(table["value"].notna(), "")
    table = table.assign(original=original, margin=table["margin"].astype(float))
    table = _with_lists(table, named, study)
    lists, alarms = kinds[table.index].eq("entities"), table.get("n_alarms", 0)
    unlike = table["margin"].lt(1).where(~lists, table["margin"].notna()) | table["spread"].gt(0)
    why = pd.Series("", index=table.index)
    why = why.mask(table["status"].eq("decided") & unlike, "margin")
    why = why.mask(table["status"].eq("decided") & (alarms > 0), "alarm")
    for status in ("tie", "no_quorum"):
        why = why.mask(table["status"].eq(status), status)
    return table.assign(why=why)


def _with_lists(table: pd.DataFrame, named: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Lists of names as people write them, with the margin and names of those in doubt."""
    threshold = named["field"].map(
        lambda name: study.fields[name].threshold or study.voting.threshold
    )
    names = named.assign(margin=(named["share"].astype(float) - threshold.astype(float)).abs())
    names = names.sort_values(["margin", "key"], kind="stable")
    elected = names[names["elected"].astype(bool)].sort_values("key").groupby(_PLACE)["name"]
    doubtful = names[names["share"].lt(1) & names["share"].gt(0)].groupby(_PLACE)
    margins = doubtful["margin"].min().to_dict()
    spelled, unsure = (
        {place: json.dumps(list(group), ensure_ascii=False) for place, group in one}
        for one in (elected, doubtful["name"])
    )
    places = list(zip(table["item"], table["field"], strict=True))
    lists = table["field"].map(lambda name: study.fields[name].type).eq("entities")
    stands = lists & table["original"].ne("")
    new = pd.DataFrame(
        {
            "original": [spelled.get(place, "[]") for place in places],
            "margin": [margins.get(place) for place in places],
            "candidates": [unsure.get(place) for place in places],
        },
        index=table.index,
        dtype=object,
    )
    return table.assign(
        original=table["original"].mask(stands, new["original"]),
        margin=table["margin"].mask(lists, new["margin"].astype(float)),
        candidates=table["candidates"].astype(object).mask(lists, new["candidates"]),
    )


def _interleaved(table: pd.DataFrame, order: list, study: Study) -> pd.DataFrame:
    """Rows by the first key, and within it the fields in turn, each by the other keys."""
    keys = {f"key {n}": table[key] if isinstance(key, str) else key for n, key in enumerate(order)}
    position = {name: n for n, name in enumerate(study.fields)}
    table = table.assign(**keys, position=table["field"].map(position))
    table = table.sort_values([*keys, *_PLACE], kind="stable")
    first = [] if len(order) == 1 else ["key 0"]
    turn = table.groupby([*first, "field"]).cumcount()
    return table.assign(turn=turn).sort_values([*first, "turn", "position"], kind="stable")


def _spread(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with places between 0 and 1, so that two tables mix evenly."""
    n = max(1, len(table))
    return table.assign(place=[(one + 0.5) / n for one in range(len(table))])


def _with_conditional(table: pd.DataFrame, decided: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Behind a condition that is not true, the fields that need a value if people say it is."""
    conditions = {field.when for field in study.fields.values() if field.when}
    open_ = table[table["field"].isin(conditions) & table["original"].ne("true")]
    below = decided[decided["item"].isin(open_["item"]) & decided["status"].eq("not_applicable")]
    when = below["field"].map({name: field.when for name, field in study.fields.items()})
    behind = pd.MultiIndex.from_frame(open_[_PLACE])
    below = below[pd.MultiIndex.from_arrays([below["item"], when]).isin(behind)]
    at = {place: n for n, place in enumerate(zip(table["item"], table["field"], strict=True))}
    places = [at[place] for place in zip(below["item"], when.loc[below.index], strict=True)]
    below = below.assign(place=places, why="condition", original="", margin=math.nan)
    table = table.assign(place=range(len(table)))
    return pd.concat([table, below]).sort_values("place", kind="stable", ignore_index=True)


def _draw(seed: int, item: str, field: str) -> str:
    return hashlib.sha256(f"{seed}\0{item}\0{field}".encode()).hexdigest()


def _said(votes: pd.DataFrame, lists: bool) -> str:
    """Who said what, in one line for people."""
    said: dict[str, dict[str, list[float]]] = {}
    silent: Counter[str] = Counter()
    for vote in votes.sort_values(["annotator", "repeat"]).itertuples():
        if not isinstance(vote.value, str):
            silent[vote.abstained] += 1
            continue
        for value in (json.loads(vote.value) or ["no names"]) if lists else [vote.value]:
            said.setdefault(value, {}).setdefault(vote.model, []).append(vote.weight)
    weight = {value: sum(map(sum, models.values())) for value, models in said.items()}
    heaviest = sorted(said, key=lambda value: (-weight[value], value))
    parts = [f"{value}: {_models(said[value])}" for value in heaviest]
    parts += [f"no vote ({reason}) x {n}" for reason, n in sorted(silent.items())]
    return "; ".join(parts)


def _models(weights: Mapping[str, list[float]]) -> str:
    return ", ".join(
        f"{model} x {len(some)} (weight {sum(some):.3g})" for model, some in weights.items()
    )
