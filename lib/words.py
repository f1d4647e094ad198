"""Words: a number with its noun, as every message and title says it.

Decides between one and many.
"""


def n_of(n: int, one: str, many: str = "") -> str:
    """A number and what there is of it; `many` is `one` with an s where it is not given.

    >>> n_of(1, "item"), n_of(1200, "item"), n_of(0, "batch", "batches")
    ('1 item', '1,200 items', '0 batches')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"
