"""Simulated annotators: plausible, deterministic answers to chat requests without any model.

`complete` answers one request. Everything else is how: what the text says (`reading`, `names`,
`quantities`), what the schema asks (`plan`, `clues`, `kinds`), and the choice between them
(`judging`, `noise`, `generate`).
"""

from lib.local_api.annotators.completing import Completion, complete

__all__ = ["Completion", "complete"]
