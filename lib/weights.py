"""Weights: what a vote of each panel slot counts, and as exact whole numbers.

Decides how the repeats of an annotator share its weight. Refuses to compare sums of floats: every
weight becomes a whole number of units, so that a tie is a tie.
"""

import math
from fractions import Fraction

import pandas as pd

from lib.study import Annotator, Study


def weigh(study: Study) -> pd.DataFrame:
    """The planned weight of every panel slot: annotator, repeat, model, weight.

    Per model (default) the repeats share the annotator's weight; per repeat each has it.
    """
    rows = [
        (name, repeat, one.model, one.weight / one.repeats if shared(study) else one.weight)
        for name, one in study.annotators.items()
        for repeat in range(one.repeats)
    ]
    return pd.DataFrame(rows, columns=["annotator", "repeat", "model", "weight"])


def warn(study: Study) -> list[str]:
    """Sentences about weights that let the repeats of one model outvote a stronger one."""
    if shared(study):
        return []
    return [
        _outvoted(strong_name, strong, name, weak)
        for strong_name, strong in study.annotators.items()
        for name, weak in study.annotators.items()
        if weak.weight < strong.weight
        and weak.weight * weak.repeats > strong.weight * strong.repeats
    ]


def of_annotators(study: Study) -> pd.DataFrame:
    """Each annotator's weight as written, and in whole units: the exact arithmetic of votes.

    Columns: annotator, weight, shared, units (of the annotator's vote, which any number of repeats
    can share), slot_units (planned for each of its repeats), scale (units in a weight of 1).
    """
    written = {name: _exact(one.weight) for name, one in study.annotators.items()}
    scale = math.lcm(*(weight.denominator for weight in written.values()))
    if shared(study):
        most = max(one.repeats for one in study.annotators.values())
        scale *= math.lcm(*range(1, most + 1))
    rows = []
    for name, one in study.annotators.items():
        units = int(written[name] * scale)
        rows.append((name, one.weight, units, units // one.repeats if shared(study) else units))
    table = pd.DataFrame(rows, columns=["annotator", "weight", "units", "slot_units"])
    return table.assign(shared=shared(study), scale=scale)


def shared(study: Study) -> bool:
    """Whether the repeats of an annotator share its weight."""
    return study.panels[study.panel].weights == "per_model"


def exact(share: float) -> Fraction:
    """The fraction that a person meant by a share.

    >>> exact(1 / 3), exact(0.35)
    (Fraction(1, 3), Fraction(7, 20))
    """
    return Fraction(share).limit_denominator(1000)


def _exact(weight: float) -> Fraction:
    """A weight to a millionth at least: simple ones exactly, learned ones rounded."""
    simple = Fraction(weight).limit_denominator(60)
    if math.isclose(simple, weight, rel_tol=1e-12):
        return simple
    return Fraction(round(weight * 1_000_000) or 1, 1_000_000)


def _outvoted(strong_name: str, strong: Annotator, name: str, weak: Annotator) -> str:
    return (
        f"The {weak.repeats} repeats of {name} ({weak.model}, weight {weak.weight:g} each, "
        f"{weak.repeats * weak.weight:g} together) outvote {strong_name} ({strong.model}, "
        f"{strong.repeats * strong.weight:g} together) whenever they agree, and repeats of one "
        "model are worth about one vote. Consider weights: per_model."
    )
