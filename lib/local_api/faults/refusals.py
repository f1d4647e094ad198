"""Answers in the place of an answer: what the service says, or a machine that is before it."""

import datetime
import email.utils

from starlette.responses import Response

from lib.local_api import params, texts
from lib.local_api.faults import calls, switches

PAGE = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n"
    "<center><h1>{0}</h1></center>\r\n<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
)
PHRASES = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}
QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more"
    " information on this error, read the docs:"
    " https://platform.openai.com/docs/guides/error-codes/api-errors."
)
NO_ACCESS = "Project `proj_local` does not have access to model `{}`"
TOO_FAST = texts.ours("Rate limit reached for requests. Please try again later.")
CONFLICT = texts.ours("Another request is changing this object.")
UNSUPPORTED = "Unsupported parameter: 'votebook' is not supported."
REVOKED = texts.ours("Incorrect API key provided: this key has been revoked.")
DAY_SECONDS = 86_400


def instead(rule: switches.Rule, asked: calls.Call) -> Response:
    """The answer that a request fault gives instead of acting."""
    name = rule.fault.name
    if name.startswith("rate_limited"):
        return _too_fast(name, rule.value)
    if name.startswith("html_") or name == "content_502":
        return page(int(name[-3:]))
    if name in ("not_ours", "hidden_after_create", "content_gone"):
        return _not_found(asked)
    status, message, code, kind = {
        "error_500_before": (500, texts.SERVER_ERROR, None, "server_error"),
        "no_credit": (429, QUOTA, "insufficient_quota", "insufficient_quota"),
        "unsupported_parameter": (400, texts.ours(UNSUPPORTED), "unsupported_parameter", None),
        "key_revoked": (401, REVOKED, "invalid_api_key", None),
        "no_model_access": (403, NO_ACCESS.format("gpt-local-batch"), "model_not_found", None),
        "conflict": (409, CONFLICT, None, None),
        "too_large": (413, texts.ours("The body of the request is too large."), None, None),
    }[name]
    return _refused(status, message, code, kind or "invalid_request_error")


def page(status: int, title: str | None = None) -> Response:
    """A page in HTML, as the machines before the service give it."""
    content = PAGE.format(title or f"{status} {PHRASES[status]}")
    return Response(content, status, media_type="text/html")


def server_error() -> Response:
    """The API's 500."""
    return _refused(500, texts.SERVER_ERROR, None, "server_error")


def _too_fast(name: str, seconds: float) -> Response:
    """A 429 with one of the forms of Retry-After, or with none."""
    answer = _refused(429, TOO_FAST, "rate_limit_exceeded", "rate_limit_error")
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    wait = {
        "rate_limited": f"{seconds:g}",
        "rate_limited_silently": None,
        "rate_limited_until_date": email.utils.format_datetime(later, usegmt=True),
        "rate_limited_for_a_day": str(DAY_SECONDS),
    }[name]
    if wait:
        answer.headers["retry-after"] = wait
    return answer


def _not_found(asked: calls.Call) -> Response:
    """The 404 of a batch or of a file."""
    if asked.operation in ("retrieve", "cancel"):
        return _refused(404, texts.NO_BATCH.format(asked.target), None, "invalid_request_error")
    refusal = texts.refusal(404, texts.NO_FILE.format(asked.target), "id")
    return params.compact(texts.error_object(refusal), 404)


def _refused(status: int, message: str, code: str | None, kind: str) -> Response:
    """An error object as an answer."""
    refusal = texts.refusal(status, message, code=code, kind=kind)
    return params.compact(texts.error_object(refusal), status)
