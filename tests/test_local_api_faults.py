"""Faults on purpose: each switch over HTTP, seen by the official SDK without retries."""

import contextlib
import datetime
import email.utils
import json
import signal
import socket
import time
import urllib.error
import urllib.parse
import urllib.request

import openai
import pytest
from test_local_api import ENDED, ENDPOINT, client_of, ended, line, rows, stop, submitted

from lib import errors, local_api
from lib.local_api.faults import lines as spoiling
from lib.local_api.faults import switches, table

STAGES = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0")
HEADER = "x-votebook-fault"
TESTED = set()


class Service:
    """The service under test, with its switches."""

    def __init__(self, state):
        self.endpoint = local_api.start(state, options=STAGES)
        self.strict = client_of(self.endpoint)
        url, token = self.endpoint["base_url"], self.endpoint["token"]
        self.client = openai.OpenAI(base_url=url, api_key=token, max_retries=0, timeout=10)

    def admin(self, method, path, body=None):
        """The answer of a route of /votebook."""
        url = self.endpoint["base_url"].removesuffix("v1") + f"votebook/{path}"
        headers = {"Authorization": f"Bearer {self.endpoint['token']}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    @contextlib.contextmanager
    def on(self, seed=0, **faults):
        """Faults that are switched on within the block."""
        TESTED.update(faults)
        self.admin("PUT", "faults", {"seed": seed, "faults": faults})
        yield
        self.admin("DELETE", "faults")

    def create(self, **more):
        """A new batch of one request."""
        return submitted(self.client, [line("r")], **more)

    def done(self, n=4, fault=None):
        """A batch of so many requests that has ended, with a fault in its metadata."""
        TESTED.update({fault.split(";")[0]} if fault else ())
        metadata = {"votebook_fault": fault} if fault else None
        lines = [line(f"r-{i}", f"{'Lovely' if i % 2 else 'Awful'} soup.") for i in range(n)]
        return ended(self.strict, submitted(self.client, lines, metadata=metadata))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service without a fault."""
    state = tmp_path_factory.mktemp("state")
    yield Service(state)
    stop(state, signal.SIGTERM)


@pytest.fixture(scope="module")
def some(service):
    """A batch that has ended."""
    return service.done()


@pytest.fixture(scope="module")
def file_id(service):
    """An input file."""
    content = (json.dumps(line("r")) + "\n").encode()
    return service.client.files.create(file=("r.jsonl", content), purpose="batch").id


def create_with(service, file_id, fault):
    """Create a batch with a fault in the header of the request."""
    TESTED.add(fault.split(";")[0])
    wanted = {"endpoint": ENDPOINT, "completion_window": "24h", "input_file_id": file_id}
    return service.client.batches.create(**wanted, extra_headers={HEADER: fault})


def n_batches(service):
    """How many batches the service has."""
    return len(list(service.client.batches.list(limit=100)))


def answers(service, batch):
    """The lines of both files, as (status, custom_id) in order of the id."""
    made = [*rows(service.client, batch.output_file_id), *rows(service.client, batch.error_file_id)]
    return sorted((one["response"]["status_code"], one["custom_id"]) for one in made)


def test_every_entry_of_the_list_has_a_switch_or_a_reason():
    """A01 to A36, each with a switch or, if no server can cause it, with the reason."""
    items = {fault.item for fault in table.FAULTS.values()} | set(table.NOT_APPLICABLE)
    wanted = {f"A{n:02}" for n in range(1, 37)}
    assert wanted <= items
    assert {item for item in items - {None} if item not in wanted} == {"M03", "M15", "M17", "M18"}


REFUSALS = {
    "error_500_before": (openai.InternalServerError, 500, None),
    "html_502": (openai.InternalServerError, 502, None),
    "html_503": (openai.InternalServerError, 503, None),
    "html_504": (openai.InternalServerError, 504, None),
    "rate_limited; seconds=3": (openai.RateLimitError, 429, "rate_limit_exceeded"),
    "rate_limited_silently": (openai.RateLimitError, 429, "rate_limit_exceeded"),
    "rate_limited_until_date": (openai.RateLimitError, 429, "rate_limit_exceeded"),
    "rate_limited_for_a_day": (openai.RateLimitError, 429, "rate_limit_exceeded"),
    "no_credit": (openai.RateLimitError, 429, "insufficient_quota"),
    "unsupported_parameter": (openai.BadRequestError, 400, "unsupported_parameter"),
    "key_revoked": (openai.AuthenticationError, 401, "invalid_api_key"),
    "no_model_access": (openai.PermissionDeniedError, 403, "model_not_found"),
    "conflict": (openai.ConflictError, 409, None),
    "too_large": (openai.APIStatusError, 413, None),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refusal_before_acting_leaves_nothing_behind(service, file_id, fault):
    """Status, code and Retry-After are those of the fault, and no batch is made."""
    kind, status, code = REFUSALS[fault]
    before = n_batches(service)
    with pytest.raises(kind) as caught:
        create_with(service, file_id, fault)
    refused = caught.value
    assert refused.status_code == status
    assert n_batches(service) == before
    wait = refused.response.headers.get("retry-after")
    if fault.startswith("html"):
        assert refused.response.text.startswith("<html>")
    else:
        assert refused.code == code
    if fault == "rate_limited_until_date":
        ahead = email.utils.parsedate_to_datetime(wait) - datetime.datetime.now(datetime.UTC)
        assert 50 < ahead.total_seconds() <= 60
    else:
        waits = {"rate_limited; seconds=3": "3", "rate_limited_for_a_day": "86400"}
        assert wait == waits.get(fault)


@pytest.mark.parametrize("fault", ["connection_dropped", "request_hangs; seconds=0.1"])
def test_a_connection_that_is_closed_before_acting(service, file_id, fault):
    """The client learns nothing, and no batch is made."""
    before = n_batches(service)
    with pytest.raises(openai.APIConnectionError):
        create_with(service, file_id, fault)
    assert n_batches(service) == before


def test_a_request_that_hangs_runs_into_the_timeout_of_the_client(service):
    """The service does nothing, however long the client waits."""
    with service.on(request_hangs={"only": "list_batches"}):
        with pytest.raises(openai.APITimeoutError):
            service.client.with_options(timeout=0.2).batches.list()
        assert service.client.models.list().data


def test_a_service_that_is_down_refuses_connections_and_comes_back(service, file_id):
    """Closed for 0.4 s: refused by the system itself, then as before, at the same port."""
    address = urllib.parse.urlsplit(service.endpoint["base_url"])
    before = n_batches(service)
    with pytest.raises(openai.APIConnectionError):
        create_with(service, file_id, "service_down; seconds=0.4")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port))
    until = time.monotonic() + 5
    while True:
        try:
            assert n_batches(service) == before
            break
        except openai.APIConnectionError:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_answers_that_are_lost_after_acting(service, file_id):
    """The file is there, the batch is made, the batch is cancelled: only nobody was told."""
    files = service.client.files
    n_files = len(list(files.list()))
    with (
        service.on(upload_answer_lost={"count": 1}, create_answer_lost={"count": 1}),
        pytest.raises(openai.APIConnectionError),
    ):
        files.create(file=("r.jsonl", b"{}\n"), purpose="batch")
    assert len(list(files.list())) == n_files + 1
    before = n_batches(service)
    with pytest.raises(openai.APIConnectionError):
        create_with(service, file_id, "create_answer_lost; seconds=0.1")
    with pytest.raises(openai.InternalServerError):
        create_with(service, file_id, "error_500_after")
    assert n_batches(service) == before + 2
    with service.on(stuck_validating={}, cancel_answer_lost={}):
        batch = service.create()
        with pytest.raises(openai.APIConnectionError):
            service.client.batches.cancel(batch.id)
        assert service.client.batches.retrieve(batch.id).status in ("cancelling", "cancelled")


def test_answers_of_another_form(service, file_id):
    """Cut on the way, shortened, in HTML, without an id, with an empty one, of unknown status."""
    with pytest.raises(openai.APIConnectionError):
        create_with(service, file_id, "answer_cut; bytes=30")
    with pytest.raises(json.JSONDecodeError):
        create_with(service, file_id, "answer_shortened; bytes=30")
    assert str(create_with(service, file_id, "answer_in_html")).startswith("<html>")
    assert create_with(service, file_id, "answer_without_id").id is None
    assert create_with(service, file_id, "answer_with_empty_id").id == ""
    assert create_with(service, file_id, "unknown_status").status == "under_review"
    batch = create_with(service, file_id, "file_ids_empty")
    assert (batch.output_file_id, batch.error_file_id) == ("", "")
    batch = service.done(fault="file_ids_empty")
    listed = next(iter(service.client.batches.list()))
    assert (listed.id, listed.error_file_id) == (batch.id, "")
    assert batch.output_file_id.startswith("file-")


def test_what_is_there_but_is_not_found(service, some):
    """404 for batches and files of another project, or for what was made a moment ago."""
    with service.on(not_ours={"only": ["retrieve", "content"]}):
        with pytest.raises(openai.NotFoundError, match="No batch found"):
            service.client.batches.retrieve(some.id)
        with pytest.raises(openai.NotFoundError, match="No such File"):
            service.client.files.content(some.output_file_id)
    with service.on(hidden_after_create={"seconds": 0.5}):
        batch = service.create()
        with pytest.raises(openai.NotFoundError):
            service.client.batches.retrieve(batch.id)
        time.sleep(0.5)
        assert service.client.batches.retrieve(batch.id).id == batch.id


def test_one_create_makes_two_batches(service, file_id):
    """Both are there, of the same input; the client knows the later one."""
    before = n_batches(service)
    batch = create_with(service, file_id, "batch_doubled")
    assert n_batches(service) == before + 2
    first, second = list(service.client.batches.list(limit=2).data)
    assert (first.id, second.input_file_id) == (batch.id, file_id)


def test_status_and_counts_go_backwards_and_forth(service):
    """Every second look at what was shown before shows less; the other ones show the truth."""
    batch = service.done(fault="status_backwards")
    statuses = [service.client.batches.retrieve(batch.id).status for _ in range(4)]
    assert sorted(statuses) == ["completed", "completed", "finalizing", "finalizing"]
    assert statuses[0] != statuses[1] != statuses[2] != statuses[3]
    batch = service.done(fault="counts_backwards; by=3")
    looks = [service.client.batches.retrieve(batch.id) for _ in range(4)]
    assert sorted(look.request_counts.completed for look in looks) == [1, 1, 4, 4]


def test_counts_and_times_that_lie(service):
    """4 answered, 6 or 2 shown; made a day before it was asked for."""
    batch = service.done(fault="counts_wrong; by=2")
    assert batch.request_counts.to_dict() == {"total": 4, "completed": 6, "failed": 0}
    assert len(rows(service.client, batch.output_file_id)) == 4
    assert service.done(fault="counts_wrong; by=-2").request_counts.completed == 2
    with service.on(created_early={"seconds": 86_400}):
        batch = service.create()
        assert -86_402 < batch.created_at - int(batch.id[6:14], 16) <= -86_400
    assert service.client.batches.retrieve(batch.id).created_at == batch.created_at + 86_400


def test_an_output_id_that_was_shown_vanishes_for_good(service):
    """Once the id, then null."""
    batch = service.done(fault="output_id_vanishes")
    assert batch.output_file_id
    looks = [service.client.batches.retrieve(batch.id).output_file_id for _ in range(3)]
    assert looks == [None, None, None]


def test_lists_that_lag_repeat_and_drop(service):
    """Over pages of 2 of 5 batches: 0 1 | 2 3 | 4 becomes 0 1 | 1 2 | 2 3, or 0 1 | 3 4."""
    made = [service.create().id for _ in range(5)][::-1]

    def listed():
        pages = service.client.batches.list(limit=2).iter_pages()
        found = [batch.id for _, page in zip(range(3), pages, strict=False) for batch in page.data]
        return [made.index(one) for one in found if one in made]

    assert listed() == [0, 1, 2, 3, 4]
    with service.on(list_repeats={}):
        assert listed() == [0, 1, 1, 2, 2, 3]
    with service.on(list_drops={}):
        assert listed()[:4] == [0, 1, 3, 4]
    with service.on(list_lags={"seconds": 60}):
        assert listed() == []
    with service.on(list_lags={"seconds": 0.6, "only": "list_files"}):
        new = service.client.files.create(file=("r.jsonl", b"{}\n"), purpose="batch").id
        assert new not in [file.id for file in service.client.files.list(limit=3)]
        oldest_first = [file.id for file in service.client.files.list(order="asc", limit=3)]
        assert len(oldest_first) > 3
        assert new not in oldest_first
        assert listed() == [0, 1, 2, 3, 4]
        time.sleep(0.6)
        assert new in [file.id for file in service.client.files.list(limit=3)]


def test_downloads_that_are_cut_short_or_changed(service, some):
    """The connection breaks, the length is another one, one byte is; without the fault all is."""
    whole = service.client.files.content(some.output_file_id).read()

    def content(fault):
        TESTED.add(fault.split(";")[0])
        headers = {HEADER: fault}
        return service.client.files.content(some.output_file_id, extra_headers=headers).read()

    with pytest.raises(openai.APIConnectionError):
        content("content_cut; bytes=700")
    assert content("content_short; bytes=700") == whole[:700]
    changed = content("content_changed; bytes=700")
    assert [n for n, (a, b) in enumerate(zip(whole, changed, strict=True)) if a != b] == [700]
    with pytest.raises(openai.NotFoundError):
        content("content_gone")
    with pytest.raises(openai.InternalServerError) as caught:
        content("content_502")
    assert caught.value.status_code == 502
    assert content("content_short; bytes=1000000") == whole[:-1]
    assert content("content_changed; only=content; count=0") == whole


def test_a_download_fault_in_metadata_strikes_the_files_of_this_batch_alone(service, some):
    """502 for its output, for good, and no fault for the output of another batch."""
    batch = service.done(fault="content_502")
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            service.client.files.content(batch.output_file_id)
    assert service.client.files.content(some.output_file_id).read()


FAILED = {
    "fails_validation; lines=3": ["invalid_json_line", "invalid_url", "model_not_found"],
    "queue_full": ["token_limit_exceeded"],
    "queue_limit; tokens=5": ["token_limit_exceeded"],
    "file_not_found": ["invalid_request"],
}


@pytest.mark.parametrize("fault", FAILED)
def test_batches_that_fail(service, fault):
    """Failed after the creation, with the codes of the fault, no counts and no files."""
    batch = service.done(fault=fault)
    assert batch.status == "failed"
    assert [error.code for error in batch.errors.data] == FAILED[fault]
    assert (batch.request_counts.total, batch.output_file_id, batch.error_file_id) == (
        0,
        None,
        None,
    )
    if fault.startswith("fails"):
        assert [error.line for error in batch.errors.data] == [1, 2, 3]
    if fault.startswith("queue_limit"):
        assert "Limit: 5 enqueued tokens" in batch.errors.data[0].message


def test_a_queue_that_is_released_late(service):
    """60,000 of 90,000 tokens stay taken after the end of a batch; then the next one fails."""
    TESTED.add("queue_released_late")
    lines = [line("r", "soup " * 60_000, model="gpt-4o")]
    metadata = {"votebook_fault": "queue_released_late; seconds=1.5"}
    assert ended(service.client, submitted(service.client, lines, metadata=metadata)).status == (
        "completed"
    )
    late = ended(service.client, submitted(service.client, lines))
    assert late.errors.data[0].code == "token_limit_exceeded"
    time.sleep(1.5)
    assert ended(service.client, submitted(service.client, lines)).status == "completed"


def test_batches_that_end_otherwise(service):
    """All refused: no output file. Expired and cancelled after half: 2 of 4 paid, 2 not run."""
    batch = service.done(fault="all_lines_refused")
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert batch.request_counts.to_dict() == {"total": 4, "completed": 0, "failed": 4}
    assert batch.usage.total_tokens == 0
    assert {status for status, _ in answers(service, batch)} == {403}
    for fault, status in {"expires_early": "expired", "cancels_itself": "cancelled"}.items():
        batch = service.done(fault=fault)
        assert batch.status == status
        assert batch.request_counts.to_dict() == {"total": 4, "completed": 2, "failed": 0}
        assert len(rows(service.client, batch.output_file_id)) == 2
        codes = [one["error"]["code"] for one in rows(service.client, batch.error_file_id)]
        assert codes == [f"batch_{status}"] * 2
    assert service.done(fault="expires_early; share=0").output_file_id is None


@pytest.mark.parametrize("stage", ["validating", "in_progress", "finalizing"])
def test_a_batch_that_is_stuck_goes_on_when_the_fault_is_switched_off(service, stage):
    """It stays in its stage as long as the switch is on."""
    with service.on(**{f"stuck_{stage}": {"count": 1}}):
        batch, next_one = service.create(), service.create()
        assert ended(service.client, next_one).status == "completed"
        time.sleep(0.1)
        assert service.client.batches.retrieve(batch.id).status == stage
    assert ended(service.client, batch).status == "completed"


def test_a_batch_that_is_stuck_can_be_cancelled_unless_it_is_stuck_in_that(service):
    """Cancelled while it was stuck; then again, but stuck in cancelling."""
    with service.on(stuck_in_progress={}, stuck_cancelling={"after": 1}):
        first, second = service.create(), service.create()
        for batch in (first, second):
            until = time.monotonic() + 5
            while service.client.batches.retrieve(batch.id).status != "in_progress":
                assert time.monotonic() < until
        service.client.batches.cancel(first.id)
        assert ended(service.client, first).status == "cancelled"
        service.client.batches.cancel(second.id)
        time.sleep(0.1)
        assert service.client.batches.retrieve(second.id).status == "cancelling"
    assert ended(service.client, second).status == "cancelled"


ALL = [(200, f"r-{n}") for n in range(4)]
LINES = {
    "lines_missing": ALL[1:],
    "lines_doubled": sorted([ALL[0], *ALL]),
    "lines_contradict": sorted([ALL[0], *ALL]),
    "lines_in_both": [*ALL, (500, "r-0")],
    "lines_foreign": [*ALL, (200, "votebook-foreign-r-0")],
    "lines_null_content": ALL,
    "lines_status_0": [(0, "r-0"), *ALL[1:]],
    "lines_429": [*ALL[1:], (429, "r-0")],
    "lines_no_credit": [*ALL[1:], (429, "r-0")],
    "lines_500": [*ALL[1:], (500, "r-0")],
    "lines_unsupported": [(200, f"r-{n}") for n in (1, 2, 3)] + [(400, "r-0")],
    "lines_no_access": [*ALL[1:], (403, "r-0")],
}


@pytest.mark.parametrize("fault", LINES)
def test_lines_of_results(service, fault):
    """One of 4 lines is spoilt; counts and usage are of what was run, whatever the files say."""
    batch = service.done(fault=fault)
    assert batch.status == "completed"
    assert answers(service, batch) == sorted(LINES[fault])
    not_run = fault in spoiling.NOT_RUN
    counts = {"total": 4, "completed": 4 - not_run, "failed": int(not_run)}
    assert batch.request_counts.to_dict() == counts
    made = rows(service.client, batch.output_file_id)
    own = [one["response"]["body"] for one in made if one["custom_id"] == "r-0"]
    if fault == "lines_contradict":
        assert own[0]["choices"] != own[1]["choices"]
    if fault == "lines_null_content":
        (choice,) = own[0]["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "length")
    if not_run or fault in ("lines_in_both", "lines_null_content"):
        usage = sum(one["response"]["body"]["usage"]["total_tokens"] for one in made)
        assert batch.usage.total_tokens == usage


def test_lines_of_the_responses_endpoint(service):
    """Another answer beside the first, and one that is cut off before its first word."""
    made = {}
    for fault in ("lines_contradict", "lines_null_content"):
        asked = {"url": "/v1/responses", "body": {"model": "gpt-6-luna", "input": "Lovely soup."}}
        more = {"endpoint": "/v1/responses", "metadata": {"votebook_fault": fault}}
        batch = ended(service.strict, submitted(service.client, [{**line("r"), **asked}], **more))
        found = rows(service.client, batch.output_file_id)
        made[fault] = [
            openai.types.responses.Response.model_validate(one["response"]["body"]) for one in found
        ]
    first, second = made["lines_contradict"]
    assert first.output_text != second.output_text
    (cut,) = made["lines_null_content"]
    assert (cut.status, cut.output_text) == ("incomplete", "")


def test_the_book_counts_what_was_run_over_all_batches(service):
    """Run twice although its line is missing twice, once although it is doubled, never if 429."""
    before = service.admin("GET", "book")["n_executions"]
    wanted = {"twice": "lines_missing", "once": "lines_doubled", "never": "lines_429"}
    made = []
    for custom_id, fault in [*wanted.items(), ("twice", "lines_missing")]:
        metadata = {"votebook_fault": fault}
        made.append(submitted(service.client, [line(custom_id)], metadata=metadata))
    batches = [ended(service.client, batch) for batch in made]
    book = service.admin("GET", "book")
    assert book["n_executions"] == before + 3
    entry = book["custom_ids"]["twice"]
    assert (entry["n_executions"], entry["n_refusals"]) == (2, 0)
    assert set(entry["batches"]) == {batches[0].id, batches[3].id}
    usage = [batches[n].usage for n in (0, 3)]
    assert entry["n_input_tokens"] == sum(one.input_tokens for one in usage)
    assert entry["n_output_tokens"] == sum(one.output_tokens for one in usage)
    assert book["custom_ids"]["once"]["n_executions"] == 1
    assert book["custom_ids"]["never"]["n_executions"] == 0
    often = service.admin("GET", "book?more_than=1")["custom_ids"]
    assert "twice" in often
    assert "once" not in often


def test_the_same_seed_strikes_the_same_requests(service, some):
    """Half of 40 looks fail, the same half for seed 7, another one for seed 8."""

    def pattern(seed):
        with service.on(seed=seed, html_502={"probability": 0.5, "only": "retrieve"}):
            return [_works(service, some.id) for _ in range(40)]

    assert pattern(7) == pattern(7) != pattern(8)
    assert 8 <= sum(pattern(7)) <= 32


def _works(service, batch_id):
    """Whether a look at a batch is answered."""
    with contextlib.suppress(openai.InternalServerError):
        return bool(service.client.batches.retrieve(batch_id).id)
    return False


def test_count_and_after_say_which_chances_are_taken(service, some):
    """After 2 requests the key is revoked for 3; what struck and had the chance to is shown."""
    with service.on(key_revoked={"after": 2, "count": 3, "only": "retrieve"}):
        seen = []
        for _ in range(7):
            try:
                service.client.batches.retrieve(some.id)
                seen.append("ok")
            except openai.AuthenticationError:
                seen.append("401")
        assert seen == ["ok"] * 2 + ["401"] * 3 + ["ok"] * 2
        state = service.admin("GET", "faults")["on"]["key_revoked"]
        assert (state["n_chances"], state["n_struck"]) == (7, 3)


def test_faults_are_switched_while_the_service_runs(service, some):
    """PUT replaces, PATCH adds and takes away, DELETE ends all; the table lists every fault."""
    with service.on(conflict={"only": "retrieve"}):
        with pytest.raises(openai.ConflictError):
            service.client.batches.retrieve(some.id)
        changes = {"faults": {"conflict": None, "not_ours": True}}
        assert list(service.admin("PATCH", "faults", changes)["on"]) == ["not_ours"]
        with pytest.raises(openai.NotFoundError):
            service.client.batches.retrieve(some.id)
    shown = service.admin("GET", "faults")
    assert shown["on"] == {}
    assert {row["name"] for row in shown["table"]} == set(table.FAULTS)
    assert service.client.batches.retrieve(some.id).id == some.id


def test_chances_depend_on_the_seed_and_on_what_is_struck():
    """Of 100 batches about half, in whatever order they come; with another seed, another half."""

    def struck(seed, numbers):
        rule = switches.rule("queue_full", {"probability": 0.5}, seed)
        faults = switches.Faults(on={"queue_full": switches.Switch(rule)})
        return {n for n in numbers if switches.of_batch(faults, "queue_full", f"batch_{n}", n)}

    there, back = struck(7, range(100)), struck(7, range(99, -1, -1))
    assert there == back != struck(8, range(100))
    assert 30 < len(there) < 70


WRONG = {
    '{"faults": {"create_lost": {}}}': "Did you mean 'create_answer_lost'?",
    '{"faults": {"html_502": {"cuont": 1}}}': "Did you mean 'count'?",
    '{"faults": {"html_502": {"seconds": 1}}}': "has no option 'seconds'",
    '{"faults": {"html_502": {"probability": 2}}}': "from 0 to 1",
    '{"faults": {"html_502": {"count": -1}}}': "whole number from 0",
    '{"faults": {"content_cut": {"bytes": "x"}}}': "must be a number",
    '{"faults": {"content_cut": {"only": "create"}}}': "does not strike",
    '{"faults": {"request_hangs": {"seconds": 1e12}}}': "from 0 to",
    '{"faults": []}': "",
    '{"faults": 5}': "is an object",
    '{"fault": {}}': "unknown key 'fault'",
}


@pytest.mark.parametrize("body", WRONG)
def test_a_wrong_configuration_is_refused_and_changes_nothing(service, body):
    """400 with what is wrong and the nearest name; an empty list of faults is none."""
    with service.on(conflict={"count": 0}):
        if not WRONG[body]:
            assert service.admin("PUT", "faults", json.loads(body))["on"] == {}
            return
        with pytest.raises(urllib.error.HTTPError) as caught:
            service.admin("PUT", "faults", json.loads(body))
        with caught.value as answer:
            refused = json.load(answer)["error"]
        assert answer.status == 400
        assert WRONG[body] in refused["message"]
        assert list(service.admin("GET", "faults")["on"]) == ["conflict"]


def test_a_wrong_name_in_a_header_or_in_metadata_is_refused(service, file_id):
    """With the nearest name, or with the place where the fault belongs; no batch is made."""
    before = n_batches(service)
    with pytest.raises(openai.BadRequestError, match="Did you mean 'html_502'"):
        create_with(service, file_id, "html_52")
    with pytest.raises(openai.BadRequestError, match="strikes upload, but this is create"):
        create_with(service, file_id, "upload_answer_lost")
    with pytest.raises(openai.BadRequestError, match="in the metadata"):
        create_with(service, file_id, "lines_missing")
    with pytest.raises(openai.BadRequestError, match="Did you mean 'lines_missing'"):
        service.create(metadata={"votebook_fault": "line_missing"})
    with pytest.raises(openai.BadRequestError, match="in the header"):
        service.create(metadata={"votebook_fault": "create_answer_lost"})
    assert n_batches(service) == before
    TESTED.discard("html_52")


def test_a_file_of_faults_survives_a_kill_and_the_same_seed_spoils_the_same_lines(tmp_path):
    """In two fresh services the same 30 % of 50 lines are missing; what struck is remembered."""
    file = tmp_path / "faults.yml"
    file.write_text(
        "seed: 7\nfaults:\n  lines_missing: {probability: 0.3}\n  html_503: {count: 1, only: chat}"
    )
    found = []
    for name in ("a", "b"):
        state = tmp_path / name
        client = client_of(local_api.start(state, options=[*STAGES, f"--faults={file}"]))
        lines = [line(f"r-{n}") for n in range(50)]
        batch = ended(client, submitted(client, lines))
        found.append({one["custom_id"] for one in rows(client, batch.output_file_id)})
        if name == "a":
            messages = [{"role": "user", "content": "Soup"}]
            ask = {"model": "gpt-6-luna", "messages": messages}
            with pytest.raises(openai.InternalServerError):
                client.chat.completions.create(**ask)
            stop(state, signal.SIGKILL)
            client = client_of(local_api.start(state, options=STAGES))
            assert client.chat.completions.create(**ask).choices
            again = ended(client, submitted(client, lines))
            assert len(rows(client, again.output_file_id)) < 50
        stop(state, signal.SIGTERM)
    assert found[0] == found[1]
    assert 20 <= len(found[0]) <= 48


def test_a_wrong_file_of_faults_is_told_at_the_start(tmp_path):
    """The sentence has the file and the nearest name."""
    file = tmp_path / "faults.json"
    file.write_text('{"faults": {"html_505": {}}}')
    with pytest.raises(
        errors.ServiceError, match=r"faults\.json is wrong: Unknown fault 'html_505'"
    ):
        local_api.start(tmp_path / "state", options=[f"--faults={file}"])


def test_every_switch_has_been_tested():
    """Each fault of the table was switched on by a test of this file."""
    named = {fault.split(";")[0] for fault in [*REFUSALS, *FAILED, *LINES]}
    assert set(table.FAULTS) - TESTED - named == set()
    assert switches.HEADER == HEADER
    assert "completed" in ENDED
