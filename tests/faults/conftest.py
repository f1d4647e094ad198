"""Places where runs are disturbed, two of them, so that both of two processors have work."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def places() -> Iterator[list]:
    """Each has a service and a process of its own; see `killing`."""
    import killing

    with killing.place() as one, killing.place() as two:
        yield [one, two]
