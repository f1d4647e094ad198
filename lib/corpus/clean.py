r"""What of a document is sent: the text that was read, with as little done to it as possible.

A byte order mark at the start and NUL characters are removed, `\r\n` and `\r` become `\n`, and the
header and licence of Project Gutenberg are cut off with a record of how much. Nothing else is
changed: words hyphenated at line ends, spaces and spelling stay as they are.
"""

import re
from dataclasses import dataclass

_START_WITHIN = 100_000
_END_WITHIN = 60_000
_START = re.compile(
    r"^[ \t]*\*\*\* ?START OF (?:THIS|THE)(?: COPYRIGHTED)? PROJECT GUTENBERG"
    r"[^*\n]*(?:(?:\n[^*\n]+){0,3}\*\*\*[^\n]*)?",
    re.MULTILINE | re.IGNORECASE,
)
_SMALL_PRINT = re.compile(r"^[ \t]*\*?END ?\*? ?THE SMALL PRINT!.*", re.MULTILINE)
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
_HEADER_LINE = r"^{name}:[ \t]*(\S.*(?:\n[ \t]+\S.*)*)"
_TITLE = re.compile(_HEADER_LINE.format(name="Title"), re.MULTILINE)
_AUTHOR = re.compile(_HEADER_LINE.format(name="Author"), re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Cut:
    """A text without header and licence, how many characters they had, and what the header said."""

    text: str
    n_start: int = 0
    n_end: int = 0
    title: str | None = None
    author: str | None = None


def normal(text: str) -> str:
    r"""The text with `\n` line ends and without a leading byte order mark and NUL characters.

    >>> normal("\ufeffone\r\ntwo\rthree\x00")
    'one\ntwo\nthree'
    """
    text = text.removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\x00", "") if "\x00" in text else text


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
    if "utenberg" not in text and "UTENBERG" not in text:
        return Cut(text, 0, 0, *_header(text, 0))
    end = _end(text)
    start = _start(text[: min(end, _START_WITHIN)])
    header = _header(text, start)
    body = text[start:end]
    start += len(body) - len(body.lstrip()) if start else 0
    end -= len(body) - len(body.rstrip()) if end < len(text) and body.strip() else 0
    return Cut(text[start:end], start, len(text) - end, *header)


def _header(text: str, start: int) -> tuple[str | None, str | None]:
    """Title and author as the lines above the book say them."""
    if not start and not text[:500].lstrip().startswith(_HEADER_BEGINS):
        return None, None
    return _value(_TITLE, text[: start or 2000]), _value(_AUTHOR, text[: start or 2000])


def _start(head: str) -> int:
    """Where the book begins: after the last of the start markers and the credits below it."""
    ends = [found.end() for line in (_START, _SMALL_PRINT) for found in line.finditer(head)]
    if not ends:
        return 0
    credit = _CREDIT.match(head, max(ends))
    return credit.end() if credit else max(ends)


def _end(text: str) -> int:
    """Where the licence begins: at the last end marker or the older line right before it."""
    marks = [found.start() for found in _END.finditer(text)]
    end = marks[-1] if marks else len(text)
    near = max(0, end - (500 if marks else _END_WITHIN))
    lines = [near + found.start() for found in _END_LINE.finditer(text[near:end])]
    return lines[0 if marks else -1] if lines else end


def _value(line: re.Pattern, header: str) -> str | None:
    found = line.search(header)
    return " ".join(found[1].split()) if found else None
