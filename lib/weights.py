"""Weights: what a vote of each panel slot counts, and as exact whole numbers.

Decides how the repeats of an annotator share its weight. Refuses to compare sums of floats: every
weight becomes a whole number of units, so that a tie is a tie.
"""

import math
from collections.abc import Mapping
from fractions import Fraction

import pandas as pd

from lib.study import Study


def weigh(study: Study) -> pd.DataFrame:
    """The planned weight of every panel slot: annotator, repeat, model, weight.

    Per model (default) the repeats share the annotator's weight; per repeat each has it. In
    `mode: alarm` only the strong annotator has any.
    """
    heavy = _written(study)
    rows = [
        (name, repeat, one.model, heavy[name] / one.repeats if shared(study) else heavy[name])
        for name, one in study.annotators.items()
        for repeat in range(one.repeats)
    ]
    return pd.DataFrame(rows, columns=["annotator", "repeat", "model", "weight"])


def warn(study: Study) -> list[str]:
    """Sentences about weights that let the repeats of one model outvote a stronger one."""
    if shared(study):
        return []
    weights, panel = _written(study), study.annotators.items()
    return outvoted({name: (one.model, one.repeats, weights[name]) for name, one in panel})


def outvoted(panel: Mapping[str, tuple[str, int, float]]) -> list[str]:
    """The sentences of `warn` for voters that are a model, a number of repeats, and the weight of
    each repeat.
    """
    return [
        _outvoted(strong, panel[strong], weak, panel[weak])
        for strong in panel
        for weak in panel
        if panel[weak][2] < panel[strong][2]
        and panel[weak][1] * panel[weak][2] > panel[strong][1] * panel[strong][2]
    ]


def of_annotators(study: Study) -> pd.DataFrame:
    """Each annotator's weight as written, and in whole units: the exact arithmetic of votes.

    Columns: annotator, weight, shared, units (of the annotator's vote, which any number of repeats
    can share), slot_units (planned for each of its repeats), scale (units in a weight of 1).
    """
    most = max(one.repeats for one in study.annotators.values()) if shared(study) else 1
    table = in_units(_written(study), most)
    if shared(study):
        table["slot_units"] //= [one.repeats for one in study.annotators.values()]
    return table.assign(shared=shared(study))


def in_units(written: Mapping[str, float], most: int = 1) -> pd.DataFrame:
    """Weights as whole units that up to `most` repeats can share; columns as `of_annotators`."""
    weights = {name: _exact(weight) for name, weight in written.items()}
    scale = math.lcm(*(weight.denominator for weight in weights.values()))
    scale *= math.lcm(*range(1, most + 1))
    units = [int(weight * scale) for weight in weights.values()]
    columns = {"weight": list(written.values()), "units": units, "slot_units": units}
    return pd.DataFrame({"annotator": list(written), **columns, "scale": scale})


def shared(study: Study) -> bool:
    """Whether the repeats of an annotator share its weight."""
    return study.panels[study.panel].weights == "per_model"


def exact(share: float) -> Fraction:
    """The fraction that a person meant by a share.

    >>> exact(1 / 3), exact(0.35)
    (Fraction(1, 3), Fraction(7, 20))
    """
    return Fraction(share).limit_denominator(1000)


def _written(study: Study) -> dict[str, float]:
    """The weight of each annotator; in `mode: alarm` those that only raise alarms have none."""
    strong = study.panels[study.panel].strong
    return {
        name: one.weight if strong in (None, name) else 0.0
        for name, one in study.annotators.items()
    }


def _exact(weight: float) -> Fraction:
    """A weight to a millionth at least: simple ones exactly, learned ones rounded."""
    simple = Fraction(weight).limit_denominator(60)
    if math.isclose(simple, weight, rel_tol=1e-12):
        return simple
    return Fraction(round(weight * 1_000_000) or 1, 1_000_000)


def _outvoted(
    strong_name: str, strong: tuple[str, int, float], name: str, weak: tuple[str, int, float]
) -> str:
    model, repeats, weight = weak
    return (
        f"The {repeats} repeats of {name} ({model}, weight {weight:g} each, "
        f"{repeats * weight:g} together) outvote {strong_name} ({strong[0]}, "
        f"{strong[1] * strong[2]:g} together) whenever they agree, and repeats of one "
        "model are worth about one vote. Consider weights: per_model."
    )
