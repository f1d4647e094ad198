"""Truth inference: labels from votes by how far each voter seems to be right, without gold.

Three methods to lay beside the vote, never in its place: Wawa (each voter weighs as often as it
agrees with the majority), the one-coin model (one accuracy a voter) and Dawid and Skene's model of
1979 (a confusion matrix a voter, with a Dirichlet prior that keeps rare labels from vanishing).
They read common errors as a common truth: on panels of language models they lost to the plain vote
as often as they won. So they get one vote a model, and gold decides whether they may be used.
"""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

MAX_ITERATIONS = 100
TOLERANCE = 1e-5
TIE = 1e-9  # probabilities this near are equal: no label then
PRIOR = 1.0


class Inferred(NamedTuple):
    """Labels (item, value, probability, candidates), skills (voter, skill), iterations.

    A tie has no value, and its candidates stand in a JSON list, which is null otherwise.
    The skill is the voter's agreement with the majority (Wawa) or its estimated accuracy.
    """

    labels: pd.DataFrame
    skills: pd.DataFrame
    n_iterations: int


class _Votes(NamedTuple):
    """Votes as codes: item, voter and value of each, and how many there are of each."""

    item: np.ndarray
    voter: np.ndarray
    value: np.ndarray
    n_items: int
    n_voters: int
    n_values: int


def infer(
    votes: pd.DataFrame, values: Sequence[str], method: str, prior: float = PRIOR
) -> Inferred:
    """The labels that a method of METHODS gives; the order of the votes makes no difference.

    `votes` has item, voter, value; what is not among the declared `values` is no vote. `prior` is
    for Dawid and Skene's model: votes that each cell of a confusion matrix has before any is seen.

    >>> votes = pd.DataFrame({"item": list("xxx"), "voter": list("abc"), "value": list("yyn")})
    >>> infer(votes, ["y", "n"], "wawa").labels["value"].tolist()
    ['y']
    """
    value = pd.Index(values).get_indexer(votes["value"])
    known = votes[value >= 0]
    if known.empty:
        none = votes.iloc[:0]
        labels = none[["item", "value"]].assign(probability=0.0, candidates=None)
        return Inferred(labels, none[["voter"]].assign(skill=0.0), 0)
    item, items = pd.factorize(known["item"], sort=True)
    voter, voters = pd.factorize(known["voter"], sort=True)
    coded = _Votes(item, voter, value[value >= 0], len(items), len(voters), len(values))
    chances, skills, n_iterations = METHODS[method](coded, prior)
    best, top = chances.argmax(axis=1), chances.max(axis=1)
    leads = chances >= top[:, None] - TIE
    is_tie = leads.sum(axis=1) > 1
    labels = pd.DataFrame({"item": items, "value": np.asarray(values, dtype=object)[best]})
    tied = [json.dumps([values[n] for n in np.flatnonzero(one)]) for one in leads[is_tie]]
    labels = labels.assign(value=labels["value"].mask(is_tie), probability=top, candidates=None)
    labels.loc[is_tie, "candidates"] = tied
    return Inferred(labels, pd.DataFrame({"voter": voters, "skill": skills}), n_iterations)


def _share(votes: _Votes, weights: np.ndarray | None = None) -> np.ndarray:
    """The share of each item's votes that each value has."""
    flat = votes.item * votes.n_values + votes.value
    size = votes.n_items * votes.n_values
    table = np.bincount(flat, weights, size).reshape(-1, votes.n_values)
    return table / np.maximum(table.sum(axis=1, keepdims=True), TIE)


def _majority(shares: np.ndarray) -> np.ndarray:
    """One for the leading value of an item, leaders of a tie sharing it."""
    leads = (shares >= shares.max(axis=1, keepdims=True) - TIE).astype(float)
    return leads / leads.sum(axis=1, keepdims=True)


def _agreement(votes: _Votes, chances: np.ndarray) -> np.ndarray:
    """How often each voter says what is held for true."""
    right = chances[votes.item, votes.value]
    n_votes = np.bincount(votes.voter, minlength=votes.n_voters)
    return np.bincount(votes.voter, right, votes.n_voters) / n_votes


def _wawa(votes: _Votes, _: float) -> tuple[np.ndarray, np.ndarray, int]:
    skills = _agreement(votes, _majority(_share(votes)))
    return _share(votes, skills[votes.voter]), skills, 1


def _one_coin(votes: _Votes, _: float) -> tuple[np.ndarray, np.ndarray, int]:
    def skill(chances: np.ndarray) -> np.ndarray:
        return np.clip(_agreement(votes, chances), TIE, 1 - TIE)

    def log_odds(chances: np.ndarray) -> np.ndarray:
        right = skill(chances)
        wrong = (1 - right) / max(votes.n_values - 1, 1)
        logs = np.zeros((votes.n_items, votes.n_values))
        gain = (np.log(right) - np.log(wrong))[votes.voter]
        np.add.at(logs, (votes.item, votes.value), gain)
        return logs

    chances, n_iterations = _maximised(votes, log_odds)
    return chances, skill(chances), n_iterations


def _dawid_skene(votes: _Votes, prior: float) -> tuple[np.ndarray, np.ndarray, int]:
    def confusion(chances: np.ndarray) -> np.ndarray:
        """Of each voter: true value x said value, as chances."""
        size = votes.n_voters * votes.n_values
        flat = votes.voter * votes.n_values + votes.value
        said = [np.bincount(flat, chances[votes.item, k], size) for k in range(votes.n_values)]
        table = np.stack(said).reshape(votes.n_values, votes.n_voters, votes.n_values) + prior
        return (table / table.sum(axis=2, keepdims=True)).transpose(1, 0, 2)

    def log_odds(chances: np.ndarray) -> np.ndarray:
        cells = np.log(confusion(chances))
        common = np.log(chances.mean(axis=0) + TIE)
        columns = [
            np.bincount(votes.item, cells[votes.voter, k, votes.value], votes.n_items)
            for k in range(votes.n_values)
        ]
        return np.stack(columns, axis=1) + common

    chances, n_iterations = _maximised(votes, log_odds)
    diagonal = np.einsum("vkk->vk", confusion(chances))
    return chances, diagonal @ chances.mean(axis=0), n_iterations


def _maximised(
    votes: _Votes, log_odds: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, int]:
    """Expectation and maximisation in turn, from the shares of the votes, until nothing moves."""
    chances = _share(votes)
    for n in range(1, MAX_ITERATIONS + 1):
        logs = log_odds(chances)
        after = np.exp(logs - logs.max(axis=1, keepdims=True))
        after /= after.sum(axis=1, keepdims=True)
        moved = np.abs(after - chances).max(initial=0)
        chances = after
        if moved < TOLERANCE:
            return chances, n
    return chances, MAX_ITERATIONS


METHODS: dict[str, Callable[[_Votes, float], tuple[np.ndarray, np.ndarray, int]]] = {
    "wawa": _wawa,
    "one-coin": _one_coin,
    "dawid-skene": _dawid_skene,
}
