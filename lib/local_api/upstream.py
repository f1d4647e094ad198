"""An OpenAI-compatible service that answers in place of the built-in annotators.

It decides how long to be patient: whoever is away or busy is waited for, whoever fails is asked a
few times more, whoever refuses is believed at once. It knows nothing of batches.
"""

import asyncio
import contextlib
import datetime
import email.utils
import logging
import random
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import orjson

from lib.local_api import texts

if TYPE_CHECKING:
    import httpx2

ALL_MODELS = ""
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 600.0
N_TRIES = 6
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, MOST_JITTER_SECONDS = 0.5, 30.0, 1.0
MOST_ASKED_SECONDS = 86_400.0
AWAY_OR_BUSY = (429, 502, 503, 504)
RETRIED = (408, 409)
HOPELESS_CODES = ("insufficient_quota",)
MOST_QUOTED_CHARS = 500
log = logging.getLogger("votebook.local_api")


@dataclass(frozen=True)
class Settings:
    """Who answers. `models` maps a model that is asked for, or "" for any, to the upstream's name.

    `key` is sent as a bearer token; without one there is no such header. `n_concurrent` bounds the
    requests under way for all batches together.
    """

    base_url: str
    key: str | None = field(default=None, repr=False)
    models: Mapping[str, str] = field(default_factory=dict)
    n_concurrent: int = 8


@dataclass
class Upstream:
    """An open connection to the upstream, and whether it was last seen answering."""

    settings: Settings
    client: "httpx2.AsyncClient"
    places: asyncio.Semaphore
    is_away: bool = False


class Reply(NamedTuple):
    """What came of a request: the status and the JSON body, an error object unless it is 200.

    `patience` is how many tries it is worth, None for any number; `retry_after` are seconds.
    """

    status: int
    body: dict
    patience: int | None = 1
    retry_after: float | None = None


def base_url(text: str) -> str:
    """The address under which `/chat/completions` lies; raises ValueError if it is none.

    >>> base_url("http://localhost:11434"), base_url("https://gpu.example/api/v1/")
    ('http://localhost:11434/v1', 'https://gpu.example/api/v1')
    """
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is not an address such as http://localhost:11434/v1")
    if "@" in parts.netloc:
        raise ValueError("a name or password in the address would show in answers; use a key")
    port = f":{parts.port}" if parts.port is not None else ""  # raises for a port that is none
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/') or '/v1'}"


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Upstream]:
    """A connection to an upstream for as long as the block lasts; nothing is sent yet."""
    import httpx2

    is_here = urllib.parse.urlsplit(settings.base_url).hostname in ("localhost", "127.0.0.1", "::1")
    async with httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {settings.key}"} if settings.key else {},
        timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        trust_env=not is_here,  # a proxy does not know our localhost
    ) as client:
        yield Upstream(settings, client, asyncio.Semaphore(settings.n_concurrent))


async def answer(upstream: Upstream, body: Mapping) -> Reply:
    """The upstream's last word on a chat request, however long it takes; cancel it to stop."""
    async with upstream.places:
        n_faults = n_away = 0
        while True:
            reply = await ask(upstream, body)
            _note(upstream, reply)
            if reply.patience is None:
                n_away += 1
                seconds = pause(n_away, reply.retry_after)
            else:
                n_faults += 1
                if n_faults >= reply.patience:
                    return reply
                seconds = pause(n_faults, reply.retry_after)
            await asyncio.sleep(seconds)


async def ask(upstream: Upstream, body: Mapping) -> Reply:
    """What the upstream says to a chat request when it is asked once."""
    import httpx2

    url, named = f"{upstream.settings.base_url}/chat/completions", as_named(upstream.settings, body)
    headers = {"Content-Type": "application/json"}
    try:
        response = await upstream.client.post(url, content=orjson.dumps(named), headers=headers)
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
        return _fault(upstream, f"cannot be reached ({type(error).__name__}: {error})", None)
    except httpx2.TimeoutException:
        return _fault(upstream, f"did not answer in {ANSWER_SECONDS:.0f} seconds", N_TRIES, 504)
    except httpx2.RequestError as error:
        return _fault(upstream, f"broke off ({type(error).__name__}: {error})", N_TRIES)
    return judged(upstream, response.status_code, response.content, response.headers)


def as_named(settings: Settings, body: Mapping) -> dict:
    """The body with the name that the upstream has for its model.

    >>> as_named(Settings("http://gpu/v1", models={"gpt-6-luna": "qwen3"}), {"model": "gpt-6-luna"})
    {'model': 'qwen3'}
    """
    asked = body["model"]
    name = settings.models.get(asked) or settings.models.get(ALL_MODELS) or asked
    return {**body, "model": name}


def judged(upstream: Upstream, status: int, content: bytes, headers: Mapping[str, str]) -> Reply:
    """An HTTP answer as a reply: which tries it is worth, and its error as the API shapes one."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    if status == 200:
        if _is_completion(body):
            return Reply(200, body)
        return _fault(upstream, f"gave no chat completion: {_quoted(content)}", 1)
    error = _error_object(upstream, status, body, content)
    retry_after = retry_seconds(headers)
    if status in AWAY_OR_BUSY and error["error"].get("code") not in HOPELESS_CODES:
        return Reply(status, error, None, retry_after)
    is_retried = status in RETRIED or status >= 500
    return Reply(status, error, N_TRIES if is_retried else 1, retry_after)


def retry_seconds(headers: Mapping[str, str]) -> float | None:
    """How long a service asks to be left alone, a day at most: `Retry-After`, seconds or a date.

    >>> retry_seconds({"retry-after": "7"}), retry_seconds({"retry-after-ms": "250"})
    (7.0, 0.25)
    >>> retry_seconds({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}), retry_seconds({})
    (0.0, None)
    """
    for name, factor in (("retry-after-ms", 0.001), ("retry-after", 1)):
        with contextlib.suppress(KeyError, ValueError):
            return min(max(0.0, float(headers[name]) * factor), MOST_ASKED_SECONDS)
    try:
        until = email.utils.parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=datetime.UTC)
    seconds = (until - datetime.datetime.now(datetime.UTC)).total_seconds()
    return min(max(0.0, seconds), MOST_ASKED_SECONDS)


def pause(n_tries: int, retry_after: float | None) -> float:
    """Seconds to the next try: longer each time, never shorter than asked for, spread by chance.

    >>> 0.25 <= pause(1, None) <= 0.5 and 15 <= pause(99, None) <= 30 and 7 <= pause(1, 7.0) <= 7.5
    True
    """
    usual = min(FIRST_PAUSE_SECONDS * 2.0 ** min(n_tries - 1, 20), LONGEST_PAUSE_SECONDS)
    share = random.random()  # noqa: S311 - keeps requests apart, hides nothing
    if retry_after is None:
        return usual * (1 + share) / 2
    return retry_after + share * min(usual, MOST_JITTER_SECONDS)


def _is_completion(body: object) -> bool:
    """Whether a body has what every chat completion has: a first choice with a message."""
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(first, dict) and isinstance(first.get("message"), dict)


def _error_object(upstream: Upstream, status: int, body: object, content: bytes) -> dict:
    """The upstream's error object; made from what it says when it shapes errors otherwise."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        return body
    said = error if isinstance(error, str) else _quoted(content)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    told = f"{upstream.settings.base_url} answered {status}: {said}"
    return texts.error_object(texts.refusal(status, texts.ours(told), kind=kind))


def _fault(upstream: Upstream, what: str, patience: int | None, status: int = 502) -> Reply:
    """The reply in the place of an answer that did not come, as a gateway gives it."""
    message = texts.ours(f"The upstream {upstream.settings.base_url} {what}.")
    refusal = texts.refusal(status, message, code="upstream_failed", kind="server_error")
    return Reply(status, texts.error_object(refusal), patience)


def _note(upstream: Upstream, reply: Reply) -> None:
    """Tell the log once when the upstream goes away, and once when it is back."""
    is_away = reply.patience is None
    if is_away and not upstream.is_away:
        log.warning("Waiting for the upstream: %s", reply.body["error"].get("message"))
    elif upstream.is_away and not is_away:
        log.warning("The upstream %s answers again.", upstream.settings.base_url)
    upstream.is_away = is_away


def _quoted(content: bytes) -> str:
    """The start of a body as text."""
    return " ".join(content[:MOST_QUOTED_CHARS].decode(errors="replace").split()) or "nothing"
