"""General English word lists and stems for the simulated annotators.

Decides which words carry no evidence, which ones negate, and which ones tell what kind of thing a
name is. Refuses to know any study: nothing here comes from a sample corpus.
"""

import functools
import re

WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|[.!?;:,()\u2014]")


def as_set(text: str) -> frozenset[str]:
    """The words of a text as a set.

    >>> sorted(as_set("b a b"))
    ['a', 'b']
    """
    return frozenset(text.split())


STOP = as_set(
    """a about above after again all am an and any anything applies are as asked at be became
    because been before being below between both but by can cannot case choose come concerns
    could cue cues default describe described describes did do document does doing done down each
    either else etc every everything example few field first for from further get given gives go
    got had has have having he her here hers him his how i if in into is it its itself just kind
    least less like made make makes many mention mentioned mentions may me might mine more most
    much must my name names neither no none nor not nothing now of off on once one only or other
    otherwise our out over own passage per question rather reads really relevant review reviewer
    reviews said same say says see seem shall she should so some someone something state stated
    states still such tell tells text than that the their them then there these they thing things
    this those through to too true under until up upon us use value values very was way we were
    what whatever when where whether which while who whom whose why will with within without
    would writer writes written yes yet you your false unknown s t d ll re ve m"""
)

COMMON = as_set(
    """able act add age ago air almost along already also although always among answer anyone area
    around arrive away back bad bed began begin best better big bit black body book boy bring
    brought business buy call came car care carry certain change child children city clear close
    cold company completely country course cut dark day days deal dear different dinner dish door
    drink early easy eat eaten end enough even evening ever everyone eye eyes face fact family far
    fast father feel felt find fine fire five follow food foot form found four free friend friends
    front full gave general girl give goes going gone good great green ground group guest guests
    half hand hands happen happened hard head hear heard heart held help high hold home hope hour
    hours house however human hundred idea important instead kept kitchen knew know known land
    large last late later lead learn leave left let letter life light line little live living long
    look looked lord lost lot love low main man matter mean means meat men menu mind minute minutes
    moment money month morning mother mouth move name near need never new next nice night north
    number often old open order ordered part party past pay people perhaps person piece place plan
    plate play point possible power pretty price problem public put quite ran read ready real
    reason red rest restaurant result return right room round run sat saw school second seen sense
    sent served service set several short show side simply since sit small sort sound south space
    speak special stand start stay step stood stop story strong sure table take taken taste ten
    thank think thought thousand three time times today together told took top toward town tried
    turn twenty two type understand use used usual usually visit voice wait want wanted war warm
    water week weeks well went white whole wife woman women word words work world worth year years
    young"""
)

NEGATORS = as_set("no not never without none neither nor cannot nothing nobody free lack denied")
CLAUSE_ENDS = as_set(". ! ? ; : , ( ) \u2014 but though although however except")

NEUTRAL = (
    *("none", "unknown", "notapplicable", "na", "unclear", "unspecified", "notstated"),
    *("notmentioned", "neutral", "other", "false", "no", "nothing", "irrelevant", "absent"),
)

PRAISE = as_set(
    """amazing awesome beautiful best brilliant charming clean comfortable delicious delight
    delightful enjoyed excellent fantastic favorite favourite fresh friendly glad good great happy
    helpful impressed incredible kind love loved lovely nice outstanding perfect pleasant pleased
    recommend superb tasty terrific thank wonderful"""
)
BLAME = as_set(
    """angry annoyed annoying awful bad bland boring broken cold dirty disappointed disappointing
    disappointment disgusting dreadful filthy hate hated horrible mediocre miserable nasty
    overpriced poor rude sad slow stale terrible ugly unfortunately unhelpful unpleasant upset
    worse worst wrong"""
)

_SUFFIXES = (
    "ations",
    "ation",
    "ingly",
    "edly",
    "ions",
    "ings",
    "ness",
    "ion",
    "ing",
    "ies",
    "ied",
    "ical",
)
_LONGEST = 8
_SHORT_SUFFIXES = ("ed", "es", "ly", "er", "ic", "s", "y", "e")


@functools.lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The form under which word forms of one family meet: suffix off, at most eight letters.

    >>> stem("Allergies"), stem("allergic"), stem("reaction"), stem("reacted")
    ('allerg', 'allerg', 'react', 'react')
    """
    word = word.lower().replace("\u2019", "'").removesuffix("'s")
    if "'" in word:
        return word
    for suffixes in (_SUFFIXES, _SHORT_SUFFIXES):
        for suffix in suffixes:
            if word.endswith(suffix) and len(word) - len(suffix) >= 3:
                return word.removesuffix(suffix)[:_LONGEST]
    return word[:_LONGEST]


def rarity(word: str) -> float:
    """How much one word can prove: 0 for function words, little for the commonest, else 1.

    >>> rarity("the"), rarity("table"), rarity("symphony")
    (0.0, 0.2, 1.0)
    """
    word = word.lower()
    if word in STOP or not word[:1].isalnum() or "'" in word:
        return 0.0
    if word in COMMON or word.removesuffix("s") in COMMON:
        return 0.2
    return 1.0 if len(word) > 3 else 0.6
