"""A local Batch API that behaves like the real one; reached over HTTP alone.

`start` gives a running service. Everything else is the service itself: run `python -m
lib.local_api --help`.
"""

from lib.local_api.launch import start

__all__ = ["start"]
