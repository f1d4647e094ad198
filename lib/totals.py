"""Totals: whether there is one request and one vote for every item, panel slot and field.

Decides nothing about votes; refuses requests of another panel, and files that say a vote twice.
"""

import duckdb
import pandas as pd

from lib import weights
from lib.errors import AccountingError
from lib.study import Study


def check_slots(base: duckdb.DuckDBPyConnection, study: Study) -> int:
    """The number of items; raises AccountingError unless each was asked once by every slot."""
    slots = set(base.execute("SELECT DISTINCT annotator, repeat FROM requests").fetchall())
    planned = set(weights.weigh(study)[["annotator", "repeat"]].itertuples(index=False, name=None))
    query = "SELECT count(DISTINCT item), count(*), count(DISTINCT (item, annotator, repeat))"
    n_items, n_found, n_different = base.execute(f"{query} FROM requests").fetchall()[0]
    n_expected = n_items * study.n_votes
    if slots != planned or n_found != n_expected or n_different != n_expected:
        what = (
            f"{n_found} requests ({n_different} different) for {n_items} items, and {n_items} "
            f"items x {study.n_votes} votes of panel {study.panel} are {n_expected}. "
            "Make the requests again from this study: notebook 02."
        )
        raise AccountingError(what, n_found=n_found, n_expected=n_expected)
    return n_items


def account(base: duckdb.DuckDBPyConnection, n_answers: int, study: Study) -> pd.DataFrame:
    """Votes and abstentions by field; raises AccountingError unless they add up."""
    query = "SELECT field, coalesce(abstained, 'votes') AS reason, count(*) AS n FROM votes"
    counts = base.execute(f"{query} GROUP BY ALL").df()
    n_found, n_expected = int(counts["n"].sum()), n_answers * len(study.fields)
    if n_found != n_expected:
        what = f"{n_found} votes written for {n_answers} answers x {len(study.fields)} fields"
        hint = "Two outcome files say the same attempt twice, or a file is damaged."
        what = f"{what}, which are {n_expected}. {hint}"
        raise AccountingError(what, n_found=n_found, n_expected=n_expected)
    table = counts.pivot_table(index="field", columns="reason", values="n", fill_value=0)
    reasons = ["votes", *sorted(set(table) - {"votes"})]
    table = table.reindex(index=list(study.fields), columns=reasons, fill_value=0)
    table.columns = [f"n_{reason}" for reason in reasons]
    return table.astype("int64").reset_index()
