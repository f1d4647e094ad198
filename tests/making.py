"""Small studies and vote tables that tests of counting build in memory."""

import pandas as pd

from lib.study import Study

CATEGORY = {"values": {name: {"description": name} for name in ("calm", "angry", "mixed")}}


def field(kind="category", **more):
    """A field of this type; a category has the values calm, angry and mixed."""
    closed = CATEGORY if kind == "category" else {}
    return {"description": "-", "type": kind, **closed, **more}


def study(fields=None, annotators=None, weights="per_model", **voting):
    """A study with these fields and annotators: name -> (model, repeats, weight)."""
    annotators = annotators or {"a": ("m-a", 1, 1.0), "b": ("m-b", 1, 1.0), "c": ("m-c", 1, 1.0)}
    panel = {
        name: {"model": model, "repeats": repeats, "weight": weight}
        for name, (model, repeats, weight) in annotators.items()
    }
    return Study.model_validate(
        {
            "name": "moods",
            "title": "Moods",
            "question": "-",
            "corpus": {"all": {"path": "*.txt"}},
            "fields": fields or {"mood": field()},
            "panel": "p",
            "panels": {"p": {"annotators": panel, "weights": weights}},
            "voting": voting,
            "prompt": "{fields}",
            "folder": "data/moods",
        }
    )


def votes(of_study, answers):
    """A vote table; answers: (item, field) -> annotator -> one value, or one for each repeat.

    None is a missing answer, and the word "n/a" stands for a field that does not apply.
    """
    rows = []
    for (item, name), by_annotator in answers.items():
        for annotator, one in of_study.annotators.items():
            said = by_annotator.get(annotator)
            said = said if isinstance(said, list) else [said] * one.repeats
            for repeat, value in enumerate(said):
                reason = {None: "missing", "n/a": "not_applicable"}.get(value)
                kept = None if reason else value
                rows.append((item, name, annotator, repeat, one.model, kept, reason, False))
    names = ["item", "field", "annotator", "repeat", "model", "value", "abstained", "simulated"]
    return pd.DataFrame(rows, columns=names)
