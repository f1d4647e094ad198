"""What a field's description offers as evidence: cue phrases, telling words, default, condition.

Reads descriptions as people write them: a general part, then a line for each value, quoted cues
anywhere. Refuses to know any field by name.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lib.local_api.annotators import words
from lib.local_api.annotators.noise import salt
from lib.local_api.annotators.reading import Clue, stems_of

_QUOTED = re.compile(r"[\"\u201c]([^\"\u201c\u201d\n]{2,80})[\"\u201d]")
_LISTED = re.compile(r"\bcues?(?: phrases?| words?)?\s*[:=]\s*([^\n\"\u201c]+)", re.IGNORECASE)
_SUCH_AS = re.compile(r"\b(?:such as|e\.g\.|for example|including|like)[:,]?\s+([^.;\n)]+)", re.I)
_DEFAULT = re.compile(
    r"\bdefault(?:s to| value| is|:| to|=)*\s*[`'\"\u201c]?([\w-]+)", re.IGNORECASE
)
_GATE = re.compile(
    r"\b(?:applies|asked|counts?|answered?|meaningful|only)\b[^.\n]{0,30}?\b(?:when|if)\s+[`'\"\u201c]?(\w+)",
    re.IGNORECASE,
)
_OWN = re.compile(r"\b(?:of|by) the (?:writer|author|speaker)\b|\bown\b|\bfirst.?hand", re.I)
_TOPICAL = re.compile(
    r"\b(?:says? something|mention|about|speaks? of|spoken of|discuss|concern)", re.I
)
_FIRST_PERSON, _FIRST_PERSON_WEIGHT = ("i", "my", "me", "we", "our", "us"), 0.3
_NAME_WEIGHT, _CUE_WORD_WEIGHT, _TEXT_WEIGHT = 1.0, 0.4, 0.45
_PHRASE_BASE, _PHRASE_MOST = 0.6, 3.0


class Part(NamedTuple):
    """What a description says about one value: name words, cue phrases, running text."""

    name: str
    cues: tuple[str, ...]
    text: str


def words_of(value: object) -> str:
    """A value or field name as plain words.

    >>> words_of("staffResponse"), words_of("moderate_or_worse")
    ('staff Response', 'moderate or worse')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-/]+", " ", str(value))


def default(about: str, values: Sequence[Any]) -> int | None:
    """The place of the value for "nothing found": the stated default, else a neutral word.

    >>> default("Severity; default: mild", ["severe", "mild"]), default("", ["yes", "unknown"])
    (1, 1)
    """
    plain = [re.sub(r"[\W_]+", "", str(value)).lower() for value in values]
    stated = _DEFAULT.search(about)
    if stated and (wanted := re.sub(r"[\W_]+", "", stated[1]).lower()) in plain:
        return plain.index(wanted)
    return next((plain.index(word) for word in words.NEUTRAL if word in plain), None)


def gate(about: str) -> str | None:
    """The field on whose truth this one depends, as its description says.

    >>> gate("Who had it. Applies only when relevant is true.")
    'relevant'
    """
    found = _GATE.search(about)
    return found[1] if found else None


def is_topical(about: str) -> bool:
    """Whether a field asks if something is spoken of, so that denying it is speaking of it.

    >>> is_topical("The letter mentions a war."), is_topical("The guest would come again.")
    (True, False)
    """
    return bool(_TOPICAL.search(about))


def parts(about: str, values: Sequence[Any]) -> tuple[str, dict[int, str]]:
    """The general part of a description, and the text for each value, by the value's place."""
    general: list[str] = []
    said: dict[int, list[str]] = {}
    current = None
    names = {str(value).lower(): place for place, value in enumerate(values)}
    for line in about.splitlines():
        head, colon, rest = re.sub(r"^\s*(?:[-*•]\s*)?", "", line).partition(":")
        place = names.get(head.strip(" `'\"\u201c\u201d").lower()) if colon else None
        current = current if place is None else place
        told = line if place is None else rest
        (general if current is None else said.setdefault(current, [])).append(told)
    return "\n".join(general), {place: "\n".join(lines) for place, lines in said.items()}


def cues(text: str) -> tuple[str, ...]:
    """The cue phrases in a text: what is quoted, and what is listed after "Cues:".

    >>> cues('The writer. Cues: "I had", "my reaction"'), cues("cues: ill, fell sick")
    (('I had', 'my reaction'), ('ill', 'fell sick'))
    """
    listed = [cue for found in _LISTED.findall(text) for cue in found.split(",")]
    return tuple(cue.strip(" .") for cue in [*_QUOTED.findall(text), *listed] if cue.strip(" ."))


def examples(text: str) -> tuple[str, ...]:
    """Things that a description names as examples: cues, and lists after "such as".

    >>> examples("Allergens such as peanut, milk or shellfish.")
    ('peanut', 'milk', 'shellfish')
    """
    lists = [re.split(r",|\bor\b|\band\b", found) for found in _SUCH_AS.findall(text)]
    return (*cues(text), *(item.strip() for one in lists for item in one if item.strip()))


def clues(field: int, name: str, about: str, values: Sequence[Any]) -> list[tuple[str, Clue]]:
    """Evidence for the values of a closed field, each under its first stem.

    A word that speaks for several values speaks that much weaker for each, and not at all when it
    speaks for all of them; where it speaks much weaker than elsewhere, it does not count.
    """
    weights: dict[tuple[tuple[str, ...], int], float] = {}
    is_boolean = all(isinstance(value, bool) for value in values)
    for value, part in enumerate(_value_parts(name, about, values)):
        for stems, weight in _weighed(part):
            weights[stems, value] = max(weight, weights.get((stems, value), 0.0))
        for own in _FIRST_PERSON if not is_boolean and _OWN.search(part.text) else ():
            weights.setdefault(((own,), value), _FIRST_PERSON_WEIGHT)
    most: dict[tuple[str, ...], float] = {}
    for (stems, _), weight in weights.items():
        most[stems] = max(weight, most.get(stems, 0.0))
    strong = {key: weight for key, weight in weights.items() if 2 * weight >= most[key[0]]}
    n_values = Counter(stems for stems, _ in strong)
    return [
        (stems[0], Clue(field, value, weight / n_values[stems], stems[1:], salt(name, stems)))
        for (stems, value), weight in strong.items()
        if n_values[stems] < max(2, len(values))
    ]


def _value_parts(name: str, about: str, values: Sequence[Any]) -> list[Part]:
    general, said = parts(about, values)
    if all(isinstance(value, bool) for value in values):
        return [
            _boolean_part(value, name, general, said.get(i, "")) for i, value in enumerate(values)
        ]
    texts = [said.get(i, "") for i in range(len(values))]
    return [
        Part(words_of(value), cues(text), text) for value, text in zip(values, texts, strict=True)
    ]


def _boolean_part(value: bool, name: str, general: str, said: str) -> Part:
    """True is what name and description speak of; false only what its own line says."""
    if not value:
        return Part("", cues(said), said)
    return Part(words_of(name), cues(f"{general}\n{said}"), f"{general}\n{said}")


def _weighed(part: Part) -> Iterator[tuple[tuple[str, ...], float]]:
    """Phrases and single words of a value's part with their weights."""
    for cue in part.cues:
        if stems := stems_of(cue):
            told = sum(max(words.rarity(word), 0.1) for word in cue.split())
            yield stems, min(_PHRASE_BASE + told, _PHRASE_MOST)
    plain = _LISTED.sub(" ", _QUOTED.sub(" ", _DEFAULT.sub(" ", part.text)))
    sources = ((part.name, _NAME_WEIGHT), (" ".join(part.cues), _CUE_WORD_WEIGHT))
    for text, weight in (*sources, (plain, _TEXT_WEIGHT)):
        for word in words.WORD.findall(text):
            if told := words.rarity(word):
                yield (words.stem(word),), weight * told
