"""Agreement: how often two voters of the panel say the same about an item.

Raw shares only, within a model (its repeats) and between models; nothing here is corrected for
chance.
"""

from pathlib import Path

import pandas as pd

from lib import votes as ballots

_PAIRS = """
WITH cast_votes AS (
    SELECT item, field, annotator, repeat, value FROM read_parquet(?) WHERE abstained IS NULL)
SELECT one.field, one.annotator AS annotator, two.annotator AS other, count(*) AS n_pairs,
    count(*) FILTER (one.value = two.value) AS n_same
FROM cast_votes one JOIN cast_votes two USING (item, field)
WHERE (one.annotator, one.repeat) < (two.annotator, two.repeat)
GROUP BY ALL ORDER BY ALL
"""


def raw(votes: Path) -> pd.DataFrame:
    """For each field and pair of annotators, the share of pairs of votes that say the same.

    A pair of an annotator with itself are two of its repeats. Columns: field, annotator, other,
    n_pairs, n_same, share.
    """
    with ballots.database() as base:
        table = base.execute(_PAIRS, [str(votes)]).df()
    return table.assign(share=table["n_same"] / table["n_pairs"])
