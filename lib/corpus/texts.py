r"""Texts: what is cut off before they are sent, and how long ones become passages.

A byte order mark at the start and NUL characters are removed, `\r\n` and `\r` become `\n`, and the
header and licence of Project Gutenberg are cut off with a record of how much. Nothing else is
changed: words hyphenated at line ends, spaces and spelling stay as they are.

Passages are exact pieces of a document: whole sentences (borders by sentencex of Wikimedia), as
many as fit the bound of tokens. A sentence longer than the bound is cut at white space, a word
longer than the bound anywhere between characters.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Counter = Callable[[Sequence[str]], list[int]]

_START_WITHIN = 100_000
_END_WITHIN = 60_000
_START = re.compile(
    r"^[ \t]*\*\*\* ?START OF (?:THIS|THE)(?: COPYRIGHTED)? PROJECT GUTENBERG"
    r"[^*\n]*(?:(?:\n[^*\n]+){0,3}\*\*\*[^\n]*)?"
    r"|^[ \t]*\*?END ?\*? ?THE SMALL PRINT!.*",
    re.MULTILINE | re.IGNORECASE,
)
_END = re.compile(
    r"^[ \t]*\*\*\* ?END OF (?:THIS|THE)(?: COPYRIGHTED)? PROJECT GUTENBERG",
    re.MULTILINE | re.IGNORECASE,
)
_END_LINE = re.compile(r"^[ \t]*End of (?:the |this )?Project Gutenberg\b", re.MULTILINE | re.I)
_CREDIT = re.compile(
    r"\s*(?:Produced by|E-?text prepared by|Transcribed by|Prepared by"
    r"|This (?:e-?text|e-?book) was (?:produced|prepared|transcribed) by)\b.*?(?=\n[ \t]*\n|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_HEADER_BEGINS = ("Title:", "Author:", "The Project Gutenberg", "Project Gutenberg")
_HEADER_LINE = re.compile(r"^(Title|Author):[ \t]*(\S.*(?:\n[ \t]+\S.*)*)", re.MULTILINE)

# sentencex takes quadratic time over quotation marks that are never closed; a block bounds it.
_BLOCK = 20_000
_WORD = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Cut:
    """A text without header and licence, how many characters they had, and what the header said."""

    text: str
    n_start: int = 0
    n_end: int = 0
    title: str | None = None
    author: str | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece `text[start:end]` of a document and its number of tokens."""

    start: int
    end: int
    n_tokens: int


def normal(text: str) -> str:
    r"""The text with `\n` line ends and without a leading byte order mark and NUL characters.

    >>> normal("\ufeffone\r\ntwo\rthree\x00")
    'one\ntwo\nthree'
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\x00", "")


def gutenberg(text: str) -> Cut:
    """The text without the header and licence of Project Gutenberg; unchanged if it has none.

    Knows the marker lines of all generations: `*END*THE SMALL PRINT!` (1990s), `***START OF THE
    PROJECT GUTENBERG EBOOK` and `*** START OF THIS PROJECT GUTENBERG EBOOK`, and a line of credits
    after them. A start is looked for in the first 100,000 characters; where several ends stand, the
    last one counts, so that a collection of books stays whole. White space beside a cut is cut too.

    >>> cut = gutenberg("Title: Emma\\n\\n*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\\n\\nI")
    >>> cut.text, cut.n_start, cut.title
    ('I', 64, 'Emma')
    """
    start, end = 0, len(text)
    if "utenberg" in text or "UTENBERG" in text:
        end = _end(text)
        start = _start(text[: min(end, _START_WITHIN)])
    header = {}
    if start or text[:500].lstrip().startswith(_HEADER_BEGINS):
        lines = reversed(_HEADER_LINE.findall(text[: start or 2000]))
        header = {name.lower(): " ".join(value.split()) for name, value in lines}
    first, last = _trimmed(text, start, end)
    start = first if start else 0
    end = last if last > start and end < len(text) else end
    return Cut(text[start:end], start, len(text) - end, **header)


def split(text: str, max_tokens: int, count: Counter) -> Iterator[Passage]:
    """The passages of a text in order, each of at most `max_tokens` tokens (4 or more).

    Packing is greedy: a passage takes sentences as long as they fit. Between passages only white
    space is left out. Nothing comes of a text of white space.
    """
    ahead = _sentences(text, count)
    units: list[Passage] = []
    while True:
        while sum(unit.n_tokens for unit in units) <= 2 * max_tokens:
            more = next(ahead, None)
            if more is None:
                break
            units += more
        if not units:
            return
        taken, passage = _packed(text, units, max_tokens, count)
        if taken:
            yield passage
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


def _start(head: str) -> int:
    """Where the book begins: after the last of the start markers and the credits below it."""
    start = max((found.end() for found in _START.finditer(head)), default=0)
    credit = _CREDIT.match(head, start) if start else None
    return credit.end() if credit else start


def _end(text: str) -> int:
    """Where the licence begins: at the last end marker or the older line right before it."""
    marks = [found.start() for found in _END.finditer(text)]
    end = marks[-1] if marks else len(text)
    near = max(0, end - (500 if marks else _END_WITHIN))
    lines = [near + found.start() for found in _END_LINE.finditer(text[near:end])]
    return lines[0 if marks else -1] if lines else end


def _sentences(text: str, count: Counter) -> Iterator[list[Passage]]:
    """The sentences of a text, block by block, so that a passage never waits for a whole book."""
    start = 0
    while start < len(text):
        end = min(start + _BLOCK, len(text))
        marks = [start + border for border in borders(text[start:end])]
        if end < len(text):
            # The last sentence may go on behind the block: it is looked at again with the next.
            white = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end))
            end = marks.pop() if len(marks) > 1 else white if white > 0 else end
        yield _units(text, [*marks, end], count)
        start = end


def _units(text: str, marks: list[int], count: Counter) -> list[Passage]:
    """The pieces between marks; white space belongs to the piece after it, as it does in tokens."""
    spans = []
    for mark, after in itertools.pairwise(marks):
        stop = mark + len(text[mark:after].rstrip())
        if stop > mark:
            spans.append((spans[-1][1] if spans else mark, stop))
    counts = count([text[start:stop] for start, stop in spans])
    return [Passage(*span, n) for span, n in zip(spans, counts, strict=True)]


def _packed(
    text: str, units: list[Passage], max_tokens: int, count: Counter
) -> tuple[int, Passage]:
    """How many units from the first fit into a passage, 0 if not even one does, and the passage.

    Sums of counts are near but not exact, as tokens may join over a border: so the sum proposes
    and the exact count decides.
    """

    def passage(n: int) -> Passage:
        start, end = _trimmed(text, units[0].start, units[n - 1].end)
        return Passage(start, end, *count([text[start:end]]))

    sums = itertools.accumulate(unit.n_tokens for unit in units)
    taken = max(1, sum(total <= max_tokens for total in sums))
    found = passage(taken)
    while found.n_tokens > max_tokens and taken > 1:
        taken -= 1
        found = passage(taken)
    if found.n_tokens > max_tokens:
        return 0, found
    while taken < len(units) and (more := passage(taken + 1)).n_tokens <= max_tokens:
        taken, found = taken + 1, more
    return taken, found


def _parts(text: str, unit: Passage, max_tokens: int, count: Counter) -> list[Passage]:
    """A sentence that is too long by itself as words, a word as blocks of characters."""
    marks = [word.start() for word in _WORD.finditer(text, unit.start, unit.end)]
    if len(marks) == 1:
        # A character has at most four bytes and so four tokens: a block always fits.
        start, _ = _trimmed(text, unit.start, unit.end)
        marks = list(range(start, unit.end, max(1, max_tokens // 4)))
    return _units(text, [*marks, unit.end], count)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
