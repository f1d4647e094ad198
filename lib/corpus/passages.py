"""Long documents become passages: whole sentences, as many as fit the bound of tokens.

Sentence borders come from sentencex (Wikimedia), of which only the offsets of the borders are
used, so that every passage is an exact piece of its document. A sentence longer than the bound is
cut at white space, a word longer than the bound anywhere between characters.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Counter = Callable[[Sequence[str]], list[int]]

# sentencex takes quadratic time over quotation marks that are never closed; a block bounds it.
_BLOCK = 20_000
_WORD = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece `text[start:end]` of a document and its exact number of tokens."""

    start: int
    end: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class _Unit:
    """A sentence, word or block of characters that a passage is packed of."""

    start: int
    end: int
    n_tokens: int
    level: int


def split(text: str, max_tokens: int, count: Counter) -> Iterator[Passage]:
    """The passages of a text in order, each of at most `max_tokens` tokens (4 or more).

    Packing is greedy: a passage takes sentences as long as they fit. Between passages only white
    space is left out. Nothing comes of a text of white space.
    """
    ahead = _sentences(text, count)
    units: list[_Unit] = []
    while True:
        while sum(unit.n_tokens for unit in units) <= 2 * max_tokens:
            more = next(ahead, None)
            if more is None:
                break
            units += more
        if not units:
            return
        taken, n_tokens = _pack(text, units, max_tokens, count)
        if taken:
            yield Passage(*_trimmed(text, units[0].start, units[taken - 1].end), n_tokens)
            del units[:taken]
        else:
            units[:1] = _parts(text, units[0], max_tokens, count)


def borders(text: str) -> list[int]:
    """The offsets at which sentences begin, 0 included; paragraphs always begin one.

    >>> borders("It rained. Mr. Smith stayed in.")
    [0, 11]
    """
    import sentencex

    found = sentencex.get_sentence_boundaries("en", text)
    return sorted({0, *(sentence["start_index"] for sentence in found)})


def _sentences(text: str, count: Counter) -> Iterator[list[_Unit]]:
    """The sentences of a text, block by block, so that a passage never waits for a whole book."""
    start = 0
    while start < len(text):
        end = min(start + _BLOCK, len(text))
        marks = [start + border for border in borders(text[start:end])]
        if end < len(text):
            # The last sentence may go on behind the block: it is looked at again with the next.
            end = marks.pop() if len(marks) > 1 else _white(text, start, end)
        yield _units(text, marks, end, 0, count)
        start = end


def _white(text: str, start: int, end: int) -> int:
    """The last white space in a block of one sentence, or its end if there is none."""
    found = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
    return found if found > start else end


def _units(text: str, marks: list[int], end: int, level: int, count: Counter) -> list[_Unit]:
    """Units between marks; white space belongs to the unit after it, as it does in tokens."""
    spans = []
    for mark, after in itertools.pairwise([*marks, end]):
        stop = mark + len(text[mark:after].rstrip())
        if stop > mark:
            spans.append((spans[-1][1] if spans else mark, stop))
    counts = count([text[start:stop] for start, stop in spans])
    return [_Unit(*span, n, level) for span, n in zip(spans, counts, strict=True)]


def _pack(text: str, units: list[_Unit], max_tokens: int, count: Counter) -> tuple[int, int]:
    """How many units from the first fit, and the exact tokens of them; 0 if not even one does.

    Sums of counts are near but not exact, as tokens may join over a border: so the sum proposes
    and the exact count of the piece decides.
    """
    taken, exact, bound = 0, 0, len(units) + 1
    while taken + 1 < bound:
        step = max(1, _fitting(units[taken:], max_tokens - exact))
        while True:
            step = min(step, bound - 1 - taken)
            start, end = _trimmed(text, units[0].start, units[taken + step - 1].end)
            (n_tokens,) = count([text[start:end]])
            if n_tokens <= max_tokens:
                taken, exact = taken + step, n_tokens
                break
            bound = taken + step
            if step == 1:
                break
            step -= 1
    return taken, exact


def _fitting(units: list[_Unit], n_tokens: int) -> int:
    sums = itertools.accumulate(unit.n_tokens for unit in units)
    return sum(1 for _ in itertools.takewhile(lambda total: total <= n_tokens, sums))


def _parts(text: str, unit: _Unit, max_tokens: int, count: Counter) -> list[_Unit]:
    """A unit that is too long by itself as words, a word as blocks of characters."""
    if unit.level == 0:
        marks = [word.start() for word in _WORD.finditer(text, unit.start, unit.end)]
    else:
        # A character has at most four bytes and so four tokens: a block always fits.
        start, _ = _trimmed(text, unit.start, unit.end)
        marks = list(range(start, unit.end, max(1, max_tokens // 4)))
    return _units(text, marks, unit.end, unit.level + 1, count)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
