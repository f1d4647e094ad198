"""The census: what was found, used and skipped, checked to close."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from lib import runs
from lib.corpus import sheets
from lib.errors import AccountingError

if TYPE_CHECKING:
    import pandas as pd

_KEY = ["source", "format"]
_ROWS = 50_000


def census(folder: Path) -> "pd.DataFrame":
    """Found, used, items and skipped by reason, for each source and format, in study order.

    `found` was counted while reading; AccountingError if it is not used + skipped. A source called
    "(none)" holds the files that no source asks for.
    """
    import pandas as pd

    found = sheets.found_in(folder / "skipped.parquet")
    used, items = _used(folder / "documents.parquet")
    skipped = _skipped(folder / "skipped.parquet")
    reasons = sorted({reason for _, reason in skipped})
    rows = []
    for key in dict.fromkeys([*found, *used, *(key for key, _ in skipped)]):
        by_reason = {reason: skipped[key, reason] for reason in reasons}
        check(found.get(key, 0), used[key], sum(by_reason.values()), ", ".join(key))
        numbers = {"found": found[key], "used": used[key], "items": items[key], **by_reason}
        rows.append(dict(zip(_KEY, key, strict=True)) | numbers)
    return pd.DataFrame(rows, columns=[*_KEY, "found", "used", "items", *reasons])


def check(n_found: int, n_used: int, n_skipped: int, where: str) -> None:
    """Raise AccountingError unless found = used + skipped."""
    if n_found != n_used + n_skipped:
        what = f"{where}: {n_found:,} found, but {n_used:,} used + {n_skipped:,} skipped."
        hint = "Load the corpus again; documents.parquet and skipped.parquet belong together."
        facts = {"n_found": n_found, "n_used": n_used, "n_skipped": n_skipped}
        raise AccountingError(f"{what} {hint}", **facts)


def _used(path: Path) -> tuple[Counter, Counter]:
    """Documents and items by source and format; the items of a document stand together."""
    used: Counter[tuple[str, str]] = Counter()
    items: Counter[tuple[str, str]] = Counter()
    last = ""
    for frame in runs.stream(path, [*_KEY, "document"], _ROWS):
        begins = frame["document"] != frame["document"].shift(fill_value=last)
        used.update(frame[begins].groupby(_KEY).size().to_dict())
        items.update(frame.groupby(_KEY).size().to_dict())
        last = frame["document"].iloc[-1]
    return used, items


def _skipped(path: Path) -> Counter:
    """Skips by source and format, and reason."""
    skipped: Counter[tuple[tuple[str, str], str]] = Counter()
    for frame in runs.stream(path, [*_KEY, "reason"], _ROWS):
        counts = frame.groupby([*_KEY, "reason"]).size().to_dict()
        skipped.update(
            {((source, kind), reason): n for (source, kind, reason), n in counts.items()}
        )
    return skipped
