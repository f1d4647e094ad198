"""Advice: what a person can do about a fault, by its outcome, status, code and words.

Decides nothing that the loop does; it puts into words what `wanted` will do and what only a person
can. Messages are known from the sources of the Batch API's facts, read in November 2026.
"""

import re
from typing import NamedTuple


class Rule(NamedTuple):
    """When an advice is given: each part that is not None must hold; `words` is a regular
    expression that the code, the parameter or the message contains.
    """

    what_to_do: str
    outcome: str | None = None
    status: tuple[int, ...] | None = None
    words: str | None = None


_LONGER = (
    "It is asked again with twice the cap. If many are so: raise max_output_tokens, or lower "
    "reasoning_effort, which uses up the same tokens."
)
_AGAIN = "Nothing: it is sent again by itself, as often as `attempts` in study.yml says."
# The first rule that holds is taken.
RULES = (
    Rule("Nothing: it was answered.", "valid"),
    Rule(_AGAIN, "missing"),
    Rule(
        "Nothing: the 24 hours of the batch were over, it is sent again. Often so? Lower "
        "max_requests, so that batches are smaller.",
        "expired",
    ),
    Rule("Nothing, if you cancelled it: it is sent again when the run goes on.", "cancelled"),
    Rule(_LONGER, "empty"),
    Rule(_LONGER, "truncated"),
    Rule(
        "It is asked once again, then the models of `fallback`, then left for people. Often so? "
        "Say in prompt.md what the texts are and why they are read.",
        "refused",
    ),
    Rule(
        "It is asked once again, then the models of `fallback`, then left for people. Often so? "
        "The model may not keep to a JSON schema: take another one.",
        "malformed",
    ),
    Rule(
        "It is asked once again, then the models of `fallback`, then left for people. Often so? "
        "Add the value to the field in study.yml, or describe the allowed ones better.",
        "invalid",
    ),
    Rule(
        "Add credit to the account, then run the same command again.",
        words="insufficient_quota|exceeded your current quota|billing",
    ),
    Rule(
        "Set a key that is valid there (OPENAI_API_KEY or the keyring), then run the same command.",
        status=(401,),
    ),
    Rule(
        "The project has no access to this model in the Batch API: allow it in the project's "
        "settings, or take another model in study.yml.",
        status=(403,),
    ),
    Rule(
        "Take a model that the Batch API has (data/models.yml names replacements).",
        words="model_not_found|not supported by the Batch API|does not exist",
    ),
    Rule(
        "Lower items: max_tokens in study.yml, so that long documents become passages, or "
        "max_output_tokens.",
        words="context_length_exceeded|maximum context length",
    ),
    Rule(
        "Raise max_output_tokens or lower reasoning_effort in study.yml.",
        words="max_tokens or model output limit",
    ),
    Rule(
        "Remove or change the named parameter in study.yml; add the rule to "
        "data/models.local.yml so that it is known before sending.",
        words="unsupported_parameter|unsupported_value|Unsupported (parameter|value)",
    ),
    Rule(
        "The fields make a schema that the service refuses: look at the field that the message "
        "names, and at data/services.yml.",
        words="invalid_json_schema|Invalid schema|must contain the word 'json'",
    ),
    Rule(
        "The service could not find the uploaded file: it is sent again.",
        words="Cannot find file|file_not_found",
    ),
    Rule(
        "The queue of the model is full: it is sent when there is room.",
        words="token_limit_exceeded|Enqueued (token|request) limit",
    ),
    Rule(_AGAIN, status=(0, 408, 409, 429, *range(500, 600))),
    Rule(
        "The service refused the whole file as badly made. That is a fault of Votebook: run "
        "`check`, and report the message.",
        words=(
            "invalid_json_line|missing_required_parameter|invalid_url|mismatched_model|"
            "duplicate_custom_id|invalid_file"
        ),
    ),
)
_OTHER = (
    "Not sent again: the service refuses the request as it is. Change what the message names in "
    "study.yml, then run 01 again."
)
_KINDS = "org|proj|file|batch|batch_req|req|chatcmpl|resp|user|sk"
_IDS = re.compile(rf"\b(?:{_KINDS})[-_](?=[\w*-]*[\d*])[\w*-]{{4,}}")
_NUMBERS = re.compile(r"(?<![\w-])\d[\d,.]*(?![\w-])")


def of(
    outcome: str,
    status: int | None = None,
    code: str | None = None,
    param: str | None = None,
    message: str | None = None,
) -> str:
    """What to do about a fault, in a sentence or two.

    >>> of("failed", 429, "insufficient_quota")
    'Add credit to the account, then run the same command again.'
    """
    said = " ".join(str(part) for part in (code, param, message) if part)
    for rule in RULES:
        if rule.outcome is not None and rule.outcome != outcome:
            continue
        if rule.status is not None and status not in rule.status:
            continue
        if rule.words is None or re.search(rule.words, said, re.IGNORECASE):
            return rule.what_to_do
    return _OTHER


def pattern(message: str) -> str:
    """A message without what differs from line to line: numbers become N, ids become ID.

    >>> pattern("Limit: 2,000,000 enqueued tokens in organization org-a1b2c3 (gpt-5-mini).")
    'Limit: N enqueued tokens in organization ID (gpt-5-mini).'
    """
    return " ".join(_NUMBERS.sub(_number, _IDS.sub("ID", message)).split())[:300]


def _number(found: re.Match) -> str:
    """N, and the punctuation that ended the sentence behind it."""
    text = found[0]
    return "N" + text[len(text.rstrip(".,")) :]
