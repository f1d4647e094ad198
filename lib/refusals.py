"""What a call that went wrong means: the client's exceptions as ServiceError.

Each says in a sentence what happened and what to do, whether the call may have had an effect
(`unclear`), and whether asking again is of no use (`final`). No message holds a key.
"""

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lib import dialect
from lib.errors import ServiceError
from lib.services import Facts

if TYPE_CHECKING:
    import openai

NO_KEY = "none"  # what the client is given where a service wants no key
_ADVICE = {
    403: "Ask for access in the settings of the project that the key belongs to.",
    429: "It is tried again after a pause.",
    "insufficient_quota": "Add credit to the account, then run the same command again.",
}


@contextlib.contextmanager
def told(
    name: str, client: "openai.OpenAI", facts: Facts, passing: tuple[int, ...] = ()
) -> Iterator[None]:
    """Turn the client's exceptions into ServiceError; let the `passing` status codes go by."""
    import httpx2
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        if error.status_code not in passing:
            raise _refusal(name, client, facts, error) from None
    except (openai.APIConnectionError, httpx2.HTTPError, TimeoutError) as error:
        raise _no_answer(name, client, error) from None
    except (openai.APIResponseValidationError, ValueError, AttributeError):
        # The client raises these, or hands back bare text, when an answer is cut or no JSON.
        raise strange(name) from None


def _no_answer(name: str, client: "openai.OpenAI", error: Exception) -> ServiceError:
    """What to say of a call without an answer; one that found no connection had no effect."""
    cause = error.__cause__ or error
    reason = _unreached(client, cause)
    what = f"did not answer ({_clean(client, f'{type(cause).__name__}: {cause}')})."
    return ServiceError(
        f"{name} {reason or what} Run the same command again.",
        code="no_connection" if reason else "no_answer",
        status=0,
        unclear=not reason,
        final=False,
    )


def _unreached(client: "openai.OpenAI", cause: BaseException) -> str:
    """Why there was no connection to a service at all, or nothing when there was one."""
    import httpx2

    if not isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
        return ""
    url = client.base_url
    place = f"{url.host}:{url.port or {'https': 443}.get(url.scheme, 80)}"
    chain: list[BaseException] = [cause]
    while (deeper := chain[-1].__cause__ or chain[-1].__context__) and deeper not in chain:
        chain.append(deeper)
    if any(isinstance(one, socket.gaierror) for one in chain):
        return f"cannot be reached: no host {url.host} is known. Check the address and the network."
    if any(isinstance(one, ssl.SSLError) for one in chain):
        hint = "Check whether its address begins with http:// or https://."
        return f"cannot be reached: no encrypted connection to {place} was made. {hint}"
    if isinstance(cause, httpx2.ConnectTimeout):
        return f"cannot be reached: {place} did not take the connection in time. Check the network."
    hint = "Check the address and whether the service runs."
    return f"cannot be reached: nobody takes connections at {place}. {hint}"


def circle(name: str, kind: str) -> ServiceError:
    """What to raise for a list that does not end: what it leaves out is not known."""
    what = f"the list of {kind} of {name} repeats itself and does not end."
    facts = {"code": "strange_answer", "status": 200, "unclear": True, "final": False}
    return ServiceError(f"{what} Run the same command again.", **facts)


def strange(name: str) -> ServiceError:
    """What to raise for an answer without the form of the Batch API: the call may be done."""
    what = f"{name} answered in a form that the Batch API does not have, or cut it off."
    facts = {"code": "strange_answer", "status": 200, "unclear": True, "final": False}
    return ServiceError(f"{what} Run the same command again.", **facts)


def _refusal(
    name: str, client: "openai.OpenAI", facts: Facts, error: "openai.APIStatusError"
) -> ServiceError:
    """A refusal with its advice; a queue that is full is a wait, whatever the status."""
    said = error.body if isinstance(error.body, dict) else {"message": error.body}
    body = dialect.fault(facts, said)
    is_full = body["code"] == dialect.QUEUE_FULL
    status, code = 429 if is_full else error.status_code, body["code"]
    reason = str(body["message"] or "")
    reason = "no reason given" if reason.lstrip()[:1] in ("", "<") else _clean(client, reason)
    unclear = status >= 500 or status in (408, 409)
    no_credit = code == "insufficient_quota"
    advice = _advice(facts, status, code if no_credit else None)
    return ServiceError(
        f"{name} answered {error.status_code}: {reason.rstrip('.')}. {advice}".rstrip(),
        code=code,
        status=status,
        unclear=unclear,
        request_id=error.request_id,
        final=no_credit or not (unclear or status == 429),
    )


def _advice(facts: Facts, status: int, code: str | None) -> str:
    if status == 401:
        where = f"Set {facts.key_variable} (or the keyring's entry) to a key that is valid"
        return f"{where} there, then run the same command again."
    return _ADVICE.get(code or status, "")


def _clean(client: "openai.OpenAI", text: str) -> str:
    """Text without the key or anything that looks like one, on one line of a readable length."""
    key = client.api_key
    text = text if key == NO_KEY else text.replace(key, "[key]")
    return " ".join(re.sub(r"\b(sk|sess)-[\w*-]{4,}", "[key]", text).split())[:500]
