"""What to send next: one pure question, asked at the first submission, after a crash, on retry.

Decides from tables alone. Never asks for what is in flight or validly answered, whoever asked
before; never asks again where asking again cannot help.
"""

import pandas as pd

from lib import answers, models, prompts
from lib.study import Study

_AGAIN_LARGER = ("empty", "truncated")
_AGAIN_ONCE = ("malformed", "invalid", "refused")
_COLUMNS = ["key", "attempt", "model", "annotator", "item", "max_output_tokens"]
_COLUMNS += ["n_input_tokens", "n_bytes"]


def wanted(
    requests: pd.DataFrame, outcomes: pd.DataFrame, in_flight: set[str], study: Study
) -> pd.DataFrame:
    """The requests to send now: a row a key, with attempt, model and cap, in the requests' order.

    `outcomes` holds every attempt so far. Missing, expired, cancelled and failed for the service's
    sake: again, up to the study's attempts. Empty or truncated: again with twice the cap.
    Malformed, invalid, refused: once again, then each model of the annotator's fallback. Other
    failures: not again.
    """
    unique = requests.drop_duplicates("key", ignore_index=True)
    open_keys = unique[~unique["key"].isin(in_flight)]
    if outcomes.empty:
        return open_keys.assign(attempt=0)[_COLUMNS]
    done = set(outcomes.loc[outcomes["outcome"].eq("valid"), "key"])
    fresh = open_keys[~open_keys["key"].isin(set(outcomes["key"]))].assign(attempt=0)
    again = open_keys[open_keys["key"].isin(set(outcomes["key"]) - done)]
    tried = outcomes[outcomes["key"].isin(set(again["key"]))].sort_values("attempt")
    history = dict(iter(tried.groupby("key", sort=False)))
    retries = [_next(row, history[row["key"]], study) for row in again.to_dict("records")]
    return pd.concat(
        [fresh, pd.DataFrame([row for row in retries if row], columns=[*again.columns, "attempt"])]
    )[_COLUMNS]


def review(
    requests: pd.DataFrame, outcomes: pd.DataFrame, still_wanted: pd.DataFrame
) -> pd.DataFrame:
    """What no further attempt will answer: the last outcome of each key, for people to look at."""
    if outcomes.empty:
        return outcomes
    done = set(outcomes.loc[outcomes["outcome"].eq("valid"), "key"]) | set(still_wanted["key"])
    left = outcomes[outcomes["key"].isin(set(requests["key"]) - done)]
    last = left.sort_values("attempt").drop_duplicates("key", keep="last")
    return last.merge(requests[["key", "item", "annotator", "repeat"]], on="key")


def health(requests: pd.DataFrame, outcomes: pd.DataFrame, study: Study) -> pd.DataFrame:
    """By model: judged and valid answers to the present requests, and what follows from them.

    Outcomes that the service caused are not judged. `untried`: a canary goes first; `failed`: more
    than the study's share of the judged answers is not valid, nothing more is sent.
    """
    bounds = study.sending
    mine = outcomes[outcomes["key"].isin(requests["key"])]
    mine = mine[~answers.retryable(mine)] if len(mine) else mine
    rows = []
    for model, asked in requests.groupby("model", sort=True):
        judged = mine[mine["key"].isin(asked["key"])]
        n_valid = int(judged["outcome"].eq("valid").sum())
        enough = len(judged) >= min(bounds.canary, asked["key"].nunique())
        bad = len(judged) - n_valid > bounds.max_failure_share * len(judged)
        verdict = "untried" if not enough else "failed" if bad else "passed"
        rows.append(
            {"model": model, "n_judged": len(judged), "n_valid": n_valid, "verdict": verdict}
        )
    return pd.DataFrame(rows)


def stopped(study: Study, names: list[str], outcomes: pd.DataFrame) -> str:
    """Why nothing more is sent to these models, with the grouped faults and what to do."""
    bad = outcomes[outcomes["model"].isin(names) & outcomes["outcome"].ne("valid")]
    groups = bad.fillna({"code": "", "message": ""}).groupby(
        ["model", "outcome", "code", "message"]
    )
    said = "; ".join(
        f"{model}: {len(rows)} x {outcome} {code} {message[:120]}".rstrip()
        for (model, outcome, code, message), rows in groups
    )
    return (
        f"stopped: more than {study.sending.max_failure_share:.0%} of the judged answers of "
        f"{', '.join(names)} are not valid ({said}). Nothing more is sent to it. Change the prompt, "
        f"the parameters (max_output_tokens when empty) or the model in study.yml, then run 01 again."
    )


def _next(request: dict, history: pd.DataFrame, study: Study) -> dict | None:
    """The next attempt at one request after its `history`, or nothing when it has had its chances."""
    last, n_tried = history.iloc[-1], len(history)
    again = {**request, "attempt": int(last["attempt"]) + 1, "model": last["model"]}
    annotator = study.annotators[request["annotator"]]
    n_larger = int(history["outcome"].isin(_AGAIN_LARGER).sum())
    again["max_output_tokens"] = _larger(prompts.cap_of(annotator), n_larger, str(last["model"]))
    if n_tried < study.sending.attempts and bool(answers.retryable(history.tail(1)).iloc[0]):
        return again
    if last["outcome"] in _AGAIN_LARGER and n_larger < study.sending.attempts:
        return again
    if last["outcome"] in _AGAIN_ONCE:
        same = history[history["model"].eq(last["model"]) & history["outcome"].isin(_AGAIN_ONCE)]
        return again if len(same) < 2 else _fall_back(again, annotator.fallback)
    return None


def _fall_back(request: dict, chain: list[str]) -> dict | None:
    """The same request to the next model of the chain."""
    place = chain.index(request["model"]) + 1 if request["model"] in chain else 0
    return {**request, "model": chain[place]} if place < len(chain) else None


def _larger(cap: int, n_times: int, model: str) -> int:
    """The cap doubled `n_times`, at most what the model can write."""
    limit = models.facts(model).max_output_tokens
    return min(cap * 2**n_times, limit) if limit else cap * 2**n_times
