"""The corpus: everything that a study's sources name, read once and turned into items.

`load` writes `documents.parquet` (one row an item) and `skipped.parquet` (one row for all that was
not used, with the reason); `census` counts both and checks that found = used + skipped. It refuses
to skip anything in silence and to change the text beyond what `texts` says.
"""

from lib.corpus.loading import Loaded, load
from lib.corpus.sheets import census

__all__ = ["Loaded", "census", "load"]
