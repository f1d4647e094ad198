"""What to send next: one pure question, asked at the first submission, after a crash, on retry.

Decides from tables alone. Never asks for what is in flight or validly answered, whoever asked
before; never asks again where asking again cannot help.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import answers, models, prompts
from lib.study import Study

LARGEST_FACTOR = 8  # no retry has a cap beyond this many times the study's
_AGAIN_LARGER = ("empty", "truncated")
_AGAIN_ONCE = ("malformed", "invalid", "refused")
_COLUMNS = ["key", "attempt", "model", "annotator", "item", "max_output_tokens"]
_COLUMNS += ["n_input_tokens", "n_bytes"]
_FAULT = ["model", "outcome", "code", "message"]


class Try(NamedTuple):
    """One attempt at a request and how it ended; `passing` if the service was the cause."""

    attempt: int
    model: str
    outcome: str
    passing: bool


def wanted(
    requests: pd.DataFrame, outcomes: pd.DataFrame, in_flight: set[str], study: Study
) -> pd.DataFrame:
    """The requests to send now: a row a key, with attempt, model and cap, in the requests' order.

    `outcomes` holds every attempt so far. Missing, expired, cancelled and failed for the service's
    sake: again, until the model has failed so as often as the study's attempts. Empty or truncated:
    again with twice the cap, as often and as far as the cap can grow. Malformed, invalid, refused:
    once again, then each model of the annotator's fallback likewise. Other failures: not again.
    """
    unique = requests.drop_duplicates("key", ignore_index=True)
    failed = outcomes[outcomes["outcome"].ne("valid")]
    done = outcomes.loc[outcomes["outcome"].eq("valid"), "key"]
    left = unique[~unique["key"].isin(in_flight) & ~_among(unique["key"], done)]
    is_tried = _among(left["key"], failed["key"])
    fresh = left[~is_tried].assign(attempt=0)
    histories = _histories(failed[_among(failed["key"], left.loc[is_tried, "key"])])
    retries = {
        place: again
        for place, row in zip(left.index[is_tried], left[is_tried].to_dict("records"), strict=True)
        if (again := _next(row, histories[row["key"]], study))
    }
    if retries:
        fresh = pd.concat([fresh, pd.DataFrame.from_dict(retries, orient="index")]).sort_index()
    return fresh[_COLUMNS].reset_index(drop=True)


def review(
    requests: pd.DataFrame,
    outcomes: pd.DataFrame,
    still_wanted: pd.DataFrame,
    in_flight: set[str] = frozenset(),
) -> pd.DataFrame:
    """What no further attempt will answer: the last outcome of each key, for people to look at.

    A row for each request, so that items with the same text all appear.
    """
    done = outcomes.loc[outcomes["outcome"].eq("valid"), "key"]
    open_keys = {*done, *still_wanted["key"], *in_flight}
    left = outcomes[outcomes["key"].isin(set(requests["key"]) - open_keys)]
    last = left.sort_values("attempt").drop_duplicates("key", keep="last")
    return last.merge(requests[["key", "item", "annotator", "repeat"]], on="key")


def health(requests: pd.DataFrame, outcomes: pd.DataFrame, study: Study) -> pd.DataFrame:
    """By model: judged and valid answers to the present requests, and what follows from them.

    Outcomes that the service caused are not judged. `untried`: a canary goes first; `failed`: more
    than the study's share of the judged answers is not valid, nothing more is sent. A model that
    is a fallback only stands here from as many answers on as a canary has.
    """
    bounds = study.sending
    mine = outcomes[_among(outcomes["key"], requests["key"])]
    judged = mine[~answers.retryable(mine)]
    n_judged = judged.groupby("model").size().to_dict()
    n_valid = judged[judged["outcome"].eq("valid")].groupby("model").size().to_dict()
    n_asked = requests.groupby("model")["key"].nunique().to_dict()
    also = {model for model, n in n_judged.items() if n >= bounds.canary}
    rows = []
    for model in sorted(also | set(n_asked)):
        n, good = n_judged.get(model, 0), n_valid.get(model, 0)
        enough = n >= min(bounds.canary, n_asked.get(model, bounds.canary))
        bad = n - good > bounds.max_failure_share * n
        verdict = "untried" if not enough else "failed" if bad else "passed"
        rows.append({"model": model, "n_judged": n, "n_valid": good, "verdict": verdict})
    return pd.DataFrame(rows, columns=["model", "n_judged", "n_valid", "verdict"])


def stopped(study: Study, names: list[str], outcomes: pd.DataFrame) -> str:
    """Why nothing more is sent to these models, with the commonest faults and what to do."""
    bad = outcomes[outcomes["model"].isin(names) & outcomes["outcome"].ne("valid")]
    counts = bad.fillna({"code": "", "message": ""}).groupby(_FAULT, sort=True).size()
    counts = counts.sort_values(ascending=False, kind="stable")
    said = [
        f"{model}: {n} x {outcome} {code} {message[:120]}".rstrip()
        for (model, outcome, code, message), n in counts.head(5).items()
    ]
    said += [f"and {len(counts) - 5} other faults"] if len(counts) > 5 else []
    return (
        f"stopped: more than {study.sending.max_failure_share:.0%} of the judged answers of "
        f"{', '.join(names)} are not valid ({'; '.join(said)}). Nothing more is sent to it. Change "
        "the prompt, the parameters (max_output_tokens when empty) or the model in study.yml, then "
        "run 01 again. If the cause was outside (quota, access) and is gone, begin a new run "
        "(--run NAME): it takes over every valid answer."
    )


def _among(keys: pd.Series, others: pd.Series) -> np.ndarray:
    """Which of the keys are among the others: `isin`, which is slow for a long column of text."""
    return pd.Index(others.unique()).get_indexer(keys) >= 0


def _histories(tried: pd.DataFrame) -> dict[str, list[Try]]:
    """The attempts at each key, in their order."""
    rows = tried.assign(passing=answers.retryable(tried)).sort_values("attempt", kind="stable")
    histories: dict[str, list[Try]] = {}
    for key, *row in rows[["key", *Try._fields]].itertuples(index=False, name=None):
        histories.setdefault(key, []).append(Try(*row))
    return histories


def _next(request: dict, history: list[Try], study: Study) -> dict | None:
    """The next attempt at a request after its `history`, or nothing when it has had its chances."""
    last, attempts = history[-1], study.sending.attempts
    annotator = study.annotators[request["annotator"]]
    same = [one for one in history if one.model == last.model]
    n_larger = sum(one.outcome in _AGAIN_LARGER for one in history)
    caps = [_cap(prompts.cap_of(annotator), n, last.model) for n in (n_larger - 1, n_larger)]
    model: str | None = None
    if last.passing:
        model = last.model if sum(one.passing for one in same) < attempts else None
    elif last.outcome in _AGAIN_LARGER:
        model = last.model if n_larger < attempts and caps[1] > caps[0] else None
    elif last.outcome in _AGAIN_ONCE:
        is_first = sum(one.outcome in _AGAIN_ONCE for one in same) < 2
        used = {one.model for one in history}
        chain = (model for model in annotator.fallback if model not in used)
        model = last.model if is_first else next(chain, None)
    if model is None:
        return None
    cap = _cap(prompts.cap_of(annotator), n_larger, model)
    return _attempt(request, model, cap, last.attempt + 1)


def _attempt(request: dict, model: str, cap: int, attempt: int) -> dict:
    """The request as it is sent again, with the size that its line has then."""
    more = _width(model, cap, attempt) - _width(request["model"], request["max_output_tokens"], 0)
    changed = {"model": model, "max_output_tokens": cap, "attempt": attempt}
    return {**request, **changed, "n_bytes": request["n_bytes"] + more}


def _width(model: str, cap: int, attempt: int) -> int:
    return len(f"{model}{models.facts(model).cap_parameter}{cap}{attempt}")


def _cap(cap: int, n_times: int, model: str) -> int:
    """The cap doubled `n_times`, within the largest factor and what the model can write."""
    larger = cap * min(2 ** max(n_times, 0), LARGEST_FACTOR)
    return min(larger, models.facts(model).max_output_tokens or larger)
