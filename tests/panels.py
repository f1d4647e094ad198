"""Random panels, and all that their annotators could say, for tests of bounds."""

import itertools

import making
import pandas as pd
from hypothesis import strategies as st

WEIGHTS = [1.0, 2.0, 3.0, 0.5, 0.7, 1.25, 1 / 3, 2 / 3]
QUORUMS = [0.0, 0.25, 0.5, 0.6, 0.75, 0.9]
PREFER = [None, None, "calm", "mixed", "schema order", "heaviest"]
NAMES = ["[]", '["arthur"]', '["merlin"]', '["arthur", "merlin"]']


@st.composite
def fields(draw):
    """One to three fields, of which one may need another to be true."""
    prefer, threshold = st.sampled_from(PREFER), st.sampled_from([None, 0.2, 0.5, 2 / 3, 1.0])
    choice = {
        "mood": making.field(prefer=draw(prefer)),
        "seen": making.field("boolean", prefer=draw(st.sampled_from([None, "true", "heaviest"]))),
        "people": making.field("entities", threshold=draw(threshold)),
        "note": making.field("text"),
    }
    names = draw(st.lists(st.sampled_from(sorted(choice)), min_size=1, max_size=2, unique=True))
    found = {name: choice[name] for name in names}
    if "seen" in found and draw(st.booleans()):
        found["why"] = making.field(when="seen", prefer=draw(prefer))
    return dict(draw(st.permutations(list(found.items()))))


@st.composite
def studies(draw, of_fields=None, max_slots=6):
    """A study with one to four annotators, whose repeats share their weight or do not."""
    annotators, n_left = {}, max_slots
    for name in "abcd"[: draw(st.integers(1, 4))]:
        if n_left:
            repeats = draw(st.integers(1, min(5, n_left)))
            annotators[name] = (f"m-{name}", repeats, draw(st.sampled_from(WEIGHTS)))
            n_left -= repeats
    mode = draw(st.sampled_from(["per_model", "per_model", "per_repeat"]))
    return making.study(
        draw(fields()) if of_fields is None else of_fields,
        annotators,
        mode,
        quorum=draw(st.sampled_from(QUORUMS)),
    )


def answers(study, names=NAMES, words=("1", "2")):
    """All that one request can give: field -> (value, reason of abstention)."""
    said = [dict.fromkeys(study.fields, (None, "refused"))]
    values = [_values(field, names, words) for field in study.fields.values()]
    for values in itertools.product(*values):
        answer = dict(zip(study.fields, values, strict=True))
        for name, field in study.fields.items():
            if field.when and answer[field.when][0] != "true":
                answer[name] = None, answer[field.when][1] or "not_applicable"
        if answer not in said:
            said.append(answer)
    return said


def _values(field, names, words):
    if field.type == "entities":
        return [*((one, None) for one in names), (None, "stray")]
    return [*((one, None) for one in field.allowed or words), (None, "stray")]


def slots(study):
    """The slots of the panel."""
    return [(name, n) for name, one in study.annotators.items() for n in range(one.repeats)]


def table(study, by_item):
    """Votes: item -> slot -> answer; a slot without an answer has no rows."""
    rows = [
        (item, name, *slot, study.annotators[slot[0]].model, *answer[name], False)
        for item, said in by_item.items()
        for slot, answer in said.items()
        for name in study.fields
    ]
    names = ["item", "field", "annotator", "repeat", "model", "value", "abstained", "simulated"]
    return pd.DataFrame(rows, columns=names)
