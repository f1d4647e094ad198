"""A client of the usual shape, for comparison: uploads, creates, then writes down what it did.

It is honest and short: one manifest, written after each call, whole or not at all; nothing that
stands there is done again; results are appended as they come. It uses the defaults of the
official SDK. The harness must find fault with it, or it finds fault with nothing.
"""

import json
import time

import openai

from lib import prompts, runs

CHUNK = 2
ENDED = ("completed", "failed", "expired", "cancelled")


def work(run, endpoint):
    """Submit all chunks and wait for all answers; gives the exit code."""
    client = openai.OpenAI(base_url=endpoint["base_url"], api_key=endpoint["token"], timeout=5)
    manifest = read(run)
    for number, lines in enumerate(chunks(run)):
        if str(number) not in manifest:
            content = b"".join(lines)
            file = client.files.create(file=(f"chunk{number}.jsonl", content), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint=prompts.ENDPOINT, completion_window="24h"
            )
            manifest[str(number)] = {"file": file.id, "batch": batch.id, "is_in": False}
            write(run, manifest)
    for chunk in manifest.values():
        if not chunk["is_in"]:
            append(run, wait(client, chunk["batch"]), client)
            chunk["is_in"] = True
            write(run, manifest)
    return 0


def chunks(run):
    """The lines to send, some to a file, always cut in the same way."""
    texts = run.table("documents").set_index("item")["text"]
    lines = []
    for row in run.table("requests").drop_duplicates("key").itertuples():
        name, annotator = prompts.custom_id(row.key, 0), run.study.annotators[row.annotator]
        made = (row.model, annotator, row.max_output_tokens, texts[row.item], name)
        lines.append(prompts.line(run.study, *made))
    return [lines[n : n + CHUNK] for n in range(0, len(lines), CHUNK)]


def wait(client, batch_id):
    """The batch when it has ended."""
    while (batch := client.batches.retrieve(batch_id)).status not in ENDED:
        time.sleep(0.05)
    return batch


def append(run, batch, client):
    """Add the answers of a batch to the results."""
    with run.path("results.jsonl").open("a", encoding="utf-8") as results:
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                results.write(client.files.content(file_id).text)


def read(run):
    """The manifest, empty at first."""
    path = run.path("manifest.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write(run, manifest):
    """Replace the manifest."""
    with runs.replacing(run.path("manifest.json")) as part:
        part.write_text(json.dumps(manifest), encoding="utf-8")


def results(run):
    """The custom_id of each result row that can be read, in their order."""
    path = run.path("results.jsonl")
    names = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else []:
        try:
            names.append(json.loads(line)["custom_id"])
        except ValueError:
            continue
    return names
