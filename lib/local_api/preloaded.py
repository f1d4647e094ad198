"""Imported once by the process from which workers are forked.

Loads what every worker needs, above all the vocabulary of 60 MB, so that they share its memory.
"""

from lib import models
from lib.local_api import answering, outputs, validate  # noqa: F401 - for their imports
from lib.local_api.annotators import tokens

tokens.n_input_tokens({"messages": [{"role": "user", "content": ""}]}, "o200k_base")
models.load()
