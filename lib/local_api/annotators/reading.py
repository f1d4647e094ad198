"""A text as the simulated annotators see it: stems, negation, sentences, evidence.

Decides what in a text speaks for which value of which field. Refuses to judge: weighing and
choosing is done in `judging`.
"""

import bisect
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lib.local_api.annotators import words

_NEGATION_REACH = 4
_NEGATORS = frozenset(map(words.stem, words.NEGATORS))
_CLAUSE_ENDS = frozenset(map(words.stem, words.CLAUSE_ENDS))
_SHORT = "".join(rf"(?<!\b{one}\.)" for one in ("Mr", "Mrs", "Dr", "St", "Esq", "Rev", "[A-Z]"))
# Both kinds of border start with one character class, so that the search skips to the next of them.
_STOP = rf"(?<=[.!?])(?<![.!?][.!?]){_SHORT}[.!?]*[\"'\u201d\u2019)]*(?=\s|$)"
_BORDER = re.compile(rf"[.!?\n](?:{_STOP}|(?<=\n)[ \t]*\n)")


class Clue(NamedTuple):
    """One word or phrase that speaks for a value of a closed field; `rest` are its later stems."""

    field: int
    value: int
    weight: float
    rest: tuple[str, ...]
    salt: int


class Hit(NamedTuple):
    """A clue found in the text at a word position."""

    value: int
    weight: float
    position: int
    negated: bool
    salt: int


class Sentence(NamedTuple):
    """Borders of a sentence in characters and in words."""

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Reading:
    """A text with its stems (punctuation included), which of them are negated, its sentences."""

    text: str
    stems: tuple[str, ...]
    negated: tuple[bool, ...]
    sentences: tuple[Sentence, ...]

    def sentence_at(self, position: int) -> Sentence:
        """The sentence that holds a word position; the last one when past the end."""
        at = bisect.bisect_right(self.sentences, position, key=lambda one: one.last)
        return self._at(at)

    def sentence_of(self, character: int) -> Sentence:
        """The sentence that holds a character; the last one when past the end."""
        at = bisect.bisect_right(self.sentences, character, key=lambda one: one.end)
        return self._at(at)

    def _at(self, place: int) -> Sentence:
        if not self.sentences:
            return Sentence(0, len(self.text), 0, 0)
        return self.sentences[min(place, len(self.sentences) - 1)]

    def quote(self, sentence: Sentence) -> str:
        """The exact text of a sentence without the white space around it."""
        return self.text[sentence.start : sentence.end].strip()


@functools.lru_cache(maxsize=256)
def read(text: str) -> Reading:
    """Split a text into sentences and stems, and mark what stands behind a negation.

    >>> read("I had no reaction. Tasty!").stems
    ('i', 'had', 'no', 'react', '.', 'tast', '!')
    >>> read("I had no reaction. Tasty!").negated[3:6]
    (True, False, False)
    """
    stems: list[str] = []
    sentences = []
    start = 0
    for end in [*(border.end() for border in _BORDER.finditer(text)), len(text)]:
        found = [words.stem(word) for word in words.WORD.findall(text, start, end)]
        if found:
            sentences.append(Sentence(start, end, len(stems), len(stems) + len(found)))
            stems += found
        start = end
    return Reading(text, tuple(stems), _negated(stems), tuple(sentences))


def _negated(stems: Sequence[str]) -> tuple[bool, ...]:
    """Which words stand shortly behind a negation in the same clause."""
    marks = [False] * len(stems)
    negators = {stem for stem in set(stems) if stem in _NEGATORS or stem.endswith("n't")}
    for position in [at for at, stem in enumerate(stems) if stem in negators]:
        for after in range(position + 1, min(position + 1 + _NEGATION_REACH, len(stems))):
            if stems[after] in _CLAUSE_ENDS:
                break
            marks[after] = True
    return tuple(marks)


def hits(reading: Reading, index: Mapping[str, Sequence[Clue]]) -> dict[int, tuple[Hit, ...]]:
    """All clues of the index found in the text, by field, in text order."""
    found: dict[int, list[Hit]] = {}
    stems, negated = reading.stems, reading.negated
    for position in [at for at, stem in enumerate(stems) if stem in index]:
        for clue in index[stems[position]]:
            after = position + 1
            if not clue.rest or stems[after : after + len(clue.rest)] == clue.rest:
                hit = Hit(clue.value, clue.weight, position, negated[position], clue.salt)
                found.setdefault(clue.field, []).append(hit)
    return {field: tuple(listed) for field, listed in found.items()}


def stems_of(phrase: str) -> tuple[str, ...]:
    """The stems of a phrase as they stand in a reading, without punctuation.

    >>> stems_of("My reaction!")
    ('my', 'react')
    """
    found = words.WORD.findall(phrase)
    return tuple(words.stem(word) for word in found if word[0].isalnum())
