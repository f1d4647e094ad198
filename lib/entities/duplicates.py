"""Duplicates: keys that may be one name written in two ways, found without comparing all pairs.

Flags alone: nothing is merged here.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

MIN_CHARS = 4
_ROMAN = re.compile(r"[ivxlcdm]+")


def containing(keys: Collection[str]) -> dict[str, set[str]]:
    """For each key those of the others whose words hold all of its words.

    >>> containing(["richard", "richard of york", "york", "john"])["richard"]
    {'richard of york'}
    """
    words = {key: frozenset(key.split()) for key in keys}
    having: dict[str, set[str]] = defaultdict(set)
    for key, some in words.items():
        for word in some:
            having[word].add(key)
    larger = {}
    for key, some in words.items():
        sets = sorted((having[word] for word in some), key=len)
        larger[key] = set.intersection(*sets) - {key} if sets else set()
    return larger


def one_letter_apart(keys: Collection[str]) -> dict[str, set[str]]:
    """For each key the others that differ in one word of 4 letters or more, by one letter.

    One letter more, less or other, or two neighbours swapped. Numerals are never alike: Henry II is
    not Henry III. Words are compared when they are equal after leaving out at most one letter each
    (Mor and Fraenkel 1982), so that time grows with the letters of all keys.

    >>> one_letter_apart(["guinevere", "guenevere", "henry ii", "henry iii"])["guinevere"]
    {'guenevere'}
    """
    blocks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in keys:
        for block in _blocks(key):
            blocks[block].append(key)
    near: dict[str, set[str]] = defaultdict(set)
    for together in blocks.values():
        for n, one in enumerate(together):
            for other in together[n + 1 :]:
                if one != other and _near(one, other):
                    near[one].add(other)
                    near[other].add(one)
    return near


def aliases(
    documents: Mapping[str, Collection[str]], larger: Mapping[str, set[str]]
) -> dict[str, set[str]]:
    """For each key the longer ones that are likely the same: they share a document where one of
    them holds the words of all others, so that it is clear who is meant.

    `documents` gives the documents of each key. "Musgrove" beside Charles Musgrove alone is he;
    beside Charles and Henry Musgrove it may be either.

    >>> both = {"musgrove": ["d1"], "charles musgrove": ["d1"], "henry musgrove": ["d2"]}
    >>> aliases(both, containing(both))["musgrove"]
    {'charles musgrove'}
    """
    found: dict[str, set[str]] = {}
    for key, longer in larger.items():
        mine = set(documents[key])
        beside: dict[str, set[str]] = defaultdict(set)
        for other in longer:
            for document in mine.intersection(documents[other]):
                beside[document].add(other)
        clear = [some for some in beside.values() if _one_holds_all(some, larger)]
        found[key] = set().union(*clear)
    return found


def _one_holds_all(keys: set[str], larger: Mapping[str, set[str]]) -> bool:
    longest = max(keys, key=lambda key: (len(key.split()), key))
    return all(key == longest or longest in larger[key] for key in keys)


def _blocks(key: str) -> Iterator[tuple[str, ...]]:
    """The key with one letter left out, or none, of each word that may differ."""
    words = key.split()
    for n, word in enumerate(words):
        if len(word) >= MIN_CHARS and word.isalpha() and not _ROMAN.fullmatch(word):
            shorter = {word, *(word[:at] + word[at + 1 :] for at in range(len(word)))}
            for variant in shorter:
                yield (str(n), *words[:n], variant, *words[n + 1 :])


def _near(one: str, other: str) -> bool:
    """Whether two keys of one block are one letter, or one swap of neighbours, apart."""
    if len(one) != len(other):
        return abs(len(one) - len(other)) == 1
    differ = [n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    if len(differ) == 1:
        return True
    if len(differ) != 2 or differ[1] != differ[0] + 1:
        return False
    first, second = differ
    return one[first] == other[second] and one[second] == other[first]
