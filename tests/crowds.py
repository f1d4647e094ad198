"""Published sets of votes, as the votes, gold and study of a panel."""

import making
import pandas as pd


def panel(shared, name, workers, values=None, weights=None):
    """Votes, gold and study; the workers become annotators a0, a1... in their order.

    What is not among the values abstains as stray, what was not asked as missing.
    """
    folder = shared / "data" / "votes" / name
    votes = pd.read_csv(folder / "votes.csv.gz", dtype=str, keep_default_na=False)
    truth = pd.read_csv(folder / "truth.csv", dtype=str)
    values = values or sorted(truth["truth"].unique())
    votes = votes[votes["worker"].isin(workers) & votes["item"].isin(truth["item"])]
    said = votes.drop_duplicates(["item", "worker"]).set_index(["item", "worker"])["label"]
    whole = pd.MultiIndex.from_product([sorted(truth["item"]), workers])
    said = said.reindex(whole.set_names(["item", "annotator"]))
    table = said.reset_index(name="value")
    names = {worker: f"a{n}" for n, worker in enumerate(workers)}
    reason = table["value"].isna().map({True: "missing", False: "stray"})
    known = table["value"].isin(values)
    table = table.assign(
        annotator=table["annotator"].map(names),
        model=table["annotator"],
        field="label",
        repeat=0,
        abstained=reason.mask(known),
        value=table["value"].where(known),
        simulated=False,
    )
    annotators = {
        names[worker]: (worker, 1, (weights or {}).get(worker, 1.0)) for worker in workers
    }
    field = making.field() | {"values": {value: {"description": "-"} for value in values}}
    gold = truth.rename(columns={"truth": "value"}).assign(field="label")
    return table, gold[["item", "field", "value"]], making.study({"label": field}, annotators)


def mediabias(shared):
    """Eight models with eight examples in the prompt."""
    models = ("flan_ul2", "gpt_3_5", "gpt_4", "llama_13b")
    models += ("mistral_7b", "mixtral_8x7b", "openchat", "zephyr")
    return panel(shared, "mediabias", [f"{model}@8-shot" for model in models])


def llmjudge(shared):
    """33 submissions of seven teams, on four grades."""
    workers = pd.read_csv(shared / "data" / "votes" / "llmjudge" / "workers.csv")["worker"]
    return panel(shared, "llmjudge", workers.tolist(), list("0123"))
