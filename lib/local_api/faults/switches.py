"""When a fault strikes: by count, by probability with a seed, after some chances, on some calls.

Same seed and same order of chances, same faults. It knows nothing of what a fault does. A name, an
option or a number that makes no sense is refused, with the nearest one that does.
"""

import difflib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lib.local_api import texts
from lib.local_api.faults import table

COMMON = ("count", "probability", "seed", "after", "only")
HEADER, METADATA = "x-votebook-fault", "votebook_fault"
MAX_VALUE, MAX_REAL = 1_000_000_000, 1e300


@dataclass(frozen=True)
class Rule:
    """A fault and when it strikes; `count` of None is without end, `value` is its option."""

    fault: table.Fault
    count: int | None
    probability: float
    seed: int
    after: int
    only: tuple[str, ...]
    value: float


@dataclass
class Switch:
    """A rule and what has become of it; `decided` says for each batch whether it struck."""

    rule: Rule
    n_chances: int = 0
    n_struck: int = 0
    decided: dict[str, bool] = field(default_factory=dict)


@dataclass
class Faults:
    """What is switched on for all, what for single batches, and what was shown of which batch."""

    on: dict[str, Switch] = field(default_factory=dict)
    attached: dict[str, dict[str, Switch]] = field(default_factory=dict)
    shown: dict[tuple[str, str], object] = field(default_factory=dict)


def strikes(switch: Switch, key: object = None) -> bool:
    """Whether a fault strikes at this chance.

    The draw depends on the seed, the name and the key, or else the number of the chance: a key
    makes it independent of the order in which parallel batches come along.
    """
    rule, number = switch.rule, switch.n_chances
    switch.n_chances += 1
    if number < rule.after or (rule.count is not None and switch.n_struck >= rule.count):
        return False
    seed = f"{rule.seed}/{rule.fault.name}/{number if key is None else key}"
    if random.Random(seed).random() >= rule.probability:  # noqa: S311 - chance, not a secret
        return False
    switch.n_struck += 1
    return True


def of_batch(faults: Faults, name: str, batch_id: str, number: int) -> Rule | None:
    """The rule by which a fault strikes a batch, decided once; None when it does not, or is off.

    `number` is that of the batch in the order of creation.
    """
    for switches in (faults.attached.get(batch_id, {}), faults.on):
        switch = switches.get(name)
        if switch is None:
            continue
        if batch_id not in switch.decided:
            switch.decided[batch_id] = strikes(switch, number)
        if switch.decided[batch_id]:
            return switch.rule
    return None


def parsed(asked: object) -> dict[str, Rule]:
    """The rules of a configuration: `{"seed": 7, "faults": {name: {option: value}}}`.

    Options may be `true` for the defaults; a fault that is `false` or null is left out. Raises
    ServiceError (status 400).
    """
    if not isinstance(asked, Mapping):
        raise _wrong("faults", f"a configuration is an object, not {asked!r:.60}.")
    for name in asked:
        if name not in ("seed", "faults"):
            raise _wrong(str(name), f"unknown key {name!r}: 'seed' and 'faults' are known.")
    seed = _whole_number("seed", asked.get("seed", 0))
    named = asked.get("faults") or {}
    if not isinstance(named, Mapping):
        raise _wrong("faults", "'faults' is an object with a fault for each key.")
    known(named)
    wanted = {name: options for name, options in named.items() if options not in (None, False)}
    return {name: rule(name, options, seed) for name, options in wanted.items()}


def from_text(text: str) -> dict[str, Rule]:
    """The rules of a header or of metadata: names with options, separated by commas.

    >>> rules = from_text("rate_limited; seconds=3, conflict")
    >>> [(name, rule.value) for name, rule in rules.items()]
    [('rate_limited', 3.0), ('conflict', 0.0)]
    """
    rules = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, *given = (word.strip() for word in part.split(";"))
        known([name])
        pairs = [word.partition("=") for word in given]
        options = {key.strip(): _number(key.strip(), value) for key, _, value in pairs}
        rules[name] = rule(name, options, 0)
    return rules


def attached(text: str) -> dict[str, Switch]:
    """The switches that the metadata of a batch ask for; refuses faults of requests."""
    rules = from_text(text)
    for name, asked in rules.items():
        if asked.fault.stage not in table.OF_A_BATCH:
            what = f"{name!r} is a fault of requests: name it in the header {HEADER}."
            raise _wrong(f"metadata.{METADATA}", what)
    return {name: Switch(asked) for name, asked in rules.items()}


def rule(name: str, options: object, seed: int) -> Rule:
    """The rule of a fault with these options; `seed` is used when they give none.

    A line fault strikes one line unless `count` or `probability` is given, any other every time.
    """
    fault = table.FAULTS[name]
    options = {} if options is True else options
    if not isinstance(options, Mapping):
        raise _wrong(name, f"the options of {name!r} are an object, or true for the defaults.")
    own = fault.option[0] if fault.option else None
    for option in options:
        if option not in (*COMMON, own):
            names = [*COMMON, own] if own else COMMON
            what = f"{name!r} has no option {option!r}.{nearest(option, names)}"
            raise _wrong(f"{name}.{option}", f"{what} Options: {', '.join(names)}.")
    one_line = fault.stage == "line" and not {"count", "probability"} & set(options)
    count = options.get("count", 1 if one_line else None)
    probability = _real(f"{name}.probability", options.get("probability", 1.0))
    value = _real(f"{name}.{own}", options[own]) if own in options else (fault.option or ("", 0))[1]
    if not 0 <= probability <= 1 or (own == "share" and not 0 <= value <= 1):
        raise _wrong(name, f"a probability or a share of {name!r} must be from 0 to 1.")
    if not -MAX_VALUE <= value <= MAX_VALUE or (own != "by" and value < 0):
        raise _wrong(f"{name}.{own}", f"{own!r} of {name!r} must be from 0 to {MAX_VALUE:,}.")
    return Rule(
        fault,
        None if count is None else _whole_number(f"{name}.count", count),
        probability,
        _whole_number(f"{name}.seed", options.get("seed", seed)),
        _whole_number(f"{name}.after", options.get("after", 0)),
        _only(fault, options.get("only", fault.only)),
        float(value),
    )


def known(names: Iterable[object]) -> None:
    """Refuse a name that is no fault, with the nearest that is one."""
    for name in names:
        if name not in table.FAULTS:
            what = f"Unknown fault {name!r}.{nearest(name, table.FAULTS)}"
            raise texts.refusal(400, texts.ours(what), "faults", "unknown_fault")


def nearest(word: object, words: Iterable[str]) -> str:
    """The sentence that suggests the word most like this one.

    >>> nearest("create_lost", table.FAULTS)
    " Did you mean 'create_answer_lost'?"
    """
    found = difflib.get_close_matches(str(word).lower(), list(words), n=1, cutoff=0.3)
    return f" Did you mean {found[0]!r}?" if found else ""


def described(rule: Rule) -> dict:
    """A rule as it is asked for."""
    own = {rule.fault.option[0]: rule.value} if rule.fault.option else {}
    only = {"only": list(rule.only)} if rule.only != rule.fault.only else {}
    common = {name: getattr(rule, name) for name in ("count", "probability", "seed", "after")}
    return {**common, **only, **own}


def _only(fault: table.Fault, names: object) -> tuple[str, ...]:
    """The operations that a rule is restricted to."""
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or (not names and fault.only):
        raise _wrong(f"{fault.name}.only", f"'only' is a list of: {', '.join(fault.only)}.")
    for name in names:
        if name not in fault.only:
            which = f"It is one of: {', '.join(fault.only)}." if fault.only else "It has none."
            what = f"{fault.name!r} does not strike the operation {name!r}. {which}"
            raise _wrong(f"{fault.name}.only", what)
    return tuple(names)


def _number(name: str, text: str) -> float | str:
    """The value of an option in a text."""
    if name == "only":
        return text.strip()
    try:
        return int(text) if text.strip().lstrip("-").isdigit() else float(text)
    except ValueError as error:
        raise _wrong(name, f"{name!r} needs a number after '=', not {text!r}.") from error


def _real(name: str, value: object) -> float:
    """A number that is finite."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -MAX_REAL <= value <= MAX_REAL:
        raise _wrong(name, f"{name!r} must be a number, not {value!r:.60}.")
    return float(value)


def _whole_number(name: str, value: object) -> int:
    """A whole number that is not below 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(name, f"{name!r} must be a whole number from 0, not {value!r:.60}.")
    return value


def _wrong(param: str, what: str) -> Exception:
    """The refusal of a configuration."""
    return texts.refusal(400, texts.ours(what), param, "invalid_fault")
