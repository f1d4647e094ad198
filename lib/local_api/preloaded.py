"""Imported once by the process from which workers are forked.

Loads what every worker needs, above all the vocabulary of 60 MB, so that they share its memory.
"""

from lib import models
from lib.local_api import answering, counting, outputs, validate  # noqa: F401 - for their imports

counting.n_input_tokens({"messages": [{"role": "user", "content": ""}]}, "o200k_base")
models.load()
