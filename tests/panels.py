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
    choices = [_values(field, names, words) for field in study.fields.values()]
    for values in itertools.product(*choices):
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


# Real votes, replayed as panels: annotator -> (the voters that are its repeats, weight, USD for
# 1,000 requests). Prices are our assumption, by the size of the model.
MEDIABIAS = {"gpt_4": 10.0, "gpt_3_5": 0.2, "mixtral_8x7b": 0.15, "flan_ul2": 0.1}
MEDIABIAS |= {"zephyr": 0.04, "openchat": 0.04, "mistral_7b": 0.04, "flan_t5_xl": 0.03}
TEAMS = {"willia-umbrela1": 2.0, "RMITIR-GPT4o": 2.0, "Olz-gpt4o": 2.0, "TREMA-4prompts": 0.3}
TEAMS |= {"h2oloo-zeroshot1": 2.0, "prophet-setting1": 0.3, "NISTRetrieval-instruct0": 0.5}
PROMPTS = ["gpt_3_5@zero-shot", "gpt_3_5@2-shot", "gpt_3_5@4-shot"]
RUNS = [f"NISTRetrieval-instruct{n}" for n in range(3)]


def _alone(model):
    return [f"{model}@zero-shot"]


_STRONG_WEAK = {"gpt_4": (_alone("gpt_4"), 2.0, 10.0), "gpt_3_5": (PROMPTS, 1.0, 0.2)}
_UMBRELA_NIST = {"umbrela": (["willia-umbrela1"], 2.0, 2.0), "nist": (RUNS, 1.0, 0.5)}
REAL = {
    "mediabias, 8 models": (
        "mediabias",
        "per_model",
        {name: (_alone(name), 1.0, usd) for name, usd in MEDIABIAS.items()},
    ),
    "mediabias, 4 models": (
        "mediabias",
        "per_model",
        {name: (_alone(name), 1.0, usd) for name, usd in list(MEDIABIAS.items())[:4]},
    ),
    "mediabias, gpt-4 (2) + 3 x gpt-3.5 (1)": ("mediabias", "per_model", _STRONG_WEAK),
    "mediabias, gpt-4 (2) + 3 x gpt-3.5 (1 each)": ("mediabias", "per_repeat", _STRONG_WEAK),
    "llmjudge, 7 teams": (
        "llmjudge",
        "per_model",
        {name.lower(): ([name], 1.0, usd) for name, usd in TEAMS.items()},
    ),
    "llmjudge, umbrela (2) + 3 x nist (1)": ("llmjudge", "per_model", _UMBRELA_NIST),
    "llmjudge, umbrela (2) + 3 x nist (1 each)": ("llmjudge", "per_repeat", _UMBRELA_NIST),
}
LABELS = {"mediabias": ["0", "1"], "llmjudge": ["0", "1", "2", "3"]}


def real(name, folder):
    """A panel of REAL: its study, the price of a request by annotator, and all votes."""
    data, mode, members = REAL[name]
    field = {"description": "-", "values": {label: {"description": "-"} for label in LABELS[data]}}
    panel = {one: (f"m-{one}", len(voters), weight) for one, (voters, weight, _) in members.items()}
    slot_of = {
        voter: (one, n) for one, (voters, _, _) in members.items() for n, voter in enumerate(voters)
    }
    said = pd.read_csv(folder / data / "votes.csv.gz", dtype=str)
    said = said[said["worker"].isin(slot_of)].drop_duplicates(["item", "worker"])
    places = pd.MultiIndex.from_product([said["item"].unique(), slot_of], names=["item", "worker"])
    votes = said.set_index(["item", "worker"]).reindex(places).reset_index()
    slots = votes["worker"].map(slot_of)
    valid = votes["label"].isin(LABELS[data])
    votes = votes.assign(
        field="label",
        annotator=slots.str[0],
        repeat=slots.str[1].astype("int64"),
        value=votes["label"].where(valid),
        abstained=pd.Series("stray", index=votes.index).mask(valid),
        model="-",
        simulated=False,
    )
    usd = {one: price / 1000 for one, (_, _, price) in members.items()}
    return making.study({"label": field}, panel, mode), usd, votes.drop(columns=["worker", "label"])
