"""Which parameters a model refuses, in the words of the service.

The rules are those of the Chat Completions API as read in November 2026; which of them hold for a
model stands in `data/models.yml`. Texts not recorded for these models are those that the API gives
for their predecessors.
"""

import json
from collections.abc import Mapping

from lib.models.reading import Model

REASONING_REFUSES = ("temperature", "top_p", "logprobs", "top_logprobs")
HARMLESS = {"temperature": 1, "logprobs": False}  # defaults, which may be written out
NAMES = (
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "presence_penalty",
    "prompt_cache_key",
    "reasoning_effort",
    "safety_identifier",
    "seed",
    "stop",
    "temperature",
    "top_logprobs",
    "top_p",
    "verbosity",
)


def problems(model: Model, body: Mapping) -> list[dict]:
    """What the service would refuse in a request body, each as {code, param, message}.

    A member that is null counts as absent. A rule whose fact is not known is not applied, but a
    model that may reason counts as reasoning.

    >>> from lib import models
    >>> problems(models.facts("gpt-5-nano"), {"max_tokens": 5})[0]["code"]
    'unsupported_parameter'
    """
    given = {name: value for name, value in body.items() if value is not None}
    found = _cap_problems(model, given) + _choice_problems(model, given)
    if _reasons(model, given):
        sampling = [name for name in REASONING_REFUSES if name in given]
        refused = [name for name in sampling if given[name] != HARMLESS.get(name)]
        found += [_sampling_problem(name, given[name]) for name in refused]
    return found


def context_problem(model: Model, n_input_tokens: int, max_output_tokens: int) -> dict | None:
    """What the service would say to a request longer than the context window, if that is known."""
    n_tokens = n_input_tokens + max_output_tokens
    if model.context_tokens is None or n_tokens <= model.context_tokens:
        return None
    message = (
        f"This model's maximum context length is {model.context_tokens} tokens. However, you "
        f"requested {n_tokens} tokens ({n_input_tokens} in the messages, {max_output_tokens} in "
        "the completion). Please reduce the length of the messages or completion."
    )
    return _problem("context_length_exceeded", "messages", message)


def advice(model: Model, param: str) -> str:
    """What to write in a study instead of a refused parameter."""
    if param == "max_tokens" and model.cap_parameter != "max_tokens":
        return "Write max_output_tokens, which counts reasoning too."
    if param in REASONING_REFUSES:
        none = model.efforts is not None and "none" in model.efforts
        return "Leave it out" + (", or write reasoning_effort: none." if none else ".")
    if param == "reasoning_effort" and not model.reasoning:
        return "Leave it out: this model does not reason."
    return f"Change {param} or leave it out."


def _reasons(model: Model, given: Mapping) -> bool:
    effort = given.get("reasoning_effort", model.default_effort)
    return model.reasoning and effort != "none"


def _sampling_problem(name: str, value: object) -> dict:
    if name == "temperature":
        message = (
            f"Unsupported value: 'temperature' does not support {json.dumps(value)} with this "
            "model. Only the default (1) value is supported."
        )
        return _problem("unsupported_value", name, message)
    message = f"Unsupported parameter: '{name}' is not supported with this model."
    return _problem("unsupported_parameter", name, message)


def _cap_problems(model: Model, given: Mapping) -> list[dict]:
    if "max_tokens" in given and model.cap_parameter != "max_tokens":
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            f"Use '{model.cap_parameter}' instead."
        )
        return [_problem("unsupported_parameter", "max_tokens", message)]
    names = [name for name in ("max_tokens", "max_completion_tokens") if name in given]
    return [problem for name in names for problem in _size_problems(model, name, given[name])]


def _size_problems(model: Model, name: str, cap: object) -> list[dict]:
    if isinstance(cap, bool) or not isinstance(cap, int):
        message = f"Invalid type for '{name}': expected an integer, but got {_json_type(cap)}."
        return [_problem("invalid_type", name, f"{message[:-1]} instead.")]
    if cap < 1:
        message = (
            f"Invalid '{name}': integer below minimum value. "
            f"Expected a value >= 1, but got {cap} instead."
        )
        return [_problem("integer_below_min_value", name, message)]
    if model.max_output_tokens is None or cap <= model.max_output_tokens:
        return []
    message = (
        f"{name} is too large: {cap}. This model supports at most {model.max_output_tokens} "
        f"completion tokens, whereas you provided {cap}."
    )
    return [_problem("invalid_value", name, message)]


def _choice_problems(model: Model, given: Mapping) -> list[dict]:
    problems = []
    if "reasoning_effort" in given and not model.reasoning:
        message = "Unrecognized request argument supplied: reasoning_effort"
        problems.append(_problem(None, None, message))
    choices = {"reasoning_effort": model.efforts, "verbosity": model.verbosities}
    for name, values in choices.items():
        if name in given and values and given[name] not in values:
            message = (
                f"Unsupported value: '{name}' does not support '{given[name]}' with this model. "
                f"Supported values are: {_listed(values)}."
            )
            problems.append(_problem("unsupported_value", name, message))
    return problems


def _problem(code: str | None, param: str | None, message: str) -> dict:
    return {"code": code, "param": param, "message": message}


def _listed(values: tuple[str, ...]) -> str:
    quoted = [f"'{value}'" for value in values]
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}" if len(quoted) > 1 else quoted[0]


def _json_type(value: object) -> str:
    kinds = {str: "a string", bool: "a boolean", float: "a decimal number", list: "an array"}
    return kinds.get(type(value), "an object")
