"""A small Batch API in memory, on a clock of its own, that fails in every way a seed decides.

It stands behind the official client as its transport: no socket, no thread, no real second passes.
What it did stands in its own book, which alone judges; its journal is the same for the same seed.
A crash is raised where the loop reads the clock, sleeps or calls: `Crash` is no Exception, so that
nothing between there and the caller may take it for a fault.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx2
import openai
from simulated_lines import ANSWERS, NOT_RUN, Batch, Line

from lib import clock
from lib.service import Service

START = 1_795_000_000.0  # November 2026
DAY = 86_400


class Crash(BaseException):
    """The process ends here."""


class Endless(BaseException):
    """The loop asks and asks."""


def lognormal(rng: random.Random, _tokens: int, _now: float) -> float:
    """Seconds that a batch takes: two hours in the median, whatever its size."""
    return 7200 * rng.lognormvariate(0, 1.0)


@dataclass(frozen=True)
class Weather:
    """How the service behaves: `calls` and `lines` are shares of faults by name, times seconds."""

    turnaround: Callable[[random.Random, int, float], float] = lognormal
    calls: Mapping[str, float] = field(default_factory=dict)
    lines: Mapping[str, float] = field(default_factory=dict)
    validating: float = 60
    lag: float = 0  # at most so long until a listing shows what was made
    late: float = 0  # at most so long until an ended batch leaves the queue
    page: int = 100
    limits: Mapping[str, int] = field(default_factory=dict)  # tokens that a model's queue holds
    tells: bool = True  # whether a refusal names the limit
    denied: tuple[str, ...] = ()  # models to which the project has no access
    hollow: tuple[str, ...] = ()  # models whose reasoning eats every answer
    outages: tuple[tuple[float, float], ...] = ()  # since the start
    revoked: tuple[float, float] = (0, 0)
    steps: Mapping[float, float] = field(default_factory=dict)  # wall clock: when, by how much
    crashes: int = 0
    between: float = 300  # about so many readings of the clock or calls lie between two crashes


class World:
    """The service with its book, the clock, and the crashes: everything that a seed decides."""

    def __init__(self, seed: object, weather: Weather, tokens: Mapping[str, int]) -> None:
        """`tokens` says by custom_id without attempt how many tokens the service counts."""
        self.rng, self.weather, self.tokens = random.Random(f"world {seed}"), weather, tokens
        self.now, self.offset, self.booted = START, 0.0, START
        self.files: dict[str, dict] = {}
        self.batches: dict[str, Batch] = {}
        self.journal: list[str] = []
        self.watch: Callable[[str, object], None] = lambda what, which: None
        self.n_crashes = self.n_calls = 0
        self.until_crash = self._next_crash()
        self.max_calls = 50_000
        self.doubling = False

    # The clock, and the end of a process.

    def clock(self) -> clock.Clock:
        """The clock by which the loop lives here."""
        return clock.Clock(self.wall, lambda: self.now - self.booted, self.sleep)

    def wall(self) -> float:
        """What the machine believes that the time is."""
        self._may_crash("clock")
        steps = self.weather.steps.items()
        return self.now + sum(by for at, by in steps if START + at <= self.now)

    def sleep(self, seconds: float) -> None:
        """Let time pass; a crash may cut it."""
        part = self.rng.random()
        if self.until_crash <= 1:
            self.now += part * max(0.0, seconds)
        self._may_crash("sleep")
        self.now += max(0.0, seconds)

    def boot(self, after: float) -> None:
        """Start another process, with a monotonic clock of its own."""
        self.now += after
        self.booted = self.now - self.rng.uniform(0, DAY)

    def _next_crash(self) -> float:
        if self.n_crashes >= self.weather.crashes:
            return float("inf")
        return 1 + self.rng.expovariate(1 / self.weather.between)

    def _may_crash(self, where: str) -> None:
        self.until_crash -= 1
        if self.until_crash <= 0:
            self.n_crashes += 1
            self.until_crash = self._next_crash()
            self._write(f"crash at {where}")
            raise Crash(where)

    # The door.

    def service(self, **differs: object) -> Service:
        """The service as the loop gets it: the official client on this transport."""
        door = httpx2.Client(transport=httpx2.MockTransport(self.answer))
        client = openai.OpenAI(
            base_url="http://simulated/v1", api_key="simulated", max_retries=0, http_client=door
        )
        settings = {"free": False, "grace_seconds": 120, "poll_seconds": 600, **differs}
        return Service(settings.pop("name", "openai"), client, **settings)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        """One call: it may be refused, lost before or after it had its effect, or be the last."""
        self.n_calls += 1
        if self.n_calls > self.max_calls:
            raise Endless(f"{self.n_calls:,} calls")
        path = request.url.path.removeprefix("/v1")
        what = f"{request.method} {path}"
        self.now += self.rng.uniform(0.05, 1.0)
        self.pass_time()
        self._may_crash(f"{what} before")
        since = self.now - START
        if any(begin <= since < end for begin, end in self.weather.outages):
            return self._fail(request, what, self.rng.choice(("drop", "down")))
        if self.weather.revoked[0] <= since < self.weather.revoked[1]:
            return self._error(what, 401, "Incorrect API key provided.", "invalid_api_key")
        fault = self._draw(self.weather.calls)
        if fault in ("drop", "error", "busy", "down"):
            return self._fail(request, what, fault)
        self.doubling = fault == "twice" and what == "POST /batches"
        for _ in range(1 + self.doubling):
            status, body = self._route(request, path)
        self._write(f"{what} {status} {fault}")
        self._may_crash(f"{what} after")
        if fault in ("lose", "twice"):
            raise httpx2.ReadError("connection reset", request=request)
        if fault == "fail" or (fault == "cut" and request.method != "GET"):
            return self._error(what, 500, "The server had an error.", "server_error")
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        if fault == "cut":
            return httpx2.Response(status, stream=Cut(raw, request))
        return httpx2.Response(status, content=raw, headers={"content-type": "application/json"})

    def _fail(self, request: httpx2.Request, what: str, fault: str) -> httpx2.Response:
        """A call that has no effect."""
        self._write(f"{what} {fault}")
        if fault == "drop":
            raise httpx2.ConnectError("connection refused", request=request)
        if fault == "down":
            return httpx2.Response(503, content=b"<html>Bad gateway</html>")
        if fault == "busy":
            self.watch("busy", request)
            return self._error(what, 429, "Rate limit reached.", "rate_limit_exceeded")
        return self._error(what, 500, "The server had an error.", "server_error")

    def _error(self, what: str, status: int, message: str, code: str | None) -> httpx2.Response:
        self._write(f"{what} {status} {code}")
        return httpx2.Response(status, json=_error(message, code))

    def _draw(self, shares: Mapping[str, float]) -> str:
        """A fault by its share, or none; always one number is drawn."""
        drawn = self.rng.random()
        for name, share in shares.items():
            drawn -= share
            if drawn < 0:
                return name
        return ""

    def _write(self, line: str) -> None:
        self.journal.append(f"{self.now - START:.3f} {line}")

    # The routes.

    def _route(self, request: httpx2.Request, path: str) -> tuple[int, object]:
        parts = path.strip("/").split("/")
        kind, one, more = (*parts, "", "")[:3]
        call = (request.method, kind, bool(one), more)
        if call == ("POST", "files", False, ""):
            return 200, self._upload(request)
        if call == ("POST", "batches", False, ""):
            return 200, self._create(json.loads(request.content))
        if call in {("GET", "files", False, ""), ("GET", "batches", False, "")}:
            return 200, self._list(kind, request.url.params)
        if call == ("GET", "models", False, ""):
            names = [{"id": name, "object": "model"} for name in self.weather.limits]
            return 200, {"object": "list", "data": names}
        if kind == "files":
            return self._one_file(request.method, one, more)
        return self._one_batch(request.method, one, more)

    def _id(self, prefix: str) -> str:
        return f"{prefix}{self.rng.getrandbits(96):024x}"

    def _shown_at(self) -> float:
        return self.now + self.rng.uniform(0, self.weather.lag)

    def _upload(self, request: httpx2.Request) -> dict:
        boundary = request.headers["content-type"].split("boundary=")[1].encode()
        parts = (part.split(b"\r\n\r\n", 1) for part in request.content.split(b"--" + boundary))
        named = {part[0]: part[1][:-2] for part in parts if len(part) == 2}
        head, raw = next((h, body) for h, body in named.items() if b"filename=" in h)
        file = {
            "id": self._id("file-"),
            "object": "file",
            "purpose": "batch",
            "status": "processed",
            "filename": re.search(rb'filename="([^"]*)"', head)[1].decode(),
            "bytes": len(raw),
            "created_at": int(self.now),
            "shown_at": self._shown_at(),
            "raw": raw,
        }
        self.files[file["id"]] = file
        self._write(f"has {file['id']} {hashlib.sha256(raw).hexdigest()[:12]}")
        return _plain_file(file)

    def _create(self, asked: dict) -> dict:
        due_at = self.now + self.rng.uniform(0.2, 2) * self.weather.validating
        file_id, shown_at = asked["input_file_id"], self._shown_at()
        batch = Batch(self._id("batch_"), file_id, asked["metadata"], self.now, shown_at, due_at)
        batch.double = self.doubling
        if file_id in self.files:
            batch.lines = [self._line(raw) for raw in self.files[file_id]["raw"].splitlines()]
        self.batches[batch.id] = batch
        self._write(f"has {batch.id} of {file_id}")
        self.watch("created", batch)
        return self._plain(batch)

    def _line(self, raw: bytes) -> Line:
        read = json.loads(raw)
        name, body = read["custom_id"], read["body"]
        cap = body.get("max_completion_tokens") or body.get("max_tokens")
        return Line(name, body["model"], self.tokens[name.split("-")[0]], cap)

    def _list(self, kind: str, asked: Mapping[str, str]) -> dict:
        every = self.files.values() if kind == "files" else self.batches.values()
        times = {_of(one, "id"): _of(one, "shown_at") for one in every}
        names = [name for name, shown_at in reversed(times.items()) if shown_at <= self.now]
        if asked.get("after"):
            names = names[names.index(asked["after"]) + 1 :] if asked["after"] in names else []
        page = names[: min(self.weather.page, int(asked.get("limit", 20)))]
        data = [self._plain(self.batches[n]) if kind == "batches" else _plain_file(self.files[n])
                for n in page]  # fmt: skip
        edges = {"first_id": page[0], "last_id": page[-1]} if page else {}
        return {"object": "list", "data": data, "has_more": len(page) < len(names), **edges}

    def _one_file(self, method: str, name: str, more: str) -> tuple[int, object]:
        if name.startswith("file-out-") or name.startswith("file-err-"):
            batch = self.batches[name[9:]]
            if batch.gone:
                return 404, _error(f"No such File object: {name}", None)
            return 200, batch.results()[name[5:8]]
        if name not in self.files:
            return 404, _error(f"No such File object: {name}", None)
        if method == "DELETE":
            del self.files[name]
            return 200, {"id": name, "object": "file", "deleted": True}
        file = self.files[name]
        return 200, file["raw"] if more == "content" else _plain_file(file)

    def _one_batch(self, method: str, name: str, more: str) -> tuple[int, object]:
        batch = self.batches.get(name)
        # A batch just made may not be shown for a while, and is there all the same.
        if batch is None or (method == "GET" and batch.shown_at - self.now > 5):
            return 404, _error(f"No batch found with id '{name}'.", None)
        if more == "cancel" and batch.live:
            batch.cancelled_at = min(batch.cancelled_at, self.now)
            batch.status, batch.due_at = "cancelling", self.now + self.rng.uniform(1, 600)
            self._write(f"cancels {batch.id}")
        elif more == "cancel" and batch.status != "cancelled":
            return 409, _error(f"Cannot cancel a batch with status '{batch.status}'.", None)
        if not batch.live and batch.seen_at == float("inf"):
            batch.seen_at = self.now
            self.watch("seen", batch)
        return 200, self._plain(batch)

    def _plain(self, batch: Batch) -> dict:
        results = {} if batch.live or not batch.admitted else batch.results()
        files = {kind: f"file-{kind}-{batch.id}" for kind, raw in results.items() if raw}
        n_done = sum(line.kind not in ("", *NOT_RUN) for line in batch.lines)
        n_bad = sum(ANSWERS.get(line.kind, (200,))[0] != 200 for line in batch.lines)
        counts = (len(batch.lines), n_done - n_bad, n_bad) if results else (0, 0, 0)
        end = {f"{batch.status}_at": int(batch.ended_at)} if not batch.live else {}
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": batch.file_id,
            "completion_window": "24h",
            "status": batch.status,
            "metadata": batch.metadata,
            "created_at": int(batch.created_at),
            "expires_at": int(batch.created_at) + DAY,
            "request_counts": dict(zip(("total", "completed", "failed"), counts, strict=True)),
            "output_file_id": files.get("out"),
            "error_file_id": files.get("err"),
            "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
            **end,
        }

    # What happens to batches, in the order of time.

    def pass_time(self) -> None:
        """Let everything happen that was due by now."""
        while True:
            live = [batch for batch in self.batches.values() if batch.live]
            due = min(live, key=lambda batch: batch.due_at, default=None)
            if due is None or due.due_at > self.now:
                return
            self._validate(due) if due.status == "validating" else self._end(due)

    def _validate(self, batch: Batch) -> None:
        at = batch.due_at
        errors = self._refusals(batch)
        if errors:
            batch.status, batch.errors, batch.ended_at = "failed", errors, at
            self._write(f"refuses {batch.id} {errors[0]['code']}")
            return
        batch.status, batch.admitted = "in_progress", True
        taken = self.weather.turnaround(self.rng, batch.n_tokens, at)
        batch.expires = taken > DAY or self._draw({"expires": self.weather.calls.get("late", 0)})
        batch.due_at = batch.created_at + DAY if batch.expires else at + taken
        for line in batch.lines:
            drawn = self._draw(self.weather.lines) or "valid"
            line.kind = self._kind(line, drawn)
            line.done_at = at + self.rng.random() * max(taken, 1)

    def _kind(self, line: Line, drawn: str) -> str:
        if line.model in self.weather.denied:
            return "denied"
        return "empty" if line.model in self.weather.hollow else drawn

    def _refusals(self, batch: Batch) -> list[dict]:
        """Why a batch fails its validation, if it does."""
        drawn = self._draw({k: self.weather.calls.get(k, 0) for k in ("no_file", "blame")})
        if batch.file_id not in self.files or drawn == "no_file":
            what = f"Cannot find file {batch.file_id}, or organization org-1 does not have access"
            return [_fault("invalid_request", what, "file_id")]
        model = batch.lines[0].model
        limit = self.weather.limits.get(model)
        if limit and self.enqueued(model, batch.due_at) + batch.n_tokens > limit:
            named = f"Limit: {limit:,} enqueued tokens. " if self.weather.tells else ""
            what = f"Enqueued token limit reached for {model} in organization org-1. {named}"
            again = "Please try again once some in_progress batches have been completed."
            return [_fault("token_limit_exceeded", what + again, None)]
        if drawn == "blame" and len(batch.lines) > 1:
            number = self.rng.randrange(len(batch.lines)) + 1
            what = "This line is not parseable as valid JSON."
            return [_fault("invalid_json_line", what, None) | {"line": number}]
        return []

    def enqueued(self, model: str, at: float) -> int:
        """The tokens that a model's queue holds: admitted and not released yet."""
        held = (b for b in self.batches.values() if b.admitted and b.released_at > at)
        return sum(batch.n_tokens for batch in held if batch.lines[0].model == model)

    def _end(self, batch: Batch) -> None:
        batch.ended_at = at = batch.due_at
        was_cancelled = batch.status == "cancelling"
        batch.status = "cancelled" if was_cancelled else "expired" if batch.expires else "completed"
        stopped_at = min(at, batch.cancelled_at)
        batch.released_at = at + self.rng.uniform(0, self.weather.late)
        batch.gone = bool(self._draw({"gone": self.weather.calls.get("gone", 0)}))
        for line in batch.lines if batch.admitted else ():
            if line.done_at > stopped_at:
                line.kind = "batch_cancelled" if was_cancelled else "batch_expired"
            line.usd = line.price_usd
        self._write(f"ends {batch.id} {batch.status}")
        self.watch("ended", batch)


class Cut(httpx2.SyncByteStream):
    """An answer that breaks off half way."""

    def __init__(self, raw: bytes, request: httpx2.Request) -> None:
        """What should have come, and to whom."""
        self.raw, self.request = raw, request

    def __iter__(self):
        """Half of it, and then the fault."""
        yield self.raw[: len(self.raw) // 2]
        raise httpx2.RemoteProtocolError("peer closed connection", request=self.request)


def _fault(code: str, message: str, param: str | None) -> dict:
    return {"code": code, "message": message, "param": param, "line": None}


def _error(message: str, code: str | None) -> dict:
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}


def _of(one: object, name: str) -> object:
    return one[name] if isinstance(one, dict) else getattr(one, name)


def _plain_file(file: dict) -> dict:
    return {name: value for name, value in file.items() if name not in ("raw", "shown_at")}
