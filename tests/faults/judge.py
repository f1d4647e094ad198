"""The judge: what a run did, by the service's own book, against fourteen rules.

I1 a request is run once for each attempt, and asked again only after an attempt without a usable
answer. I2 a run that says "done" has an end for every request. I3 everything adds up, by batch, and
agrees with the service. I4 the money settled is what the answers used, and spend plus reserve stay
in the budget. I5 no file under its final name is partial. I6 a run that was disturbed ends like one
that was not. I7 one payer at a time. I8 every batch and file is known. I9 the command again pays
nothing. I10 every document is accounted for. I11 no secret is written anywhere. I12 the same
command recovers. I13 permanent refusals stop after a canary. I14 exit codes tell the truth.

Violations are data. It reads files and the service's answers by itself, not by the code it judges.
"""

import collections
import contextlib
import gzip
import json
import math
import sqlite3
import urllib.request
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pandas as pd

from lib import models
from lib.runs import Run

OPEN_STATES = ("planned", "uploading", "uploaded", "submitting", "submitted")
DONE, STOPPED, WAITING, BUSY = 0, 2, 3, 75
SHOWN = 3  # how many of many culprits a violation names


class Violation(NamedTuple):
    """A rule that was broken, by its number, how, and in how many places of what kind."""

    rule: str
    what: str
    kind: str = ""
    n: int = 1


@dataclass(frozen=True)
class Seen:
    """What the service holds: how often it ran each custom_id, its batches, files, and answers."""

    book: dict[str, dict[str, Any]]
    batches: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A finished run: what the service saw of it, how its commands ended, what it is compared with.

    `again` is what the service saw of one more command after the end. `readings` are what a
    `reading.Reader` found. `results` are those of an undisturbed run. `excused` are batches that
    the service made without being asked to.
    """

    run: Run
    seen: Seen
    ends: list[dict[str, Any]]
    again: Seen | None = None
    readings: list[str] = field(default_factory=list)
    results: dict | None = None
    secrets: tuple[str, ...] = ()
    max_usd: float = math.inf
    excused: frozenset[str] = frozenset()


def asked(endpoint, path, method="GET", body=None):
    """The answer of the service to a call, as JSON; of a content, its lines."""
    url = endpoint["base_url"].removesuffix("/v1") + path
    headers = {"Authorization": f"Bearer {endpoint['token']}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        raw = answer.read()
    is_content = path.endswith("/content")
    return [json.loads(row) for row in raw.split(b"\n") if row] if is_content else json.loads(raw)


def switch(endpoint, seed=0, **faults):
    """Switch these faults of the service on, and all others off."""
    asked(endpoint, "/votebook/faults", "PUT", {"seed": seed, "faults": faults})


def look(endpoint):
    """What the service holds now."""
    book = asked(endpoint, "/votebook/book")["custom_ids"]
    return Seen(book, _all(endpoint, "batches"), _all(endpoint, "files"))


def since(before, endpoint):
    """What came to the service after `before`, with the lines of the results of all batches."""
    now = look(endpoint)
    batches = {name: one for name, one in now.batches.items() if name not in before.batches}
    files = {name: one for name, one in now.files.items() if name not in before.files}
    book = {}
    for name, entry in now.book.items():
        old = before.book.get(name, {"batches": []})
        more = {key: n - old.get(key, 0) for key, n in entry.items() if key != "batches"}
        if any(more.values()):
            book[name] = more | {"batches": sorted({*entry["batches"]} - {*old["batches"]})}
    lines = {name: list(_answers(endpoint, one)) for name, one in batches.items()}
    return Seen(book, batches, files, lines)


def _all(endpoint, kind):
    """All objects of a list, by id, over all pages."""
    found, after = {}, ""
    while True:
        page = asked(endpoint, f"/v1/{kind}?limit=100{after}")
        found |= {one["id"]: one for one in page["data"]}
        if not page["has_more"]:
            return found
        after = f"&after={page['data'][-1]['id']}"


def _answers(endpoint, batch):
    """The lines of both result files of a batch."""
    for kind in ("output_file_id", "error_file_id"):
        if batch[kind]:
            yield from asked(endpoint, f"/v1/files/{batch[kind]}/content")


def violations(case):
    """Every rule that the run broke."""
    ledger, outcomes = read_ledger(case.run), read_outcomes(case.run)
    known = {one for row in ledger["shards"] for one in (row["batch_id"], row["file_id"]) if one}
    known |= {one for one in [*case.seen.batches, *case.seen.files] if one in ledger["events"]}
    paid = replace_excused(case.seen, case.excused)
    return [
        *paid_twice(paid),
        *asked_too_early(paid, outcomes),
        *unfinished(case, ledger, outcomes),
        *lost(paid, outcomes),
        *doubled(outcomes["custom_id"]),
        *unequal(case, ledger, outcomes),
        *wrong_money(case, ledger, outcomes),
        *(Violation("I5", what) for what in case.readings),
        *different(case),
        *orphans(case.seen, known),
        *paid_again(case),
        *lost_documents(case.run),
        *leaks(case),
        *unrecovered(case),
    ]


def is_double(run, batch):
    """Whether the ledger has recorded a batch as a double, with what it may have cost."""
    query = "SELECT count(*) FROM events WHERE kind = 'double' AND detail LIKE ?"
    with contextlib.closing(sqlite3.connect(run.path("ledger.sqlite"), timeout=10)) as book:
        return book.execute(query, (f"%{batch}%",)).fetchone()[0] > 0


def replace_excused(seen, excused):
    """What the service did because it was asked to."""
    book = {
        name: entry | {"batches": [one for one in entry["batches"] if one not in excused]}
        for name, entry in seen.book.items()
    }
    lines = {name: rows for name, rows in seen.lines.items() if name not in excused}
    return replace(seen, book=book, lines=lines)


def usable(line):
    """Whether a line of a result holds an answer that a client must not pay for again."""
    body = (line.get("response") or {}).get("body") or {}
    if line.get("error") or line["response"]["status_code"] != 200:
        return False
    choice = body["choices"][0]
    content = choice["message"]["content"]
    if choice["finish_reason"] != "stop" or not content:
        return False
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False


def answers(seen):
    """The usable answers to what was run, by custom_id; contradictions are not usable."""
    found = collections.defaultdict(set)
    for batch in seen.lines.values():
        for line in filter(usable, batch):
            choice = line["response"]["body"]["choices"][0]
            found[line["custom_id"]].add(choice["message"]["content"])
    return {n: said.pop() for n, said in found.items() if len(said) == 1 and n in seen.book}


def key_of(custom_id):
    """The request that a custom_id is about, and its attempt."""
    key, _, attempt = custom_id.rpartition("-a")
    return key, int(attempt)


def counted(violations):
    """How many requests were paid twice or lost, rows doubled, batches and uploads orphaned."""
    counts = collections.Counter()
    for violation in violations:
        counts[violation.kind] += violation.n
    return counts


def paid_twice(seen):
    """I1: a line that was run in two batches, or a request answered usably in two attempts."""
    twice = [name for name, e in seen.book.items() if len(e["batches"]) > 1 and e["n_executions"]]
    twice = [name for name in twice if seen.book[name]["n_executions"] > 1]
    of_key = collections.Counter(key_of(name)[0] for name in answers(seen))
    twice += [name for name, n in of_key.items() if n > 1]
    if twice:
        yield Violation("I1", f"paid twice: {twice[:SHOWN]}", "paid twice", len(twice))


def asked_too_early(seen, outcomes):
    """I1: an attempt whose forerunner has no outcome, or a valid one."""
    ended = set(outcomes.loc[outcomes["outcome"].ne("valid"), "custom_id"])
    for name in seen.book:
        key, attempt = key_of(name)
        if attempt and f"{key}-a{attempt - 1}" not in ended:
            yield Violation("I1", f"{name} was sent, and the attempt before it had not failed")


def unfinished(case, ledger, outcomes):
    """I2 and I14: the run says that it is done, and something has no end."""
    if not case.ends or case.ends[-1]["code"] != DONE:
        return
    asked_for = set(case.run.table("requests")["key"])
    left = asked_for - set(outcomes["key"]) - spared(case.run, outcomes)
    if left:
        yield Violation("I2", f"{len(left)} requests have no outcome")
    still_open = [row["shard"] for row in ledger["shards"] if row["state"] in OPEN_STATES]
    if still_open:
        yield Violation("I2", f"shards are still open: {still_open[:SHOWN]}")


def spared(run, outcomes):
    """The requests that a run need not ask: where more annotators with a vote each agree on yes or
    no, in the one field, than are left to contradict them and those who did.
    """
    if run.study.voting.ask == "all":
        return set()
    valid = outcomes.loc[outcomes["outcome"].eq("valid")].set_index("key")["content"]
    found = set()
    for _, asked_for in run.table("requests").groupby("item"):
        open_keys = set(asked_for["key"]) - set(outcomes["key"])
        said = [
            next(iter(json.loads(text).values()))
            for text in valid.reindex(asked_for["key"]).dropna()
        ]
        if abs(2 * sum(said) - len(said)) > len(open_keys):
            found |= open_keys
    return found


def lost(seen, outcomes):
    """I2: a usable answer was paid for and is not in the results."""
    held = dict(outcomes.loc[outcomes["outcome"].eq("valid"), ["custom_id", "content"]].to_numpy())
    gone = [name for name, content in answers(seen).items() if held.get(name) != content]
    if gone:
        yield Violation("I2", f"paid and not in the results: {gone[:SHOWN]}", "lost", len(gone))


def doubled(names):
    """I6: a result that stands twice."""
    twice = [name for name, n in collections.Counter(names).items() if n > 1]
    if twice:
        yield Violation("I6", f"rows that stand twice: {twice[:SHOWN]}", "doubled", len(twice))


def unequal(case, ledger, outcomes):
    """I3: the outcomes of a batch are not as many as its lines."""
    counts = outcomes["batch"].value_counts()
    for row in ledger["shards"]:
        if row["state"] == "collected":
            total = case.seen.batches[row["batch_id"]]["request_counts"]["total"]
            found = (int(counts.get(row["batch_id"], 0)), row["n_requests"])
            if set(found) - {row["n_requests"]} or total not in (0, row["n_requests"]):
                what = f"has {total} lines at the service, (outcomes, planned) = {found}"
                yield Violation("I3", f"{row['batch_id']} {what}")
    strange = set(case.seen.book) - set(outcomes["custom_id"])
    if strange and case.ends and case.ends[-1]["code"] == DONE:
        what = f"{len(strange)} lines of the service have no outcome: {sorted(strange)[:SHOWN]}"
        yield Violation("I3", what)


def wrong_money(case, ledger, outcomes):
    """I4: what was settled is not what the book says, or passes the budget."""
    settled = sum(row["settled_usd"] or 0.0 for row in ledger["shards"])
    lost_usd = sum(row["lost_usd"] for row in ledger["shards"])
    spent = float(outcomes["spend_usd"].sum())
    if not math.isclose(settled, spent, abs_tol=1e-9):
        yield Violation("I4", f"settled ${settled:.6f}, and the outcomes sum to ${spent:.6f}")
    read = outcomes[outcomes["n_input_tokens"].notna()]
    by_book = sum(
        _cost(case.seen.book[name], model)
        for name, model in read[["custom_id", "model"]].to_numpy()
        if name in case.seen.book
    )
    if not math.isclose(by_book, spent, abs_tol=1e-9):
        yield Violation("I4", f"outcomes say ${spent:.6f}, and the book ${by_book:.6f}")
    reserved = sum(r["reserved_usd"] for r in ledger["shards"] if r["state"] in OPEN_STATES)
    if settled + lost_usd + reserved > case.max_usd + 1e-9:
        yield Violation("I4", f"${settled + lost_usd + reserved:.6f} passes ${case.max_usd:.6f}")


def _cost(entry, model):
    """USD of one line of the book."""
    n = max(1, entry["n_executions"])
    tokens = (entry[f"n_{kind}_tokens"] // n for kind in ("input", "output", "cached"))
    return models.spend_usd(models.facts(model), *tokens)


def different(case):
    """I6: a result differs from that of an undisturbed run."""
    if case.results is None:
        return
    mine = results(case.run)
    wrong = [name for name in mine.keys() & case.results.keys() if mine[name] != case.results[name]]
    if wrong:
        yield Violation("I6", f"{len(wrong)} results differ: {sorted(wrong)[:SHOWN]}")


def results(run):
    """What a run has found: answers by key and model, and the bytes of tables made of them.

    Votes name the batches that answered, which have other names in each run: the rest is compared.
    """
    outcomes = read_outcomes(run)
    valid = outcomes[outcomes["outcome"].eq("valid")]
    found = {f"{key} {model}": said for key, model, said in valid[_RESULT].to_numpy()}
    for name in ("votes", "mentions", "consensus", "entities", "index", "verdicts"):
        path = run.path(f"{name}.parquet")
        if path.is_file():
            found[path.name] = table_bytes(path)
    return found


def table_bytes(path):
    """What a table says, as bytes, but for the names of batches."""
    if path.name != "votes.parquet":
        return path.read_bytes()
    return pd.read_parquet(path).drop(columns="batch").to_json(orient="values").encode()


_RESULT = ["key", "model", "content"]


def orphans(seen, known):
    """I8: batches and uploads at the service that nobody knows of."""
    batches = [name for name in seen.batches if name not in known]
    files = [n for n, f in seen.files.items() if f["purpose"] == "batch" and n not in known]
    for kind, names in (("batches", batches), ("uploads", files)):
        if names:
            yield Violation(
                "I8", f"{kind} that nobody knows: {names[:SHOWN]}", "orphans", len(names)
            )


def paid_again(case):
    """I9: the command after the end made something at the service."""
    if case.again and (case.again.book or case.again.batches or case.again.files):
        n_made = len(case.again.batches)
        yield Violation("I9", f"a finished run was paid again: {n_made} batches")


def lost_documents(run):
    """I10: a document is neither used nor skipped, or an item is not asked about."""
    items = set(run.table("documents")["item"])
    requests = run.table("requests")
    if not set(requests["item"]) <= items:
        yield Violation("I10", "requests about items that are no documents")
    n_votes = requests.groupby("item").size()
    if n_votes.ne(run.study.n_votes).any():
        yield Violation("I10", f"not every item has {run.study.n_votes} requests")


def leaks(case):
    """I11: a secret stands in a file of the run or in what a command said."""
    held = {path.name: unpacked(path) for path in case.run.folder.rglob("*") if path.is_file()}
    held |= {f"command {n}": end["said"].encode() for n, end in enumerate(case.ends)}
    for secret in case.secrets:
        for name, content in held.items():
            if secret.encode() in content:
                yield Violation("I11", f"a secret stands in {name}")


def unrecovered(case):
    """I12 and I14: how the commands ended, and whether they said so."""
    if not case.ends:
        return
    for end in case.ends:
        state = next((w for w in ("done", "waiting", "stopped") if f"{w}:" in last(end)), None)
        expected = {DONE: "done", WAITING: "waiting"}.get(end["code"])
        if expected and state != expected:
            yield Violation("I14", f"exit code {end['code']} after: {last(end)!r}")
        if end["code"] in (1, -11, -6) or "Traceback" in end["said"]:
            yield Violation("I14", f"a traceback, exit code {end['code']}: {end['said'][-600:]}")
            break
    if case.ends[-1]["code"] != DONE:
        codes = [end["code"] for end in case.ends]
        yield Violation("I12", f"not done after {codes}: {case.ends[-1]['said'][-300:]}")


def last(end):
    """The last report of a command."""
    told = [row for row in end["said"].splitlines() if " answered, " in row]
    return told[-1] if told else ""


def not_alone(ends):
    """I7: of commands that ran at once, more than one did not find the run busy."""
    working = [end["code"] for end in ends if end["code"] != BUSY]
    if len(working) != 1:
        yield Violation("I7", f"{len(working)} of {len(ends)} commands worked at once")


def sent_too_much(seen, bound):
    """I13: more lines were tried than `bound` although no one could succeed."""
    n_tried = sum(entry["n_executions"] + entry["n_refusals"] for entry in seen.book.values())
    if n_tried > bound:
        yield Violation("I13", f"{n_tried} lines were sent to a certain refusal, bound {bound}")


def read_outcomes(run):
    """All outcome files of a run."""
    parts = [pd.read_parquet(path) for path in sorted(run.path("outcomes").glob("*.parquet"))]
    names = ["custom_id", "key", "outcome", "content", "batch", "spend_usd", "model"]
    return pd.concat(parts) if parts else pd.DataFrame(columns=[*names, "n_input_tokens"])


def read_ledger(run):
    """The shards of the ledger, and the text of all its events."""
    with contextlib.closing(sqlite3.connect(run.path("ledger.sqlite"), timeout=10)) as book:
        book.row_factory = sqlite3.Row
        shards = [dict(row) for row in book.execute("SELECT * FROM shards ORDER BY rowid")]
        events = " ".join(row[0] for row in book.execute("SELECT detail FROM events"))
    return {"shards": shards, "events": events}


def read_kinds(run):
    """The kind of each event of the ledger."""
    with contextlib.closing(sqlite3.connect(run.path("ledger.sqlite"), timeout=10)) as book:
        return [row[0] for row in book.execute("SELECT kind FROM events ORDER BY id")]


def unpacked(path):
    """The bytes of a file as a person would read them."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return b""
    return gzip.decompress(raw) if path.suffix == ".gz" else raw
