"""Skill and noise of the simulated annotators.

Decides how well a model reads and how far its repeats agree. All numbers come from SHA-256 seeds
and integer arithmetic, so that a request gets the same answer on every machine. Refuses any other
source of chance.
"""

import hashlib
import zlib
from dataclasses import dataclass

_MASK = (1 << 64) - 1
_THIRD = (1 << 21) - 1
_SHARED_BY_MODELS, _SHARED_BY_REPEATS, _OWN = 0.43, 0.75, 0.50


@dataclass(frozen=True)
class Skill:
    """What a model can do: z-scores to pass, spread of its judgment, share of refusals."""

    notice: float
    spread: float
    p_refusal: float


SKILLS = {
    "nano": Skill(notice=0.42, spread=0.85, p_refusal=0.006),
    "mini": Skill(notice=1.05, spread=0.55, p_refusal=0.003),
    "large": Skill(notice=1.75, spread=0.32, p_refusal=0.001),
}


@dataclass(frozen=True)
class Noise:
    """Seeds of one request: shared by all models, by the repeats of a model, and its own."""

    text: int
    model: int
    request: int
    skill: Skill

    def z(self, salt: int) -> float:
        """A roughly normal draw with mean 0 and variance 1 for one question of the request.

        The weights make repeats of a model agree much and models a little: the squares of the
        three shares add up to 1.
        """
        return (
            _SHARED_BY_MODELS * _normal(self.text, salt)
            + _SHARED_BY_REPEATS * _normal(self.model, salt)
            + _OWN * _normal(self.request, salt)
        )

    def notices(self, salt: int) -> bool:
        """Whether this annotator sees one piece of evidence at all."""
        return self.z(salt) < self.skill.notice


def seed(*parts: str) -> int:
    """The first 64 bits of the SHA-256 of the parts, joined by a NUL.

    >>> seed("a", "b") == seed("a", "b") != seed("b", "a")
    True
    """
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def salt(*parts: object) -> int:
    """A small stable number that names a question, to mix with a seed."""
    return zlib.crc32("\0".join(map(str, parts)).encode("utf-8", "surrogatepass"))


def uniform(seed: int, salt: int) -> float:
    """A draw from 0 (included) to 1 (excluded) for one question.

    >>> 0 <= uniform(7, 9) < 1
    True
    """
    return (_mixed(seed, salt) >> 11) / (1 << 53)


def _normal(seed: int, salt: int) -> float:
    """Sum of three uniform draws, scaled to mean 0 and variance 1."""
    x = _mixed(seed, salt)
    return ((x & _THIRD) + (x >> 21 & _THIRD) + (x >> 42 & _THIRD)) / (1 << 20) - 3.0


def _mixed(seed: int, salt: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014) over seed and salt."""
    x = (seed ^ (salt + 1) * 0x9E3779B97F4A7C15) & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31
