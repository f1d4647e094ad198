"""Spreadsheets: text in a CSV file that a spreadsheet would run as a formula, made harmless.

Decides what is guarded, by an apostrophe in front (OWASP, CSV injection), and takes it off again:
what is read back is what was there.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Guards that stand there already count, so that each text has one guarded form of its own.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def guard(cell: object) -> object:
    """A cell with a leading apostrophe where a spreadsheet would run it.

    >>> guard("=1+1"), guard("'=1+1"), guard("1+1"), guard(-1)
    ("'=1+1", "''=1+1", '1+1', -1)
    """
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def unguard(cell: str) -> str:
    """The text that `guard` was given.

    >>> unguard("'=1+1"), unguard("''=1+1"), unguard("'tis")
    ('=1+1', "'=1+1", "'tis")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def guarded(frame: "pd.DataFrame") -> "pd.DataFrame":
    """A table whose text is guarded."""
    text = frame.select_dtypes(["object", "string"])
    return frame.assign(**{name: text[name].map(guard, na_action="ignore") for name in text})
