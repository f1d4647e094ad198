"""What a simulated batch is made of: lines, how each may end, and the files that tell of it."""

import json
from dataclasses import dataclass, field

from lib import models

VALID = json.dumps({"pleased": True})
# What becomes of a line that is run, when a fault is drawn: status, error code, finish reason.
ANSWERS = {
    "empty": (200, None, ""),
    "truncated": (200, None, '{"pleas'),
    "malformed": (200, None, "Pleased, I think."),
    "refused": (200, None, None),
    "busy": (429, "rate_limit_exceeded", None),
    "broken": (500, "server_error", None),
    "zero": (0, None, None),
    "bad": (400, "context_length_exceeded", None),
    "denied": (403, "model_not_found", None),
}
NOT_RUN = ("missing", "batch_expired", "batch_cancelled")


@dataclass
class Line:
    """One line of an input file: who asked what, how it ended and when."""

    custom_id: str
    model: str
    n_tokens: int
    cap: int
    kind: str = ""
    done_at: float = 0.0
    usd: float = 0.0

    @property
    def is_run(self) -> bool:
        """Whether a model has written something, which is billed."""
        return self.kind == "valid" or ANSWERS.get(self.kind, (0,))[0] == 200

    @property
    def usage(self) -> tuple[int, int]:
        """Tokens read and written."""
        if not self.is_run:
            return 0, 0
        return self.n_tokens, self.cap if self.kind in ("empty", "truncated") else self.cap // 8

    @property
    def price_usd(self) -> float:
        """What the service bills: the usage at the price of the day."""
        return models.spend_usd(models.facts(self.model), *self.usage)


@dataclass
class Batch:
    """A batch in the book; `seen_at` is when it was first shown with its end."""

    id: str
    file_id: str
    metadata: dict
    created_at: float
    shown_at: float
    due_at: float
    lines: list[Line] = field(default_factory=list)
    status: str = "validating"
    errors: list[dict] = field(default_factory=list)
    admitted: bool = False
    released_at: float = float("inf")
    ended_at: float = float("inf")
    cancelled_at: float = float("inf")
    seen_at: float = float("inf")
    expires: bool = False
    gone: bool = False
    double: bool = False

    @property
    def live(self) -> bool:
        """Whether it may still change."""
        return self.ended_at == float("inf")

    @property
    def n_tokens(self) -> int:
        """What it takes of the queue."""
        return sum(line.n_tokens for line in self.lines)

    def results(self) -> dict[str, bytes]:
        """The output file and the error file of an ended batch, in another order than the input."""
        files: dict[str, list[bytes]] = {"out": [], "err": []}
        for line in sorted(self.lines, key=lambda line: (line.done_at, line.custom_id)):
            if line.kind != "missing":
                files["out" if line.is_run else "err"].append(_result(line))
        return {kind: b"".join(lines) for kind, lines in files.items()}


def _result(line: Line) -> bytes:
    """One line of a result file."""
    named = {"id": f"batch_req_{line.custom_id}", "custom_id": line.custom_id}
    if line.kind in NOT_RUN:
        error = {"code": line.kind, "message": "This request could not be executed."}
        return json.dumps({**named, "response": None, "error": error}).encode() + b"\n"
    status, code, content = ANSWERS.get(line.kind, (200, None, VALID))
    body: dict = {"error": {"message": f"Fault {code}.", "code": code, "param": None}}
    if status == 200:
        reason = "length" if line.kind in ("empty", "truncated") else "stop"
        message = {"role": "assistant", "content": content}
        message |= {"refusal": "I cannot help."} if line.kind == "refused" else {}
        n_input, n_output = line.usage
        usage = {"prompt_tokens": n_input, "completion_tokens": n_output}
        body = {"model": line.model, "usage": usage}
        body["choices"] = [{"index": 0, "finish_reason": reason, "message": message}]
    response = {"status_code": status, "request_id": "r", "body": body}
    return json.dumps({**named, "response": response, "error": None}).encode() + b"\n"
