"""Advice: every fault that is known has a sentence of its own, and patterns group messages."""

import pytest

from lib import advice

QUOTA = "You exceeded your current quota, please check your plan and billing details."
FULL = "Enqueued token limit reached for gpt-6-luna in organization org-x1y2z3. Limit: 2,000,000"
NO_ACCESS = "Project proj_a1b2c3 does not have access to model gpt-4o-mini-2024-07-18-batch"
MAX_TOKENS = "Unsupported parameter: 'max_tokens' is not supported with this model."
CONTEXT = "This model's maximum context length is 128000 tokens. However, you requested 130000"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (("missing",), "sent again by itself"),
        (("expired", None, "batch_expired"), "24 hours"),
        (("cancelled", None, "batch_cancelled"), "cancelled it"),
        (("empty", 200), "twice the cap"),
        (("truncated", 200), "twice the cap"),
        (("refused", 200), "fallback"),
        (("malformed", 200), "JSON schema"),
        (("invalid", 200, None, None, "pleased: 'maybe' is not allowed"), "Add the value"),
        (("failed", 429, "insufficient_quota", None, QUOTA), "Add credit"),
        (("failed", 429, None, None, "1000 request/min rate limit"), "sent again by itself"),
        (("failed", 401, "invalid_api_key"), "Set a key"),
        (("failed", 403, "model_not_found", None, NO_ACCESS), "no access to this model"),
        (("failed", 400, "model_not_found"), "Take a model"),
        (("failed", 400, "unsupported_parameter", "max_tokens", MAX_TOKENS), "parameter"),
        (("failed", 400, "context_length_exceeded", "messages", CONTEXT), "items: max_tokens"),
        (("failed", 400, "invalid_json_schema"), "schema"),
        (("failed", 400, "token_limit_exceeded", None, FULL), "queue"),
        (("failed", 400, "mismatched_model"), "fault of Votebook"),
        (("failed", 500), "sent again by itself"),
        (("failed", 0), "sent again by itself"),
        (("failed", 418, "teapot"), "Not sent again"),
    ],
)
def test_every_fault_has_its_advice(fault, says):
    """The sentence names what a person can change, or that nothing is to be done."""
    assert says in advice.of(*fault)


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        (NO_ACCESS, "Project ID does not have access to model gpt-4o-mini-2024-07-18-batch"),
        ("You requested 131,072 tokens.", "You requested N tokens."),
        ("No batch found with id 'batch_6789abcd'.", "No batch found with id 'ID'."),
        ("two\nlines", "two lines"),
        ("", ""),
    ],
)
def test_what_differs_from_line_to_line_is_left_out(message, pattern):
    """Numbers and ids go; names of models and parameters stay."""
    assert advice.pattern(message) == pattern
