"""Alarm: where the weak annotators of a panel disagree with the strong one, which decides alone.

Decides nothing about values: in `mode: alarm` the weak votes have no weight (`weights`), and the
consensus is what the strong annotator says. This counts the votes that say otherwise, so that
people look there first. In `mode: vote` nobody raises an alarm.
"""

import pandas as pd

from lib import ranges, scratch
from lib.ranges import Rows
from lib.study import Study

_SAID = """
WITH said AS (
    SELECT item, field, kind, value, is_strong
    FROM votes JOIN kinds USING (field) JOIN annotators USING (annotator)
    WHERE abstained IS NULL AND kind <> 'text'),
weak AS (SELECT * FROM said WHERE NOT is_strong)
"""
# The numbers of the strong annotator's repeats may differ: who stays between them agrees.
_RAISED = """,
numbers AS (
    SELECT item, field, min(value::DOUBLE) AS low, max(value::DOUBLE) AS high
    FROM said WHERE is_strong AND kind IN ('integer', 'number') GROUP BY ALL)
SELECT item, field, count(*) AS n_alarms
FROM weak JOIN decided USING (item, field) LEFT JOIN numbers USING (item, field)
WHERE status = 'decided' AND CASE
    WHEN low IS NOT NULL THEN weak.value::DOUBLE NOT BETWEEN low AND high
    WHEN kind = 'entities' THEN list_sort(from_json(weak.value, '["VARCHAR"]'))
        <> list_sort(from_json(decided.value, '["VARCHAR"]'))
    ELSE weak.value <> decided.value END
GROUP BY ALL
"""
_NAMES = """,
lists AS (SELECT item, field, count(*) AS n_lists FROM weak WHERE kind = 'entities' GROUP BY ALL),
naming AS (
    SELECT item, field, key, count(*) AS n_naming FROM (
        SELECT item, field, unnest(from_json(value, '["VARCHAR"]')) AS key
        FROM weak WHERE kind = 'entities') GROUP BY ALL)
SELECT item, field, key, CASE WHEN elected THEN coalesce(n_lists, 0) - coalesce(n_naming, 0)
    ELSE coalesce(n_naming, 0) END AS n_alarms
FROM decided LEFT JOIN lists USING (item, field) LEFT JOIN naming USING (item, field, key)
"""


def raised(votes: Rows, decided: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The consensus with `n_alarms`: how many weak votes say another value than the strong one.

    A number is another when it lies outside those of the strong annotator's repeats, a list when
    any name is missing or too much. Texts raise none, and neither does a vote that abstains, nor
    any where nothing is decided. `decided` is what the votes say, before corrections.
    """
    return _counted(votes, decided, ["item", "field", "value", "status"], _RAISED, study)


def raised_names(votes: Rows, named: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The names with `n_alarms`: how many weak lists lack an elected name, or have another one."""
    return _counted(votes, named, ["item", "field", "key", "elected"], _NAMES, study)


def _counted(
    votes: Rows, table: pd.DataFrame, columns: list[str], query: str, study: Study
) -> pd.DataFrame:
    """The table with the alarms that the query counts against these columns of it."""
    strong = study.panels[study.panel].strong
    if strong is None or table.empty:
        return table.assign(n_alarms=0)
    with scratch.database() as base:
        ranges.see(base, "votes", votes)
        fields = {name: field.type for name, field in study.fields.items()}
        base.register("kinds", pd.DataFrame(fields.items(), columns=["field", "kind"]))
        panel = [(name, name == strong) for name in study.annotators]
        base.register("annotators", pd.DataFrame(panel, columns=["annotator", "is_strong"]))
        words = dict.fromkeys(set(columns) - {"elected"}, "string")
        base.register("decided", table[columns].astype(words))
        counts = base.execute(_SAID + query).df()
    place = ["item", "field", "key"] if "key" in counts else ["item", "field"]
    found = counts.set_index(place)["n_alarms"]
    rows = pd.MultiIndex.from_frame(table[place])
    return table.assign(n_alarms=found.reindex(rows).fillna(0).to_numpy(dtype="int64"))
