"""Proper names in a text, with what the words around them say.

Decides where a name begins and ends, and which capitals only begin a sentence. Line-end hyphens
are undone in names; positions are those of the text as it is. Refuses to choose a kind: it hands
over what speaks for each.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lib.local_api import kinds, words
from lib.local_api.reading import Reading, Sentence, read

_UPPER, _LOWER = "A-ZÀ-ÖØ-Þ", "a-zß-öø-ÿœæ"
_PLAIN = (
    rf"(?:[ODdl]['\u2019]|Mc|Mac)?[{_UPPER}][{_LOWER}]+(?:-\n[ \t]*[{_LOWER}]+)?"
    rf"(?:-[{_UPPER}{_LOWER}][{_LOWER}]+)*"
)
_SHORT = r"(?:Mr|Mrs|Ms|Dr|St|Capt|Col|Gen|Lt|Rev|Prof)\."
_WORD = rf"(?:{_SHORT}|{_PLAIN}|[{_UPPER}]\.)"
_LINK = r"(?:of the|of|de la|de|du|von der|von|van der|van|y|di|da|del|le|la|the)"
_GAP = r"[ \t]*(?:[ \t]|\n)[ \t]*"
_NUMERAL = r"(?:II|III|IV|V|VI|VII|VIII|IX|X|XI|XII|XIII|XIV|XV|XVI)"
_RUN = re.compile(
    rf"(?<![\w'\u2019-]){_WORD}(?:{_GAP}(?:{_LINK}{_GAP})?{_WORD})*(?:{_GAP}{_NUMERAL}\b)?"
)
_HEADED = "|".join(
    head
    for head, kind in kinds.HEADS.items()
    if kind in (kinds.EVENT, kinds.PERIOD, kinds.POLITY) and head != "states"
)
_NAMED_BY_HEAD = re.compile(rf"\b(?:{_HEADED}) of (?:the )?{_WORD}(?: (?:the )?{_WORD})*")
_CENTURY = re.compile(r"\b(?:[a-z]{3,8}(?:-[a-z]{3,6})?|\d{1,2})(?:th|st|nd|rd) century\b")
_OPENED = re.compile(r"(?:[.!?:;\"\u201c\u201d'\u2018(\[*_|]|--|\u2014|\n[ \t]*\n|^)\s*$")
_BEFORE = re.compile(r"(?:(\w+)\s+)?(\w+)(,)?\s*$")
_AFTER = re.compile(r"(\s*['\u2019]s\b)?\s*(,)?\s*(?:the |an? )?(\w+)?")
_NEVER = words.as_set(
    """Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May
    June July August September October November December Chapter Volume Vol Part Book Section Page
    Preface Contents Index Introduction Appendix Figure Table Oh Ah Alas Yes No God Lord Heaven
    Madam English French German Spanish Italian Latin Greek Roman Romans Christian Christmas Easter
    Project Gutenberg Editor Illustration Footnote Dear Esq Ltd Inc Title Author Language Release"""
)
_EPITHETS = words.as_set(
    """Great Elder Younger Good Bold Bald Wise Fair Conqueror Confessor Black White Red First Second
    Third Fourth Fifth Sixth Seventh Eighth Ninth Tenth"""
)
_REGNAL = words.as_set("King Queen Pope Saint St Emperor Empress Prince Princess Tsar Sultan")


@dataclass(eq=False)
class Name:
    """A name with its first place, how often it stands there, and what speaks for each kind."""

    text: str
    start: int
    end: int
    sentence: Sentence
    n_mentions: int = 0
    is_sure: bool = False
    title: str = ""
    votes: dict[str, float] = field(default_factory=dict)


@functools.lru_cache(maxsize=256)
def find(text: str) -> tuple[Name, ...]:
    """The distinct names of a text in order of their first mention.

    >>> [name.text for name in find("Then Sir Kay rode to York. York was far, said Sir Kay.")]
    ['Sir Kay', 'York']
    """
    reading = read(text)
    lower = frozenset(re.findall(rf"\b[{_LOWER}]{{2,}}\b", text))
    found: dict[str, Name] = {}
    for start, end, is_sure in _spans(text, lower):
        _add(found, reading, (start, end), is_sure)
    return tuple(_without_parts([name for name in found.values() if name.is_sure]))


def _spans(text: str, lower: frozenset[str]) -> Iterator[tuple[int, int, bool]]:
    """Where names may stand, and whether more than a sentence's first capital says so."""
    for match in _RUN.finditer(text):
        is_opening = bool(_OPENED.search(text, max(0, match.start() - 6), match.start()))
        tokens = [
            (word[0], match.start() + word.start(), match.start() + word.end())
            for word in re.finditer(r"\S+?(?:-\n[ \t]*\S+|(?=\s|$))", match[0])
        ]
        rest = _without_opener(tokens, is_opening, lower)
        for piece in _pieces(rest):
            alone = is_opening and piece[0] is tokens[0] and len(piece) == 1
            known = bool(kinds.of_name([piece[0][0]]))
            yield piece[0][1], piece[-1][2], not alone or known
    for shape in (_NAMED_BY_HEAD, _CENTURY):
        for match in shape.finditer(text):
            yield match.start(), match.end(), True


def _without_opener(tokens: list, is_opening: bool, lower: frozenset[str]) -> list:
    """The tokens of a run without words that only begin a sentence, and without stray links."""
    while tokens:
        word = tokens[0][0].rstrip(".")
        plain = word.lower()
        is_common = plain in words.STOP or (
            is_opening and (plain in lower or plain in words.COMMON)
        )
        is_kept = len(tokens) > 1 and (word in kinds.TITLES or plain in kinds.HEADS)
        if not word.islower() and not (is_common and not is_kept):
            break
        tokens = tokens[1:]
    while tokens and (tokens[-1][0].islower() or tokens[-1][0].lower() in words.STOP):
        tokens = tokens[:-1]
    return tokens


def _pieces(tokens: list) -> Iterator[list]:
    """The names in a run: "A of B" is one name, or two, or only B when A is a mere title."""
    plain = [token[0].rstrip(".") for token in tokens]
    if not tokens or (len(plain) == 1 and (plain[0] in _NEVER or len(plain[0]) < 2)):
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


def _add(found: dict[str, Name], reading: Reading, span: tuple[int, int], is_sure: bool) -> None:
    """Enter one mention: the name without courtesy, and what speaks for its kind."""
    raw = re.sub(r"-\s*\n\s*", "", reading.text[slice(*span)])
    tokens = raw.split()
    title = tokens[0] if tokens[0].rstrip(".") in kinds.TITLES and len(tokens) > 1 else ""
    votes = kinds.of_name(tokens)
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


def _around(text: str, span: tuple[int, int]) -> Iterator[tuple[str, float]]:
    """What the words before and after a mention say about its kind."""
    before = _BEFORE.search(text, max(0, span[0] - 40), span[0])
    if before and not before[3]:
        last, further = before[2].lower(), (before[1] or "").lower()
        yield from _led(last, further)
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
        is_weak = last == "to" or last in ("from", "across")
        yield kinds.SETTLEMENT, 0.5 if is_weak else 1.0
    elif last in ("of", "the") and further in kinds.HEADS:
        head = kinds.HEADS[further]
        yield kinds.SETTLEMENT if head in (kinds.EVENT, kinds.PERIOD) else head, 0.8
    elif last in kinds.HEADS:
        yield kinds.HEADS[last], 1.0
    elif last == "the":
        yield kinds.PERSON, -0.8
        yield kinds.NATURAL, 0.4
    elif last in kinds.ROLES or last in kinds.SPEECH:
        yield kinds.PERSON, 1.0
    elif last in kinds.OF_PLACE:
        yield kinds.SETTLEMENT, 0.3
    elif last in ("aboard", "vessel"):
        yield kinds.VEHICLE, 1.5


def _without_parts(found: list[Name]) -> list[Name]:
    """The names without those that are a mere part of a longer one with the same person."""
    longer = [name for name in found if " " in name.text and _is_person(name)]
    parts = {word: name for name in reversed(longer) for word in name.text.split()}
    kept = []
    for name in found:
        whole = parts.get(name.text)
        if whole is None or whole is name or _is_place(name):
            kept.append(name)
        else:
            whole.n_mentions += name.n_mentions
    return kept


def _is_person(name: Name) -> bool:
    return name.votes.get(kinds.PERSON, 0.0) > 0 and not _is_place(name)


def _is_place(name: Name) -> bool:
    places = (kinds.SETTLEMENT, kinds.COUNTRY, kinds.NATURAL, kinds.FACILITY)
    return max(name.votes.get(kind, 0.0) for kind in places) > name.votes.get(kinds.PERSON, 0.0)
