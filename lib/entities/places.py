"""Places: where names stand in a text, and the words around them.

Answers have no offsets, so that a name is looked for: letter for letter but for case, space and
the forms that Unicode takes for equal, at whole words, everywhere. A name that is not found may be
invented, inflected, or written otherwise. One pass over the words of a text finds all its names.
"""

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pandas as pd

from lib import runs

# Scripts without spaces between words: every letter stands alone there (Thai, Lao, Burmese, Khmer,
# Chinese, Japanese). Marks that combine with a letter belong to its word; all else is a sign.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_LETTER, _MARK = rf"[^\W_{_UNSPACED}]", "[\u0300-\u036f]"
_WORD = re.compile(rf"{_LETTER}+(?:{_MARK}+{_LETTER}*)*|\S")
_ASCII_WORD = re.compile(r"[a-z0-9]+|\S")
_CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"
_REACH_CHARS = 160
_ROWS = 500
_CONTEXTS = {"item": "string", "document": "string", "field": "string", "key": "string"}
_CONTEXTS |= {"start": "int64", "end": "int64", "before": "string", "written": "string"}
_CONTEXTS |= {"after": "string"}

Place = tuple[int, int]


def find(text: str, keys: Collection[str]) -> dict[str, list[Place]]:
    """Every place of every key: start and end in the text, in the order of the text.

    Keys are those of `votes.entity_key`. A key that is not there has an empty list.

    >>> find("King  Arthur; Arthur's men, not Arthurian.", ["arthur", "king arthur", "mordred"])
    {'arthur': [(6, 12), (14, 20)], 'king arthur': [(0, 12)], 'mordred': []}
    """
    found: dict[str, list[Place]] = {key: [] for key in keys}
    names: dict[tuple[str, ...], list[str]] = defaultdict(list)
    lengths: dict[str, set[int]] = defaultdict(set)
    for key in found:
        words = tuple(_WORD.findall(key))
        names[words].append(key)
        if words:
            lengths[words[0]].add(len(words))
    words, starts, ends = _words(text) if lengths else ([], [], [])
    for n, word in enumerate(words):
        for length in lengths.get(word, ()):
            last = n + length - 1
            if last < len(words):
                for key in names.get(tuple(words[n : last + 1]), ()):
                    found[key].append((starts[n], ends[last]))
    return found


def tokens(text: str) -> list[Place]:
    """Start and end of every word and sign of a text; places of names begin and end with them.

    >>> tokens("Kay's men")
    [(0, 3), (3, 4), (4, 5), (6, 9)]
    """
    return [match.span() for match in _WORD.finditer(text)]


def context(text: str, place: Place, n_words: int = 8) -> tuple[str, str, str]:
    """The words before a place, what stands there, and the words after; spaces are single.

    >>> context("There came to Camelot a knight of Wales", (14, 21), n_words=2)
    ('came to', 'Camelot', 'a knight')
    """
    start, end = place
    before = text[max(0, start - _REACH_CHARS) : start].split()[-n_words:]
    after = text[end : end + _REACH_CHARS].split()[:n_words]
    return " ".join(before), " ".join(text[start:end].split()), " ".join(after)


def contexts(named: pd.DataFrame, documents: Path | pd.DataFrame, path: Path) -> int:
    """Write every place of every elected name to `path`, with the words around; gives their number.

    Columns: item, document, field, key, start and end in the document, before, written (the name
    as the text has it), after. Texts are streamed, so that memory holds one batch of them.
    """
    elected = named[named["elected"]]
    rows = elected.groupby("item").indices
    pairs = list(zip(elected["field"], elected["key"], strict=True))
    return runs.write_stream(_frames(documents, rows, pairs), path)


def texts(documents: Path | pd.DataFrame) -> Iterator[tuple[str, str, int, str]]:
    """Item, document, where the item starts in its document, and text, one item at a time."""
    columns = ["item", "document", "start", "text"]
    frames = runs.stream(documents, columns, _ROWS) if isinstance(documents, Path) else [documents]
    for frame in frames:
        yield from frame[columns].itertuples(index=False, name=None)


def _frames(
    documents: Path | pd.DataFrame, rows: dict[str, Sequence[int]], pairs: list[tuple[str, str]]
) -> Iterator[pd.DataFrame]:
    shown: list[tuple] = []
    for item, document, offset, text in texts(documents):
        mine = [pairs[n] for n in rows.get(item, ())]
        found = find(text, {key for _, key in mine})
        for field, key in mine:
            for start, end in found[key]:
                head = (item, document, field, key, offset + start, offset + end)
                shown.append((*head, *context(text, (start, end))))
        if len(shown) > 100 * _ROWS:
            yield pd.DataFrame(shown, columns=list(_CONTEXTS)).astype(_CONTEXTS)
            shown = []
    yield pd.DataFrame(shown, columns=list(_CONTEXTS)).astype(_CONTEXTS)


def _words(text: str) -> tuple[list[str], list[int], list[int]]:
    """The words and signs of a text, as keys have them, with start and end of each."""
    low = text.lower()
    if len(low) != len(text):
        low = text  # a capital that is two letters when small would move all places after it
    matches = list((_ASCII_WORD if low.isascii() else _WORD).finditer(low))
    words = [match.group() for match in matches]
    starts, ends = [match.start() for match in matches], [match.end() for match in matches]
    if low.isascii():
        return words, starts, ends
    folded = [(word,) if word.islower() and word.isascii() else _folded(word) for word in words]
    times = [len(some) for some in folded]
    if set(times) != {1}:
        starts = [start for start, n in zip(starts, times, strict=True) for _ in range(n)]
        ends = [end for end, n in zip(ends, times, strict=True) for _ in range(n)]
    return [word for some in folded for word in some], starts, ends


@functools.lru_cache(maxsize=65536)
def _folded(word: str) -> tuple[str, ...]:
    """A word as keys have it; one sign can become several (the sign for a half, ligatures)."""
    same = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
    return tuple(_WORD.findall(same.replace(_CURLY, "'")))
