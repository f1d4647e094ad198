"""Every error that Votebook raises on purpose.

A message says what happened with its numbers, what was expected and what to do next. The facts
that a caller may want are attributes, so that nobody has to parse text.
"""


class VotebookError(Exception):
    """Root of all errors raised on purpose; keyword facts become attributes.

    >>> VotebookError("3 of 5 rows are left", n_rows=3).n_rows
    3
    """

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.__dict__.update(facts)


class StudyError(VotebookError):
    """Raised if a study, policy, gold or corrections file is wrong; carries `file` and `line`."""


class CorpusError(VotebookError):
    """Raised if a corpus cannot be used at all: no file found, no text left."""


class ModelError(VotebookError):
    """Raised if a model is unknown, retired, not batchable, or refuses a parameter."""


class BudgetError(VotebookError):
    """Raised if sending would pass `max_usd`; carries `needed_usd` and `max_usd`."""


class ServiceError(VotebookError):
    """Raised if the service cannot be reached or refuses for good; carries `code`."""


class CanaryError(VotebookError):
    """Raised if too few canary answers of a model are valid; carries `model` and the shares."""


class BusyError(VotebookError):
    """Raised if another process is working on the same run; carries who holds it."""


class AccountingError(VotebookError):
    """Raised if totals do not close; carries the two sides of the sum."""
