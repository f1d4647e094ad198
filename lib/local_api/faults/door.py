"""Where faults meet requests: between the check of the token and the application.

Without a switch, a fault in metadata or a header this is two look-ups. It decides in which order
faults come: those before acting, of which the first to strike stands for the answer, then the act,
then those of the answer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib import errors
from lib.local_api import clock, context, params, texts
from lib.local_api.faults import calls, contents, keeping, lists, refusals, switches, table, views

LOST = ("upload_answer_lost", "create_answer_lost", "cancel_answer_lost")
CLOSED = ("connection_dropped", "service_down", "request_hangs")


class Visit(NamedTuple):
    """One request on its way: what it is, which switches are for it, and its two ends."""

    service: context.Service
    app: ASGIApp
    scope: Scope
    receive: Receive
    send: Send
    asked: calls.Call
    switched: list[switches.Switch]


class Caught(NamedTuple):
    """An answer of the application that has not been sent yet."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def through(app: ASGIApp, service: context.Service) -> ASGIApp:
    """The application behind its faults."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        header = dict(scope["headers"]).get(switches.HEADER.encode())
        faults = service.faults
        asked = calls.call(scope) if faults.on or faults.attached or header else None
        if asked is None:
            return await app(scope, receive, send)
        try:
            switched = _switched(service, asked, (header or b"").decode("latin-1"))
        except errors.ServiceError as refusal:
            await _drained(receive)
            answer = params.compact(texts.error_object(refusal), refusal.status)
            return await answer(scope, receive, send)
        before = [one.n_struck for one in switched]
        visit = Visit(service, app, scope, receive, send, asked, switched)
        try:
            await _visit(visit)
        finally:
            if before != [one.n_struck for one in switched]:
                keeping.keep(service)

    return door


def _switched(service: context.Service, asked: calls.Call, header: str) -> list[switches.Switch]:
    """The switches for a request: those of its header, of its batch and of the service."""
    own = switches.from_text(header)
    for name, rule in own.items():
        if rule.fault.stage in ("batch", "line"):
            what = f"{name!r} is a fault of batches: name it in the metadata {switches.METADATA!r}."
            raise texts.refusal(400, texts.ours(what), switches.HEADER, "invalid_fault")
        if asked.operation not in rule.only:
            what = f"{name!r} strikes {', '.join(rule.only)}, but this is {asked.operation}."
            raise texts.refusal(400, texts.ours(what), switches.HEADER, "invalid_fault")
    found = [switches.Switch(rule) for rule in own.values()]
    found += calls.attached(service, asked).values()
    found += service.faults.on.values()
    return [one for one in found if asked.operation in one.rule.only]


async def _visit(visit: Visit) -> None:
    """Take a request through the faults that are switched on for it."""
    for switch in visit.switched:
        if _may_stop(visit, switch.rule) and switches.strikes(switch):
            return await _stop(visit, switch.rule)
    if visit.asked.operation in table.LISTS:
        query = lists.query(visit.service, visit.scope, visit.asked, visit.switched)
        visit = visit._replace(scope={**visit.scope, "query_string": query})
    if _struck(visit, "batch_doubled"):
        visit = await _twice(visit)
    if visit.asked.operation == table.CONTENT:
        return await _download(visit)
    own = visit.asked.operation == table.LIST_BATCHES and visit.service.faults.attached
    if own or any(switch.rule.fault.stage in ("answer", "view") for switch in visit.switched):
        return await _answer(visit)
    return await visit.app(visit.scope, visit.receive, visit.send)


def _may_stop(visit: Visit, rule: switches.Rule) -> bool:
    """Whether a fault answers instead of the service, and has something to hide here."""
    name = rule.fault.name
    if name == "hidden_after_create":
        row = calls.row(visit.service, visit.asked)
        now = clock.now(visit.service.clock)
        return row is not None and now - row["created_at"] < rule.value
    is_download = rule.fault.stage == "content" and name not in contents.NAMES
    return is_download or (rule.fault.stage == "request" and name != "batch_doubled")


async def _stop(visit: Visit, rule: switches.Rule) -> None:
    """Answer instead of the service, or close the connection."""
    name = rule.fault.name
    if name not in CLOSED:
        await _drained(visit.receive)
        answer = refusals.instead(rule, visit.asked)
        await answer(visit.scope, visit.receive, visit.send)
        return
    if name == "request_hangs":
        await _drained(visit.receive)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_gone(visit.receive), rule.value)
    if name == "service_down":
        await visit.service.network.close_port(rule.value)
    await _hang_up(visit)


def _struck(visit: Visit, *names: str) -> switches.Rule | None:
    """The first of these faults that strikes."""
    for switch in visit.switched:
        if switch.rule.fault.name in names and switches.strikes(switch):
            return switch.rule
    return None


async def _twice(visit: Visit) -> Visit:
    """Act once without anybody knowing; gives the request as it was, to act again."""
    body = await _body(visit.receive)
    await _caught(visit.app, visit.scope, _again(body, visit.receive))
    return visit._replace(receive=_again(body, visit.receive))


async def _download(visit: Visit) -> None:
    """Let a content pass with the first download fault that strikes."""
    rule = _struck(visit, *contents.NAMES)
    if rule is None:
        return await visit.app(visit.scope, visit.receive, visit.send)
    send, is_cut = contents.through(rule.fault.name, int(rule.value), visit.send)
    await visit.app(visit.scope, visit.receive, send)
    if is_cut():
        await _hang_up(visit)
    return None


async def _answer(visit: Visit) -> None:
    """Act, then answer as the faults that strike have it; a refusal is no chance for them."""
    caught = await _caught(visit.app, visit.scope, visit.receive)
    if caught.status != 200:
        return await _sent(visit, caught)
    found = orjson.loads(caught.body)
    shown = views.changed(visit.service.faults, found, visit.switched)
    if shown is not found:
        caught = _with_body(caught, orjson.dumps(shown))
    rule = _struck(visit, *(name for name, one in table.FAULTS.items() if one.stage == "answer"))
    if rule is None:
        return await _sent(visit, caught)
    return await _spoilt(visit, rule, caught)


async def _spoilt(visit: Visit, rule: switches.Rule, caught: Caught) -> None:
    """Send what a fault of the answer leaves of it."""
    name, n_bytes = rule.fault.name, min(int(rule.value), len(caught.body) - 1)
    if name in LOST:
        await asyncio.sleep(rule.value)
        await _hang_up(visit)
    elif name == "answer_cut":
        await visit.send(_start(caught))
        body = caught.body[:n_bytes]
        await visit.send({"type": "http.response.body", "body": body, "more_body": True})
        await _hang_up(visit)
    elif name == "answer_shortened":
        await _sent(visit, _with_body(caught, caught.body[:n_bytes]))
    else:
        page = refusals.page(200, "Welcome")
        answer = page if name == "answer_in_html" else refusals.server_error()
        await answer(visit.scope, visit.receive, visit.send)


async def _caught(app: ASGIApp, scope: Scope, receive: Receive) -> Caught:
    """The answer of the application, held back."""
    messages: list[Message] = []

    async def hold(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, hold)
    body = b"".join(message.get("body", b"") for message in messages[1:])
    return Caught(messages[0]["status"], messages[0]["headers"], body)


def _with_body(caught: Caught, body: bytes) -> Caught:
    """An answer with another body, and its length."""
    kept = [pair for pair in caught.headers if pair[0] != b"content-length"]
    return Caught(caught.status, [*kept, (b"content-length", str(len(body)).encode())], body)


def _start(caught: Caught) -> Message:
    """The beginning of an answer."""
    return {"type": "http.response.start", "status": caught.status, "headers": caught.headers}


async def _sent(visit: Visit, caught: Caught) -> None:
    """Send an answer as it is."""
    await visit.send(_start(caught))
    await visit.send({"type": "http.response.body", "body": caught.body})


async def _hang_up(visit: Visit) -> None:
    """Close the connection of a request, after what was sent on it."""
    visit.service.network.hang_up(visit.scope["client"])
    await _gone(visit.receive)


async def _gone(receive: Receive) -> None:
    """Wait until the caller is gone."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def _drained(receive: Receive) -> None:
    """Read the rest of a request away, so that the caller listens to the answer."""
    async for _ in _parts(receive):
        continue


async def _body(receive: Receive) -> bytes:
    """The body of a request."""
    return b"".join([part async for part in _parts(receive)])


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    """The parts of a body as they arrive."""
    while (message := await receive())["type"] == "http.request":
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


def _again(body: bytes, receive: Receive) -> Receive:
    """A request that was read, to be read again."""
    given = False

    async def read() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read
