"""The local Batch API with an upstream that answers: concurrent, patient, and honest about it."""

import datetime
import email.utils
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time

import openai
import pytest
from answering_upstream import TOO_LONG, answering
from test_local_api import client_of, ended, line, rows, running, stop, submitted

from lib import local_api
from lib.local_api import __main__ as command_line
from lib.local_api import upstream

QUICK = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0")
N_CONCURRENT = 6
KEY = "sk-of-the-upstream"


@pytest.fixture(scope="module")
def behind():
    """The upstream of most tests."""
    with answering() as seen:
        yield seen


@pytest.fixture(scope="module")
def client(tmp_path_factory, behind):
    """A client of a service that hands its requests on."""
    state = tmp_path_factory.mktemp("state")
    os.environ["KEY_OF_UPSTREAM"] = KEY
    try:
        with running(state, *options(behind), "--upstream-key-env=KEY_OF_UPSTREAM") as made:
            yield made
    finally:
        del os.environ["KEY_OF_UPSTREAM"]


def options(behind, n_concurrent=N_CONCURRENT):
    """The options for an upstream with short stages."""
    return (*QUICK, f"--upstream={behind.base_url}", f"--concurrency={n_concurrent}")


def asked(*texts, model="llama3.2"):
    """Requests of a model that `data/models.yml` does not have."""
    return [line(f"r-{n}", text, model) for n, text in enumerate(texts)]


def test_lines_are_answered_at_the_same_time_by_a_model_known_only_to_the_upstream(client, behind):
    """Six requests are under way at once, never more; 24 of 0.2 s take about 0.8 s, not 4.8 s."""
    batch = submitted(client, asked(*(f"wait:0.2 number {n}" for n in range(24))))
    batch = ended(client, batch)
    assert (batch.status, batch.model) == ("completed", "llama3.2")
    assert batch.request_counts.to_dict() == {"total": 24, "completed": 24, "failed": 0}
    assert behind.n_most == N_CONCURRENT
    assert len(rows(client, batch.output_file_id)) == 24
    assert behind.keys == {f"Bearer {KEY}"}


def test_an_answer_is_the_upstreams_own_and_says_so(client, behind):
    """Body as it came, with the member `upstream`, and nothing that calls it simulated."""
    batch = ended(client, submitted(client, asked("hello")))
    [row] = rows(client, batch.output_file_id)
    body = row["response"]["body"]
    assert (body["id"], body["model"], body["created"]) == ("chatcmpl-7", "llama3.2", 1_700_000_000)
    assert body["choices"][0]["message"]["content"] == "You said: hello"
    assert body["usage"] == {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    assert body["system_fingerprint"] == "fp_ollama"
    assert body["upstream"] == {"base_url": behind.base_url, "usage": "reported"}
    assert "simulated" not in json.dumps(row)
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (11, 5)


def test_usage_that_the_upstream_leaves_out_is_counted_and_marked(client):
    """`no-usage`, 3 tokens, and 3 + 1 + 3 around them make 10; "You said: no-usage" has 6."""
    batch = ended(client, submitted(client, asked("no-usage")))
    [row] = rows(client, batch.output_file_id)
    body = row["response"]["body"]
    assert body["upstream"]["usage"] == "counted by the local service"
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (10, 6)


def test_who_is_busy_or_fails_is_asked_again_and_not_before_the_time_it_asked_for(client, behind):
    """429 with Retry-After: 1 is asked again after a second, 500 after a shorter pause."""
    busy, broken = "429:1 please", "500 once"
    batch = ended(client, submitted(client, asked(busy, broken)))
    assert batch.request_counts.completed == 2
    first, second = behind.asked[busy]
    assert 1.0 <= second - first <= 5.0
    first, second = behind.asked[broken]
    assert 0.25 <= second - first <= 4.0


def test_what_the_upstream_refuses_is_refused_in_its_line(client, behind):
    """Its status and its error object, or one made of its words; asked once; others go on."""
    batch = ended(client, submitted(client, asked("refuse me", "oddly put", "fine")))
    assert batch.status == "completed"
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 1, "failed": 2}
    refused = {row["custom_id"]: row for row in rows(client, batch.error_file_id)}
    assert all(row["error"] is None for row in refused.values())
    assert refused["r-0"]["response"]["status_code"] == 400
    assert refused["r-0"]["response"]["body"] == {"error": TOO_LONG}
    assert refused["r-1"]["response"]["status_code"] == 404
    said = refused["r-1"]["response"]["body"]["error"]["message"]
    assert said.startswith(f"{behind.base_url} answered 404: model 'tiny' not found")
    assert len(behind.asked["refuse me"]) == len(behind.asked["oddly put"]) == 1


def test_a_known_model_keeps_its_rules_and_a_batch_its_single_model(client, behind):
    """`max_tokens` is refused for gpt-6-luna before the upstream is asked."""
    batch = ended(client, submitted(client, [line("r-0", "not asked", max_tokens=5)]))
    [row] = rows(client, batch.error_file_id)
    assert row["response"]["body"]["error"]["code"] == "unsupported_parameter"
    assert "not asked" not in behind.asked
    batch = ended(client, submitted(client, [line("a", "x", "tiny"), line("b", "x", "small")]))
    assert [one.code for one in batch.errors.data] == ["mismatched_model"]


def test_batches_of_the_responses_api_are_answered_in_its_form(client, behind):
    """The upstream needs Chat Completions alone."""
    wanted = {"model": "llama3.2", "instructions": "Be short.", "input": "hello responses"}
    request = {"custom_id": "r", "method": "POST", "url": "/v1/responses", "body": wanted}
    batch = ended(client, submitted(client, [request], endpoint="/v1/responses"))
    [row] = rows(client, batch.output_file_id)
    body = row["response"]["body"]
    assert body["output"][0]["content"][0]["text"] == "You said: hello responses"
    assert body["usage"]["input_tokens"] == 11
    assert body["upstream"]["base_url"] == behind.base_url


def test_single_requests_are_passed_on_once(client, behind):
    """An answer, a refusal and a wait come back as the upstream gave them."""
    said = [{"role": "user", "content": "hello single"}]
    answer = client.chat.completions.create(model="llama3.2", messages=said)
    assert answer.choices[0].message.content == "You said: hello single"
    assert answer.model_extra["upstream"]["base_url"] == behind.base_url
    with pytest.raises(openai.BadRequestError) as refused:
        said = [{"role": "user", "content": "refuse single"}]
        client.chat.completions.create(model="llama3.2", messages=said)
    assert refused.value.body == TOO_LONG
    with pytest.raises(openai.RateLimitError) as busy:
        said = [{"role": "user", "content": "429:7 single"}]
        client.chat.completions.create(model="llama3.2", messages=said)
    assert busy.value.response.headers["retry-after"] == "7"


def test_cancelling_does_not_wait_for_the_upstream(client):
    """Lines under way are given up; what was answered is in the output file."""
    batch = submitted(client, asked("quick", "hang", "hang on"))
    while client.batches.retrieve(batch.id).request_counts.completed < 1:
        time.sleep(0.02)
    client.batches.cancel(batch.id)
    batch = ended(client, batch, 5.0)
    assert batch.status == "cancelled"
    assert [row["custom_id"] for row in rows(client, batch.output_file_id)] == ["r-0"]
    left = {row["error"]["code"] for row in rows(client, batch.error_file_id)}
    assert left == {"batch_cancelled"}


def test_while_the_upstream_is_down_a_batch_waits(tmp_path):
    """In progress with nothing done while nobody listens; completed once somebody does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"--upstream=http://127.0.0.1:{port}"
    with running(tmp_path, *QUICK, where, "--upstream-model=tiny") as client:
        batch = submitted(client, asked(*(f"line {n}" for n in range(12))))
        until = time.monotonic() + 0.9
        while time.monotonic() < until:
            batch = client.batches.retrieve(batch.id)
            assert batch.status in ("validating", "in_progress")
            time.sleep(0.1)
        assert batch.request_counts.to_dict() == {"total": 12, "completed": 0, "failed": 0}
        with pytest.raises(openai.InternalServerError, match="cannot be reached"):
            client.chat.completions.create(model="any", messages=[])
        with answering(port) as seen:
            batch = ended(client, batch)
        assert batch.request_counts.completed == 12
        assert seen.models == {"tiny"}
    log = (tmp_path / "service.log").read_text()
    assert (log.count("Waiting for the upstream"), log.count("answers again")) == (1, 1)


def test_when_the_window_closes_the_batch_expires_with_what_it_has(tmp_path, behind):
    """At a speed of 28,800 the 24 hours pass in 3 seconds, whatever the upstream does."""
    with running(tmp_path, *options(behind), speed=28_800) as client:
        texts = ("done in time", *(f"hang {n}" for n in range(9)))
        batch = ended(client, submitted(client, asked(*texts)))
        assert batch.status == "expired"
        assert batch.request_counts.to_dict() == {"total": 10, "completed": 1, "failed": 0}
        assert [row["custom_id"] for row in rows(client, batch.output_file_id)] == ["r-0"]
        late = rows(client, batch.error_file_id)
        assert {row["error"]["code"] for row in late} == {"batch_expired"}
        assert len({row["custom_id"] for row in late}) == 9


def test_a_service_that_was_ended_asks_again_only_for_what_it_had_not_recorded(tmp_path):
    """Stopped, then killed, in the middle: each line is answered once, and few are asked twice.

    At most 4 x 3 lines are on their way at a time, so at most 2 x 12 of 60 are asked again; none
    is given a fault because the service was leaving.
    """
    with answering() as seen:
        endpoint = local_api.start(tmp_path, options=options(seen, 3))
        client = client_of(endpoint)
        batch = submitted(client, asked(*(f"wait:0.03 {n}" for n in range(60))))
        for number, n_done in ((signal.SIGTERM, 10), (signal.SIGKILL, 30)):
            while client.batches.retrieve(batch.id).request_counts.completed < n_done:
                time.sleep(0.01)
            stop(tmp_path, number)
            client = client_of(local_api.start(tmp_path, options=options(seen, 3)))
        batch = ended(client, batch)
        done = rows(client, batch.output_file_id)
        stop(tmp_path, signal.SIGTERM)
    assert batch.request_counts.to_dict() == {"total": 60, "completed": 60, "failed": 0}
    assert sorted(row["custom_id"] for row in done) == sorted(f"r-{n}" for n in range(60))
    assert sum(map(len, seen.asked.values())) <= 60 + 2 * 4 * 3


@pytest.mark.parametrize(
    ("status", "body", "headers", "patience", "retry_after"),
    [
        (429, {"error": {"message": "slow"}}, {"retry-after": "3"}, None, 3.0),
        (429, {"error": {"message": "pay", "code": "insufficient_quota"}}, {}, 1, None),
        (503, {"error": {"message": "loading model"}}, {}, None, None),
        (500, {"error": {"message": "crashed"}}, {}, upstream.N_TRIES, None),
        (409, {}, {"retry-after-ms": "1500"}, upstream.N_TRIES, 1.5),
        (401, {"error": {"message": "who?"}}, {}, 1, None),
        (200, {"choices": [{"message": {"content": "hi"}}]}, {}, 1, None),
    ],
)
def test_patience_depends_on_what_the_upstream_says(status, body, headers, patience, retry_after):
    """None waits for as long as it takes; a number is how often a request is tried."""
    reply = judged(status, json.dumps(body).encode(), headers)
    assert (reply.status, reply.patience, reply.retry_after) == (status, patience, retry_after)


@pytest.mark.parametrize("content", [b"<html>hello</html>", b"{}", b'{"choices": []}', b"[]"])
def test_a_200_without_a_completion_is_a_fault_of_the_upstream(content):
    """A proxy's page, or an answer without choices, is given as 502 and not tried again."""
    reply = judged(200, content, {})
    assert (reply.status, reply.patience) == (502, 1)
    assert "gave no chat completion" in reply.body["error"]["message"]


def test_retry_after_may_be_a_date():
    """The seconds from now to the date, whatever its zone."""
    zone = datetime.timezone(datetime.timedelta(hours=5))
    date = datetime.datetime.now(zone) + datetime.timedelta(seconds=90)
    seconds = upstream.retry_seconds({"retry-after": email.utils.format_datetime(date)})
    assert 85 <= seconds <= 90


def judged(status, content, headers):
    """An HTTP answer as the service judges it."""
    settings = upstream.Settings("http://localhost:1/v1")
    return upstream.judged(upstream.Upstream(settings, None, None), status, content, headers)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--upstream=localhost:11434",),
        ("--upstream=http://me:secret@gpu/v1",),
        ("--upstream=http://gpu:99999/v1",),
        ("--upstream=http://gpu/v1", "--concurrency=0"),
        ("--upstream=http://gpu/v1", "--upstream-key-env=NO_SUCH_VARIABLE"),
        ("--token=two\nlines",),
    ],
)
def test_a_wrong_option_is_told_at_once(wrong):
    """With exit code 2, as for any command, and no service."""
    command = [sys.executable, "-m", "lib.local_api", *wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: " in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (["--upstream=https://gpu.example/v1"], "sk-usual"),
        (["--upstream=http://gpu.example/v1"], None),
        (["--upstream=http://gpu.example/v1", "--upstream-key-env=KEY_OF_UPSTREAM"], KEY),
    ],
)
def test_a_key_travels_in_the_clear_only_when_it_was_named(given, key, monkeypatch):
    """A key of another service that happens to be in the environment is not told to everybody."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-usual")
    monkeypatch.setenv("KEY_OF_UPSTREAM", KEY)
    made = command_line.parser()
    assert command_line.upstream_of(made.parse_args(given), made).key == key


def test_models_are_renamed_one_by_one_or_all():
    """A name for a model that is asked for goes before the name for every model."""
    made = command_line.parser()
    given = ["--upstream=http://gpu/v1", "--upstream-model=tiny", "--upstream-model=gpt-5=big"]
    settings = command_line.upstream_of(made.parse_args(given), made)
    asked_for = ("gpt-5", "gpt-5-nano", "llama3.2:3b")
    sent = [upstream.as_named(settings, {"model": name})["model"] for name in asked_for]
    assert sent == ["big", "tiny", "tiny"]


def test_what_serve_prints_can_be_pasted_into_a_shell(tmp_path):
    """Also when the token has characters that mean something there."""
    token = "it's $HOME; a `token`"
    command = [sys.executable, "-m", "lib", "serve", "--port=0", f"--token={token}"]
    options = [f"--state={tmp_path}", "--upstream=http://127.0.0.1:9", "--speed=60"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as serving:
        said = "".join(serving.stdout.readline() for _ in range(6))
        serving.send_signal(signal.SIGTERM)
        os.kill(json.loads((tmp_path / "endpoint.json").read_text())["pid"], signal.SIGTERM)
    assert "Its answers come from http://127.0.0.1:9/v1." in said
    exports = "\n".join(row for row in said.splitlines() if row.startswith("  export "))
    asked_for = f'{exports}\nprintf \'%s\\n\' "$OPENAI_BASE_URL" "$OPENAI_API_KEY"'
    told = subprocess.run(["bash", "-c", asked_for], capture_output=True, text=True, check=True)
    base_url, key = told.stdout.splitlines()
    assert base_url.startswith("http://127.0.0.1:")
    assert key == token
    assert shlex.quote(token) in said
