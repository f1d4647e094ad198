"""Numbers that a text states for a question.

Decides which number near the question's words is meant, or how a tone becomes a rating. Refuses
numbers outside the schema's bounds.
"""

import re
from collections.abc import Sequence

from lib.local_api.annotators import literals, words
from lib.local_api.annotators.plan import Node
from lib.local_api.annotators.reading import Hit, Reading

_FIGURE = re.compile(r"(?<![\w.])-?\d{1,3}(?:,\d{3})+(?![\d,])|(?<![\w.])-?\d{1,15}(?:\.\d{1,6})?")
_COUNTED = ["zero", "one", "two", "three", "four", "five", "six"]
_COUNTED += ["seven", "eight", "nine", "ten", "eleven", "twelve"]
_WORDED = re.compile(rf"\b(?:{'|'.join(_COUNTED)})\b", re.IGNORECASE)
_YEAR = re.compile(r"(?<![\d.,])(\d{3,4})(?![\d,]|\.\d)(\s*B\.? ?C)?")
_RATED = re.compile(r"rating|score|sentiment|stars?\b|polarity|tone\b|satisf", re.IGNORECASE)
_TONES = {
    **dict.fromkeys(map(words.stem, words.PRAISE), 1.0),
    **dict.fromkeys(map(words.stem, words.BLAME), -1.0),
}


def found(
    node: Node, read: Reading, hits: Sequence[Hit], within: tuple[int, int], spread: float
) -> int | float | None:
    """The number that a text states for a question, or None.

    `within` bounds the words looked at; `spread` moves a rating made from the tone.
    """
    asked = f"{node.name} {node.about}"
    for sentence in dict.fromkeys(read.sentence_at(hit.position) for hit in hits):
        stated = read.text[sentence.start : sentence.end]
        for number in years(stated) if "year" in asked.lower() else figures(stated):
            if _is_allowed(number, node):
                return literals.fitted(number, node.schema)
    if _RATED.search(asked):
        return _rating(node, read, within, spread)
    return None


def figures(text: str) -> list[float]:
    """The numbers in a text, in digits or in words to twelve.

    >>> figures("Three of us paid 1,250.")
    [1250.0, 3.0]
    """
    digits = [float(one.replace(",", "")) for one in _FIGURE.findall(text)]
    return digits + [float(_COUNTED.index(one.lower())) for one in _WORDED.findall(text)]


def years(text: str) -> list[float]:
    """The years in a text; before our era they are negative.

    >>> years("From 753 BC until 1453.")
    [-753.0, 1453.0]
    """
    return [float(digits) * (-1 if before else 1) for digits, before in _YEAR.findall(text)]


def tone(read: Reading, within: tuple[int, int]) -> float:
    """From -1, all praise denied or blame, to 1, all praise; 0 without either."""
    told = [
        -_TONES[stem] if negated else _TONES[stem]
        for stem, negated in zip(
            read.stems[slice(*within)], read.negated[slice(*within)], strict=True
        )
        if stem in _TONES
    ]
    return sum(told) / len(told) if told else 0.0


def _rating(node: Node, read: Reading, within: tuple[int, int], spread: float) -> int | float:
    low, high = literals.bounds(node.schema)
    low, high = max(low, -1e9), min(high, 1e9)
    if high - low > 1e6:
        low, high = (1, 5) if node.schema.get("type") == "integer" else (-1, 1)
    aim = (low + high) / 2 + (tone(read, within) + spread / 2) * (high - low) / 2
    return literals.fitted(min(max(aim, low), high), node.schema)


def _is_allowed(number: float, node: Node) -> bool:
    low, high = literals.bounds(node.schema)
    whole = node.schema.get("type") != "integer" or number.is_integer()
    return low <= number <= high and whole
