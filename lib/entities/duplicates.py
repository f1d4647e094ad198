"""Duplicates: keys that may be one name written in two ways, found without comparing all pairs.

Flags alone: nothing is merged here.
"""

import array
import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import numpy as np

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
    keys = sorted(keys)
    blocks, owners = array.array("q"), array.array("q")
    for n, key in enumerate(keys):
        for block in _blocks(key):
            blocks.append(hash(block))
            owners.append(n)
    near: dict[str, set[str]] = defaultdict(set)
    for together in _shared(np.asarray(blocks), np.asarray(owners)):
        for one, other in itertools.combinations([keys[n] for n in together], 2):
            if _near(one, other):
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


def _shared(blocks: np.ndarray, owners: np.ndarray) -> Iterator[list[int]]:
    """The owners of every block that several have."""
    order = np.lexsort((owners, blocks))
    blocks, owners = blocks[order], owners[order]
    borders = np.flatnonzero(np.diff(blocks)) + 1
    starts, ends = np.r_[0, borders], np.r_[borders, len(blocks)]
    several = np.flatnonzero(ends - starts > 1)
    for start, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
        yield owners[start:end].tolist()


def _blocks(key: str) -> Iterator[str]:
    """The key with one letter left out, or none, of each word that may differ."""
    words = key.split()
    for n, word in enumerate(words):
        if _may_differ(word):
            head, tail = " ".join([str(n), *words[:n]]), " ".join(words[n + 1 :])
            for variant in {word, *(word[:at] + word[at + 1 :] for at in range(len(word)))}:
                yield f"{head}|{variant}|{tail}"


def _may_differ(word: str) -> bool:
    return len(word) >= MIN_CHARS and word.isalpha() and not _ROMAN.fullmatch(word)


def _near(one: str, other: str) -> bool:
    """Whether two keys differ in one word alone, by one letter or one swap of neighbours."""
    pairs = [pair for pair in zip(one.split(), other.split(), strict=False) if len(set(pair)) > 1]
    if one.count(" ") != other.count(" ") or len(pairs) != 1 or not all(map(_may_differ, pairs[0])):
        return False
    one, other = sorted(pairs[0], key=len)
    if len(one) < len(other):
        return any(one == other[:at] + other[at + 1 :] for at in range(len(other)))
    differ = [n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    swapped = [one[n] for n in differ] == [other[n] for n in reversed(differ)]
    return len(differ) == 1 or (len(differ) == 2 and differ[1] == differ[0] + 1 and swapped)
