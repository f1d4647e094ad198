"""Entity lists: which names of a text belong into which list, and what is said about them.

Decides by the lists' names and descriptions what each one asks for. An attribute that the text does
not give near the name is null. Refuses to invent names.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lib.local_api.annotators import kinds, literals, names, quantities, reading
from lib.local_api.annotators.names import Name
from lib.local_api.annotators.noise import Noise, salt
from lib.local_api.annotators.plan import Node
from lib.local_api.annotators.reading import Reading

_LIFE = re.compile(r"\s*\(\s*(?:c\.\s*)?(\d{3,4})\s*[-\u2013\u2014]\s*(?:c\.\s*)?(\d{3,4})\s*\)")
_BORN = re.compile(r"\bborn\b[^.;]{0,40}?\b(\d{3,4})\b")
_DIED = re.compile(r"\bdied\b[^.;]{0,40}?\b(\d{3,4})\b")
_ROLE = re.compile(r"\s*,\s*(?:the |an? )?((?:[a-z]+ ){0,2}?)([a-z]+)\b( of (?:the )?[A-Z]\w+)?")
_SURE, _INFERRED = 2.0, 1.0
_PERSON_PRIOR = 0.5
_LEAST, _MOST_NAMES = 0.35, 300
_CONFUSION = 0.6
_QUOTES = re.compile(r"quot|evidence|context|sentence|excerpt|passage")
_ROLES = re.compile(r"role|occupation|profession|rank|^title$")
_TYPES = re.compile(r"type|kind|class|categor")
_CERTAINTY = re.compile(r"confiden|certain|probab")


@dataclass(frozen=True, eq=False)
class Entity:
    """A name as an annotator sees it: its kind, and how clearly the text shows that."""

    name: Name
    kind: str
    clearness: float


def seen(text: str, noise: Noise, takes_parts: bool) -> list[Entity]:
    """The names that an annotator notices in a text, with the kinds that it sees, in text order.

    A name that stands there often is missed less. A part of a longer name, such as a surname
    alone, counts only for lists of mere mentions.
    """
    found = (
        entity
        for name in names.find(text)
        if (takes_parts or name.whole is None)
        and noise.z(salt(name.text, "seen")) < noise.skill.notice + 0.25 * (name.n_mentions - 1)
        and (entity := _judged(name, noise)).clearness >= _LEAST
    )
    return list(itertools.islice(found, _MOST_NAMES))


def _judged(name: Name, noise: Noise) -> Entity:
    totals = dict(name.votes)
    totals[kinds.PERSON] = totals.get(kinds.PERSON, 0.0) + _PERSON_PRIOR
    spread = noise.skill.spread * _CONFUSION
    noisy = {
        kind: total + spread * noise.z(salt(name.text, kind)) for kind, total in totals.items()
    }
    best = max(noisy, key=lambda kind: (noisy[kind], kind))
    return Entity(name, best, totals[best])


def filed(
    found: Iterable[Entity], lists: Mapping[int, Mapping[str, float]]
) -> dict[int, list[Entity]]:
    """Entities by the number of the list that asks most for their kind."""
    by_list: dict[int, list[Entity]] = {number: [] for number in lists}
    for entity in found:
        home = kinds.home(entity.kind, lists)
        if home is not None:
            by_list[home].append(entity)
    return by_list


def examples(text: str, pattern: re.Pattern[str]) -> list[Entity]:
    """What a text has of the examples that a list's description gives, each once."""
    read = reading.read(text)
    first: dict[str, Entity] = {}
    for match in pattern.finditer(text):
        at = read.sentence_of(match.start())
        name = Name(match[0], match.start(), match.end(), at, 1, True)
        first.setdefault(match[0].lower(), Entity(name, "other", _SURE))
    return list(first.values())


def attribute(node: Node, read: Reading, entity: Entity) -> str | int | float | None:
    """What the text says near a name for one attribute; None when it says nothing."""
    if node.kind == "number":
        return _figure(node, read, entity)
    if _QUOTES.search(node.name):
        return read.quote(entity.name.sentence)
    if _ROLES.search(node.name):
        return role(read.text, entity.name)
    return type_word(entity) if _TYPES.search(node.name) else None


def value(node: Node, entity: Entity) -> int | None:
    """The place of the enum value that names an entity's kind or a confidence, if there is one."""
    if _CERTAINTY.search(node.name) and all(isinstance(one, int | float) for one in node.values):
        return min(
            range(len(node.values)), key=lambda at: abs(node.values[at] - _confidence(entity))
        )
    if not all(isinstance(one, str) for one in node.values):
        return None
    plain = [one.lower() for one in node.values]
    for word in (type_word(entity) or "", entity.kind):
        if word in plain:
            return plain.index(word)
    return kinds.home(entity.kind, {at: kinds.of_list(one, "") for at, one in enumerate(plain)})


def role(text: str, name: Name) -> str | None:
    """What a person is, by the words behind the name's comma or the title before the name."""
    behind = _ROLE.match(text, name.end)
    if behind and behind[2] in kinds.ROLES:
        return f"{behind[1]}{behind[2]}{behind[3] or ''}"
    return name.title.rstrip(".") or None


def type_word(entity: Entity) -> str | None:
    """The head word that names an entity's type, or the usual one of its kind."""
    for word in re.findall(r"\w+", entity.name.text.lower()):
        if kinds.HEADS.get(word) == entity.kind:
            return word
    return {kinds.SETTLEMENT: "city", kinds.COUNTRY: "country"}.get(entity.kind)


def _figure(node: Node, read: Reading, entity: Entity) -> int | float | None:
    """A confidence, an offset, or a year near the name, within the schema's bounds."""
    if _CERTAINTY.search(node.name):
        return literals.fitted(_confidence(entity), node.schema)
    if re.search(r"offset|^start$|^end$|char", node.name):
        return entity.name.end if "end" in node.name else entity.name.start
    asked = f"{node.name} {node.about}".lower()
    year = _year(read, entity.name, node.name.lower()) if "year" in asked else None
    low, high = literals.bounds(node.schema)
    return None if year is None or not low <= year <= high else literals.fitted(year, node.schema)


def _confidence(entity: Entity) -> float:
    if entity.clearness >= _SURE:
        return 1.0
    return 0.5 if entity.clearness >= _INFERRED else 0.3


def _year(read: Reading, name: Name, asked: str) -> float | None:
    """A year of birth, death, begin, end or of an event, from the words around a name."""
    near = read.text[name.end : name.end + 60]
    is_end = bool(re.search(r"death|died|end|until|to_", asked))
    if life := _LIFE.match(near):
        return float(life[2] if is_end else life[1])
    if re.search(r"birth|born|death|died", asked):
        found = (_DIED if is_end else _BORN).search(near)
        return float(found[1]) if found else None
    told = quantities.years(read.quote(name.sentence))
    if re.search(r"start|begin|end", asked):
        return told[is_end] if len(told) == 2 else None
    return told[0] if told else None
