"""Proper names in a text, with what the words around them say.

Decides where a name begins and ends, and which capitals only begin a sentence. Line-end hyphens
are undone in names; positions are those of the text as it is. Refuses to choose a kind: it hands
over what speaks for each.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from lib.local_api.annotators import kinds, words
from lib.local_api.annotators.reading import Reading, Sentence, read

_UPPER, _LOWER = "A-ZÀ-ÖØ-Þ", "a-zß-öø-ÿœæ"
_PLAIN = (
    rf"(?:[ODdl]['\u2019]|Mc|Mac)?[{_UPPER}][{_LOWER}]+(?:-\n[ \t]*[{_LOWER}]+)?"
    rf"(?:-[{_UPPER}{_LOWER}][{_LOWER}]+)*"
)
_SHORT = r"(?:Mr|Mrs|Ms|Dr|St|Capt|Col|Gen|Lt|Rev|Prof)\."
_WORD = rf"(?:{_SHORT}|{_PLAIN}|[{_UPPER}]\.)"
_LINK = r"(?:of the|of|de la|de|du|von der|von|van der|van|y|di|da|del|le|la|the)"
_GAP = r"(?:[ \t]{1,3}|[ \t]{0,3}\n[ \t]{0,12})"
_NUMERAL = r"(?:II|III|IV|V|VI|VII|VIII|IX|X|XI|XII|XIII|XIV|XV|XVI)"
_RUN = re.compile(
    rf"(?<![\w'\u2019-]){_WORD}(?:{_GAP}(?:{_LINK}{_GAP})?{_WORD}){{0,11}}(?:{_GAP}{_NUMERAL}\b)?"
)
_OF = re.compile(rf" of (?:the )?{_WORD}(?: (?:the )?{_WORD}){{0,5}}")
_HEADED = frozenset(
    head
    for head, kind in kinds.HEADS.items()
    if kind in (kinds.EVENT, kinds.PERIOD, kinds.POLITY) and head != "states"
)
_CENTURY = re.compile(r"\b(?:[a-z]{3,8}(?:-[a-z]{3,6})?|\d{1,2})(?:th|st|nd|rd) century\b")
_OPENERS = frozenset(".!?:;\"\u201c\u201d'\u2018([*_|\u2014")
_AFTER = re.compile(r"(\s*['\u2019]s\b)?\s*(,)?\s*(?:the |an? )?(\w+)?")
_NEVER = words.as_set(
    """Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May
    June July August September October November December Oh Ah Alas Yes No God Lord Heaven
    Madam English French German Spanish Italian Latin Greek Roman Romans Christian Christmas Easter
    Project Gutenberg Editor Illustration Footnote Dear Esq Ltd Inc Title Author Language Release"""
)
_MATTER = words.as_set(
    "Chapter Volume Vol Part Book Section Page Preface Contents Index Introduction Appendix Figure"
)
_FUNCTION = words.as_set(
    """the a an and but or nor if so yet for in on at to from by with of as that this these those it
    he she they we you i his her its their our my your then there here when where what who why how
    not no yes all some none such oh ah mr"""
)
_EPITHETS = words.as_set(
    """Great Elder Younger Good Bold Bald Wise Fair Conqueror Confessor Black White Red First Second
    Third Fourth Fifth Sixth Seventh Eighth Ninth Tenth"""
)
_REGNAL = words.as_set("King Queen Pope Saint St Emperor Empress Prince Princess Tsar Sultan")


_PLACES = (kinds.SETTLEMENT, kinds.COUNTRY, kinds.NATURAL, kinds.FACILITY)
_JOINED = re.compile(r"\s*,\s*(?:and |or )?|\s+(?:and|or)\s+")
_SHARED = 0.5


class Token(NamedTuple):
    """A word of a possible name, with its borders in the text."""

    text: str
    start: int
    end: int


@dataclass(eq=False)
class Name:
    """A name with its first place, how often it stands there, and what speaks for each kind.

    `whole` is the longer name of which this one is a part, such as a surname alone.
    """

    text: str
    start: int
    end: int
    sentence: Sentence
    n_mentions: int = 0
    is_sure: bool = False
    title: str = ""
    whole: "Name | None" = None
    votes: dict[str, float] = field(default_factory=dict)


@functools.lru_cache(maxsize=256)
def find(text: str) -> tuple[Name, ...]:
    """The distinct names of a text in order of their first mention.

    >>> [name.text for name in find("Then Sir Kay rode to York. York was far, said Sir Kay.")]
    ['Sir Kay', 'York']
    """
    reading = read(text)
    lower = frozenset(word for word in text.split() if word.islower())
    found: dict[str, Name] = {}
    last: tuple[Name | None, int] = None, 0
    for start, end, is_sure in _spans(text, lower):
        name = _add(found, reading, (start, end), is_sure)
        if last[0] is not None and _JOINED.fullmatch(text, last[1], start):
            _share(last[0], name)
        last = name, end
    sure = [name for name in found.values() if name.is_sure]
    _mark_parts(sure)
    return tuple(sure)


def _spans(text: str, lower: frozenset[str]) -> Iterator[tuple[int, int, bool]]:
    """Where names may stand, and whether more than a sentence's first capital says so."""
    for match in _RUN.finditer(text):
        is_opening = _opens(text[max(0, match.start() - 6) : match.start()])
        tokens = [
            Token(word[0], match.start() + word.start(), match.start() + word.end())
            for word in re.finditer(r"\S+?(?:-\n[ \t]*\S+|(?=\s|$))", match[0])
        ]
        rest = _without_opener(tokens, is_opening, lower)
        for piece in _pieces(rest):
            alone = is_opening and piece[0] is tokens[0] and len(piece) == 1
            known = bool(kinds.of_name((piece[0].text,)))
            yield piece[0].start, piece[-1].end, not alone or known
    for match in _OF.finditer(text):
        start = text.rfind(" ", max(0, match.start() - 20), match.start()) + 1
        if text[start : match.start()].strip() in _HEADED:
            yield start, match.end(), True
    for match in _CENTURY.finditer(text) if " century" in text else ():
        yield match.start(), match.end(), True


def _opens(before: str) -> bool:
    """Whether a sentence or a quotation begins after these characters."""
    kept = before.rstrip()
    return not kept or kept[-1] in _OPENERS or kept.endswith("--") or before.count("\n") > 1


def _without_opener(tokens: list[Token], is_opening: bool, lower: frozenset[str]) -> list[Token]:
    """The tokens of a run without words that only begin a sentence, and without stray links."""
    while tokens:
        word = tokens[0].text.rstrip(".")
        plain = word.lower()
        is_common = plain in _FUNCTION or (
            is_opening and (plain in words.STOP or plain in words.COMMON or plain in lower)
        )
        is_kept = len(tokens) > 1 and (word in kinds.TITLES or plain in kinds.HEADS)
        if not word.islower() and not (is_common and not is_kept):
            break
        tokens, is_opening = tokens[1:], False
    while tokens and (tokens[-1].text.islower() or tokens[-1].text.lower() in words.STOP):
        tokens = tokens[:-1]
    return tokens


def _pieces(tokens: list[Token]) -> Iterator[list[Token]]:
    """The names in a run: "A of B" is one name, or two, or only B when A is a mere title."""
    plain = [token.text.rstrip(".") for token in tokens]
    if not tokens or plain[0] in _MATTER:
        return
    if len(plain) == 1 and (plain[0] in _NEVER or len(plain[0]) < 2):
        return
    if "of" in plain:
        at = plain.index("of")
        after = at + 2 if plain[at + 1] == "the" else at + 1
        is_headed = plain[at - 1].lower() in kinds.HEADS
        is_title = all(word in kinds.TITLES for word in plain[:at])
        is_byname = at == 1 or (plain[0] in kinds.TITLES and at == 2)
        if is_headed or (is_byname and not is_title):
            yield tokens
        elif not is_title:
            yield from _pieces(tokens[:at])
        yield from _pieces(tokens[after:])
    elif "the" in plain and plain[-1] not in _EPITHETS:
        at = plain.index("the")
        yield from _pieces(tokens[:at])
        yield from _pieces(tokens[at + 1 :])
    elif not all(word in kinds.TITLES for word in plain):
        yield tokens


def _add(found: dict[str, Name], reading: Reading, span: tuple[int, int], is_sure: bool) -> Name:
    """Enter one mention: the name without courtesy, and what speaks for its kind."""
    raw = re.sub(r"-\s*\n\s*", "", reading.text[slice(*span)])
    tokens = raw.split()
    title = tokens[0] if tokens[0].rstrip(".") in kinds.TITLES and len(tokens) > 1 else ""
    votes = kinds.of_name(tuple(tokens))
    if title and len(tokens) > 2 and title not in _REGNAL and "of" not in tokens:
        tokens = tokens[1:]
    text = " ".join(tokens)
    name = found.get(text)
    if name is None:
        name = found[text] = Name(text, *span, reading.sentence_of(span[0]), title=title)
        name.votes.update(votes)
    name.n_mentions += 1
    name.is_sure |= is_sure
    for kind, weight in _around(reading.text, span):
        name.votes[kind] = name.votes.get(kind, 0.0) + weight
    return name


def _share(one: Name, other: Name) -> None:
    """Let two names of an enumeration, such as "Cork and Bristol", speak for each other."""
    for kind in (kinds.PERSON, *_PLACES):
        mine, theirs = one.votes.get(kind, 0.0), other.votes.get(kind, 0.0)
        one.votes[kind] = max(mine, mine + _SHARED * theirs)
        other.votes[kind] = max(theirs, theirs + _SHARED * mine)


def _around(text: str, span: tuple[int, int]) -> Iterator[tuple[str, float]]:
    """What the words before and after a mention say about its kind."""
    before = text[max(0, span[0] - 40) : span[0]].lower().split()[-2:]
    if before and before[-1][-1:].isalpha():
        yield from _led(before[-1], before[0] if len(before) > 1 else "")
    after = _AFTER.match(text, span[1])
    if after and after[3]:
        follows = after[3]
        is_named_role = bool(after[2]) and follows in kinds.ROLES
        if follows in kinds.SPEECH or follows == "who" or is_named_role:
            yield kinds.PERSON, 1.0
    if after and after[1]:
        yield kinds.PERSON, 0.3


def _led(last: str, further: str) -> Iterator[tuple[str, float]]:
    """What the one or two words before a name say."""
    if last in kinds.AT_PLACE:
        yield kinds.SETTLEMENT, 0.6 if last == "to" else 1.0
    elif last in ("of", "the") and further in kinds.HEADS:
        head = kinds.HEADS[further]
        yield kinds.SETTLEMENT if head in (kinds.EVENT, kinds.PERIOD) else head, 0.8
    elif last == "of" and further in kinds.ROLES:
        yield kinds.SETTLEMENT, 0.8
    elif last in kinds.HEADS:
        yield kinds.HEADS[last], 1.0
    elif last == "the":
        yield kinds.PERSON, -0.8
        yield kinds.NATURAL, 0.5 if further in kinds.ALONG else 0.2
    elif last in ("a", "an"):
        yield kinds.PERSON, -1.0
    elif last in kinds.ROLES or last in kinds.SPEECH:
        yield kinds.PERSON, 1.0
    elif last in kinds.OF_PLACE:
        yield kinds.SETTLEMENT, 0.4
    elif last in ("aboard", "vessel"):
        yield kinds.VEHICLE, 1.5


def _mark_parts(found: list[Name]) -> None:
    """Tell of every single word that it is part of a person's longer name in the same text."""
    longer = [name for name in found if " " in name.text and _is_person(name)]
    parts = {word: name for name in reversed(longer) for word in name.text.split()}
    for name in found:
        name.whole = None if _is_place(name) else parts.get(name.text)


def _is_person(name: Name) -> bool:
    return name.votes.get(kinds.PERSON, 0.0) > 0 and not _is_place(name)


def _is_place(name: Name) -> bool:
    return max(name.votes.get(kind, 0.0) for kind in _PLACES) > name.votes.get(kinds.PERSON, 0.0)
