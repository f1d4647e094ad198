"""What to send next: one pure question, asked at the first submission, after a crash, on retry.

Decides from tables alone. Never asks for what is in flight or validly answered, whoever asked
before; never asks again where asking again cannot help.
"""

import itertools
from collections.abc import Iterable, Set
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import answers, models, prompts, words
from lib.study import Study

LARGEST_FACTOR = 8  # no retry has a cap beyond this many times the study's
_BLOCKED = 100  # refusals of one request for want of access or credit, one for each command
_AGAIN_LARGER = ("empty", "truncated")
_AGAIN_ONCE = ("malformed", "invalid", "refused")
_COLUMNS = ["key", "attempt", "model", "annotator", "item", "max_output_tokens"]
_COLUMNS += ["n_input_tokens", "n_bytes"]
_FAULT = ["model", "outcome", "code", "message"]


class Try(NamedTuple):
    """One attempt at a request and how it ended: `passing` if the service was the cause, `blocked`
    if the account was.
    """

    attempt: int
    model: str
    outcome: str
    passing: bool
    blocked: bool


class Again(NamedTuple):
    """A further attempt at a request, and how much longer than the first its line is."""

    model: str
    max_output_tokens: int
    attempt: int
    n_more_bytes: int


def wanted(
    requests: pd.DataFrame, outcomes: pd.DataFrame, in_flight: set[str], study: Study
) -> pd.DataFrame:
    """The requests to send now: a row a key, with attempt, model and cap, in the requests' order.

    `outcomes` holds every attempt so far. Missing, expired, cancelled and failed for the service's
    sake: again, until the model has failed so as often as the study's attempts. Empty or truncated:
    again with twice the cap, as often and as far as the cap can grow. Malformed, invalid, refused:
    once again, then each model of the annotator's fallback likewise. Failed for want of access or
    credit: again, which the brake holds back until a canary has passed. Other failures: not again.
    """
    asked, tried, flying = numbered(requests["key"], outcomes["key"], in_flight)
    needed = requests[[name for name in _COLUMNS if name != "attempt"]]
    unique = needed[~pd.Series(asked).duplicated().to_numpy()].reset_index(drop=True)
    is_valid = outcomes["outcome"].eq("valid").to_numpy()
    is_open, is_fresh = np.ones(len(unique), dtype=bool), np.ones(len(unique), dtype=bool)
    is_open[[*flying[flying < len(unique)]]] = False
    is_open[tried[is_valid & (tried < len(unique))]] = False
    failed = np.flatnonzero(~is_valid & (tried < len(unique)))
    failed = failed[is_open[tried[failed]]]
    is_fresh[tried[failed]] = False
    fresh = unique[is_open & is_fresh].assign(attempt=0)
    if not len(failed):  # as in most steps
        return fresh[_COLUMNS].reset_index(drop=True)
    again = _again(unique, outcomes.iloc[failed].assign(place=tried[failed]), study)
    return pd.concat([fresh, again]).sort_index()[_COLUMNS].reset_index(drop=True)


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

    Outcomes that the service or the account caused are not judged. `untried`: a canary goes first;
    `failed`: more than the study's share of the judged answers is not valid, nothing more is sent.
    A model that is a fallback only stands here from as many answers on as a canary has.
    """
    bounds = study.sending
    asked, answered = numbered(requests["key"], outcomes["key"])
    mine = outcomes[["model", "outcome", "status", "code"]]
    mine = mine[answered <= asked.max(initial=-1)]
    judged = mine[~(answers.retryable(mine) | answers.blocked(mine))]
    n_judged = judged["model"].value_counts().to_dict()
    n_valid = judged.loc[judged["outcome"].eq("valid"), "model"].value_counts().to_dict()
    n_asked = requests["model"][~pd.Series(asked).duplicated().to_numpy()].value_counts().to_dict()
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
    return (
        f"stopped: more than {study.sending.max_failure_share:.0%} of the judged answers of "
        f"{', '.join(names)} are not valid ({commonest(bad)}). Nothing more is sent to it. Change "
        "the prompt, the parameters (max_output_tokens when empty) or the model in study.yml, then "
        "run 01 again."
    )


def commonest(bad: pd.DataFrame) -> str:
    """The five commonest faults of some outcomes, with how often each came."""
    counts = bad.fillna({"code": "", "message": ""}).groupby(_FAULT, sort=True).size()
    counts = counts.sort_values(ascending=False, kind="stable")
    said = [
        f"{model}: {n} x {outcome} {code} {message[:120]}".rstrip()
        for (model, outcome, code, message), n in counts.head(5).items()
    ]
    others = words.n_of(len(counts) - 5, "other fault")
    said += [f"and {others}"] if len(counts) > 5 else []
    return "; ".join(said)


def numbered(*columns: Iterable[str]) -> list[np.ndarray]:
    """The keys in these columns as numbers, equal for equal keys, from 0 in the order of the first
    column: millions of texts are compared once, and numbers after that.
    """
    series = [pd.Series(list(c) if isinstance(c, Set) else c, dtype="str") for c in columns]
    codes, _ = pd.factorize(pd.concat(series, ignore_index=True))
    return np.split(codes, np.cumsum([len(column) for column in series])[:-1])


def _again(unique: pd.DataFrame, tried: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The next attempts at the requests that were `tried`, each at its `place` among the `unique`.

    Equal histories of equal requests are judged once: there are few of them.
    """
    kinds = {"passing": answers.retryable(tried), "blocked": answers.blocked(tried)}
    tried = tried.assign(**kinds).sort_values(["place", "attempt"], kind="stable")
    places, starts = np.unique(tried["place"].to_numpy(), return_index=True)
    tries, attempts = _kinds(tried[[*Try._fields]])
    rows, requests = _kinds(unique.iloc[places][["annotator", "model", "max_output_tokens"]])
    spans = itertools.pairwise([*starts, len(tries)])
    cases = [(row, *tries[a:b]) for row, (a, b) in zip(rows, spans, strict=True)]
    found = {
        (row, *case): _next(*requests[row], [Try(*attempts[one]) for one in case], study)
        for row, *case in set(cases)
    }
    nexts = [found[case] for case in cases]
    kept = [n for n, again in enumerate(nexts) if again]
    new = pd.DataFrame([nexts[n] for n in kept], columns=Again._fields, index=places[kept])
    again = unique.iloc[places[kept]]
    n_bytes = again["n_bytes"] + new.pop("n_more_bytes").astype("int64")
    return again.assign(**new, n_bytes=n_bytes)


def _kinds(table: pd.DataFrame) -> tuple[list[int], list[tuple]]:
    """The number of each row among the different rows of a table, and those rows."""
    numbers = table.groupby([*table.columns], sort=False, dropna=False).ngroup()
    return numbers.to_list(), list(table[~numbers.duplicated()].itertuples(False, None))


def _next(
    name: str, first_model: str, first_cap: int, history: list[Try], study: Study
) -> Again | None:
    """The next attempt at a request after its `history`, or nothing when it has had its chances."""
    last, attempts = history[-1], study.sending.attempts
    annotator = study.annotators[name]
    same = [one for one in history if one.model == last.model]
    n_larger = sum(one.outcome in _AGAIN_LARGER for one in history)
    caps = [_cap(prompts.cap_of(annotator), n, last.model) for n in (n_larger - 1, n_larger)]
    model: str | None = None
    if last.blocked:
        model = last.model if sum(one.blocked for one in same) < _BLOCKED else None
    elif last.passing:
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
    cap, attempt = _cap(prompts.cap_of(annotator), n_larger, model), last.attempt + 1
    more = _width(model, cap, attempt) - _width(first_model, first_cap, 0)
    return Again(model, cap, attempt, more)


def _width(model: str, cap: int, attempt: int) -> int:
    """The part of a line's size that differs between the attempts at a request."""
    return len(f"{model}{models.facts(model).cap_parameter}{cap}{attempt}")


def _cap(cap: int, n_times: int, model: str) -> int:
    """The cap doubled `n_times`, within the largest factor and what the model can write."""
    larger = cap * min(2 ** max(n_times, 0), LARGEST_FACTOR)
    return min(larger, models.facts(model).max_output_tokens or larger)
