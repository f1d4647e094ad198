"""Every fault by name, as data: when it strikes, what it does, which entry of the fault list it is.

`item` is the number in the list of faults that a batch client must live through: A01 to A36 of the
service, M01 to M28 of the model's output; faults that users reported besides have none. `only`
names the operations that it can strike; `option` is the one number that it takes, with its default.

Stages: a `request` fault strikes before the service acts, an `answer` fault after it acted; `view`
and `list` faults change what is shown; `content` faults strike downloads; a `batch` fault decides
once for each batch, a `line` fault for each line of its results.
"""

from typing import NamedTuple

UPLOAD, CREATE, CANCEL, RETRIEVE = "upload", "create", "cancel", "retrieve"
LIST_BATCHES, LIST_FILES, FILE, DELETE = "list_batches", "list_files", "file", "delete"
CONTENT, CHAT, MODELS = "content", "chat", "models"
BATCH_OPERATIONS = (CREATE, RETRIEVE, CANCEL, LIST_BATCHES)
IN_JSON = (UPLOAD, *BATCH_OPERATIONS, LIST_FILES, FILE, DELETE, CHAT, MODELS)
OPERATIONS = (*IN_JSON, CONTENT)
KNOWN = (RETRIEVE, CANCEL, FILE, DELETE, CONTENT)
SINGLE = (UPLOAD, CREATE, RETRIEVE, CANCEL, FILE)
LISTS = (LIST_BATCHES, LIST_FILES)


class Fault(NamedTuple):
    """One fault."""

    name: str
    item: str | None
    stage: str
    only: tuple[str, ...]
    option: tuple[str, float] | None
    what: str


def _rows(stage: str, *rows: tuple) -> dict[str, Fault]:
    """The faults of a stage, from (name, item, operations, option, what)."""
    return {row[0]: Fault(row[0], row[1], stage, *row[2:]) for row in rows}


REQUEST = _rows(
    "request",
    (
        "service_down",
        "A01",
        OPERATIONS,
        ("seconds", 1.0),
        "closes every connection and refuses new ones for real seconds",
    ),
    ("connection_dropped", "A01", OPERATIONS, None, "closes the connection, having done nothing"),
    (
        "request_hangs",
        "A05",
        OPERATIONS,
        ("seconds", 600.0),
        "does nothing for real seconds, then closes the connection",
    ),
    ("error_500_before", "A09", OPERATIONS, None, "500, having done nothing"),
    ("html_502", "A11", OPERATIONS, None, "502 with an HTML page"),
    ("html_503", "A11", OPERATIONS, None, "503 with an HTML page"),
    ("html_504", "A11", OPERATIONS, None, "504 with an HTML page"),
    (
        "rate_limited",
        "A12",
        OPERATIONS,
        ("seconds", 1.0),
        "429 with Retry-After in seconds",
    ),
    ("rate_limited_silently", "A13", OPERATIONS, None, "429 without Retry-After"),
    (
        "rate_limited_until_date",
        "A13",
        OPERATIONS,
        ("seconds", 60.0),
        "429 with Retry-After as a date so many real seconds ahead",
    ),
    ("rate_limited_for_a_day", "A13", OPERATIONS, None, "429 with Retry-After: 86400"),
    ("no_credit", "A14", OPERATIONS, None, "429 insufficient_quota"),
    ("unsupported_parameter", "A15", (UPLOAD, CREATE, CHAT), None, "400 unsupported_parameter"),
    ("key_revoked", "A16", OPERATIONS, None, "401 invalid_api_key; `after` lets requests pass"),
    ("no_model_access", "A17", (UPLOAD, CREATE, CHAT), None, "403 model_not_found"),
    ("not_ours", "A18", KNOWN, None, "404 for a batch or a file, as if of another project"),
    (
        "hidden_after_create",
        "A18",
        KNOWN,
        ("seconds", 2.0),
        "404 for a batch or a file that was made less than so many service seconds ago",
    ),
    ("conflict", "A19", OPERATIONS, None, "409, having done nothing"),
    ("too_large", "A20", (UPLOAD, CREATE, CHAT), None, "413, having done nothing"),
    ("batch_doubled", "A33", (CREATE,), None, "makes two batches and answers with the later one"),
)
ANSWER = _rows(
    "answer",
    (
        "upload_answer_lost",
        "A06",
        (UPLOAD,),
        ("seconds", 0.0),
        "takes the file in, waits real seconds and closes the connection without an answer",
    ),
    (
        "create_answer_lost",
        "A07",
        (CREATE,),
        ("seconds", 0.0),
        "makes the batch, waits real seconds and closes the connection without an answer",
    ),
    (
        "cancel_answer_lost",
        "A08",
        (CANCEL,),
        ("seconds", 0.0),
        "cancels, waits real seconds and closes the connection without an answer",
    ),
    ("error_500_after", "A10", IN_JSON, None, "500, having done what was asked"),
    (
        "answer_cut",
        "A21",
        IN_JSON,
        ("bytes", 20.0),
        "200 and its length, then so many bytes, then the connection is closed",
    ),
    (
        "answer_shortened",
        "A21",
        IN_JSON,
        ("bytes", 20.0),
        "a 200 that is whole as HTTP, with only so many bytes of its JSON",
    ),
    ("answer_in_html", "A22", IN_JSON, None, "200 with an HTML page"),
)
VIEW = _rows(
    "view",
    ("answer_without_id", "A22", SINGLE, None, "200 with an object that has no id"),
    ("answer_with_empty_id", "A22", SINGLE, None, "200 with an object whose id is ''"),
    ("unknown_status", "A22", BATCH_OPERATIONS, None, "a batch in the status 'under_review'"),
    ("file_ids_empty", "A22", BATCH_OPERATIONS, None, "ids of files that are '' instead of null"),
    (
        "status_backwards",
        "A29",
        (RETRIEVE, LIST_BATCHES),
        None,
        "every second look at a status shows the status before it",
    ),
    (
        "counts_backwards",
        "A29",
        (RETRIEVE, LIST_BATCHES),
        ("by", 1.0),
        "every second look at counts shows so many fewer completed",
    ),
    (
        "counts_wrong",
        "A30",
        (RETRIEVE, LIST_BATCHES),
        ("by", 1.0),
        "more completed than there are lines, or fewer with a number below zero",
    ),
    (
        "created_early",
        "A36",
        BATCH_OPERATIONS,
        ("seconds", 86_400.0),
        "a created_at so many service seconds earlier than it was",
    ),
    (
        "output_id_vanishes",
        None,
        (RETRIEVE, LIST_BATCHES),
        None,
        "an output_file_id that has been shown is null from then on",
    ),
)
LIST = _rows(
    "list",
    (
        "list_lags",
        "A31",
        LISTS,
        ("seconds", 2.0),
        "a list without what was made less than so many service seconds ago",
    ),
    (
        "list_repeats",
        "A31",
        LISTS,
        None,
        "a next page that begins with the last of the page before",
    ),
    ("list_drops", "A31", LISTS, None, "a next page without its first item"),
)
DOWNLOAD = _rows(
    "content",
    (
        "content_cut",
        "A32",
        (CONTENT,),
        ("bytes", 100.0),
        "the connection is closed after so many bytes of the announced length",
    ),
    (
        "content_short",
        "A32",
        (CONTENT,),
        ("bytes", 100.0),
        "a whole answer with so many bytes only",
    ),
    (
        "content_changed",
        "A32",
        (CONTENT,),
        ("bytes", 100.0),
        "the byte after so many bytes is another one, the length is right",
    ),
    ("content_gone", "A32", (CONTENT,), None, "404 for the content of a file that is there"),
    ("content_502", None, (CONTENT,), None, "502 with an HTML page for a content, for good"),
)
BATCH = _rows(
    "batch",
    (
        "fails_validation",
        "A23",
        (),
        ("lines", 3.0),
        "failed with an error for each of the first lines",
    ),
    ("queue_full", "A24", (), None, "failed with token_limit_exceeded, whatever is enqueued"),
    (
        "queue_limit",
        "A24",
        (),
        ("tokens", 2_000_000.0),
        "a queue limit of so many tokens instead of the documented one",
    ),
    ("queue_released_late", None, (), ("seconds", 86_400.0), "tokens held after the batch's end"),
    ("file_not_found", None, (), None, "failed because an input file that is there is not found"),
    ("all_lines_refused", "A25", (), None, "completed with only an error file: 403 on each line"),
    (
        "expires_early",
        "A26",
        (),
        ("share", 0.5),
        "expired after this share of its lines, which are paid and in the output file",
    ),
    (
        "cancels_itself",
        "A27",
        (),
        ("share", 0.5),
        "cancelled, though nobody asked, after this share of its lines",
    ),
    ("stuck_validating", "A28", (), None, "stays in validating until this is switched off"),
    ("stuck_in_progress", "A28", (), None, "stays in in_progress, also past its window"),
    ("stuck_finalizing", "A28", (), None, "stays in finalizing, also past its window"),
    ("stuck_cancelling", "A28", (), None, "stays in cancelling, also past its window"),
)
LINE = _rows(
    "line",
    ("lines_missing", "A30", (), None, "paid and counted, but in neither file (M16)"),
    ("lines_doubled", "M17", (), None, "the same line twice in its file"),
    ("lines_contradict", "M18", (), None, "a second line of the same custom_id, another answer"),
    ("lines_in_both", "M18", (), None, "answered in the output file, a 500 in the error file"),
    ("lines_foreign", "M15", (), None, "one more line, of a custom_id that nobody sent"),
    ("lines_status_0", None, (), None, "status_code 0 and no body in the output file, not run"),
    ("lines_429", None, (), None, "429 in the error file, not run"),
    ("lines_no_credit", "A14", (), None, "429 insufficient_quota in the error file, not run"),
    ("lines_500", None, (), None, "500 in the error file, not run"),
    ("lines_unsupported", "A15", (), None, "400 unsupported_parameter in the error file, not run"),
    ("lines_no_access", "A17", (), None, "403 without access to the model, not run"),
    ("lines_null_content", "M03", (), None, "paid, with null content and finish_reason length"),
)
FAULTS = {**REQUEST, **ANSWER, **VIEW, **LIST, **DOWNLOAD, **BATCH, **LINE}
OF_A_BATCH = ("view", "content", "batch", "line")

NOT_APPLICABLE = {
    "A02": "names are resolved before the service is reached: use a base URL whose host is unknown",
    "A03": "there is no TLS on loopback: use a base URL that begins with https",
    "A04": "the system accepts for us on loopback: use a base URL whose address does not answer",
    "A34": "a batch that the ledger of a client does not know: make one with the same metadata",
    "A35": "the key is the client's: resume with another one (401), or switch on not_ours (404)",
}
