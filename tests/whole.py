"""A tiny study with all that a study can have, and its run by all notebooks, made twice.

The texts hold what must not leave them: a phrase that no page may show, markup, a command to a
terminal, a formula.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import sending
import yaml

from lib import local_api, pipeline, runs
from lib.dispatch import Progress
from lib.runs import Run

SECRET = "the spare key lies under the third flower pot"
KEY = "sk-canary-0123456789abcdef0123456789abcdef"
HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)> \x1b[31m =1+1 $\\frac{ "
TEXTS = [
    ("Mr. Kay was kind and the soup of Mrs. Boyd was warm.", "inn", "2026-03-01"),
    (f"We were not pleased at all. {SECRET.capitalize()}. {HOSTILE}", "inn", "2026-04-01"),
    ("A cold room, a cold dinner, and Mr. Kay shouted at us.", "inn", "2026-05-01"),
    ("Lovely breakfast with Mrs. Boyd, and we were pleased.", "mill", "2026-03-01"),
    ("The bed was soft; the river could be heard at night.", "mill", "2026-04-01"),
    ("", "mill", "2026-05-01"),
]
STUDY = {
    "title": "Guests <b>of two houses</b>",
    "question": "Where were the guests pleased?",
    "corpus": {
        "book": {"path": "guests.jsonl", "id": "id", "group": "house", "date": "date"},
        "letters": {"path": "letters/*.xyz"},
    },
    "groups": {"path": "houses.csv", "id": "house", "name": "name"},
    "fields": {
        "pleased": {"description": "Whether the guest was pleased.", "type": "boolean"},
        "people": {"description": "Persons that are named.", "type": "entities"},
    },
    "panel": "small",
    "panels": {
        "small": {
            "annotators": {
                "terra": {"model": "gpt-6.1-terra", "parameters": {"reasoning_effort": "low"}},
                "luna": {"model": "gpt-6-luna", "repeats": 2},
            }
        }
    },
    "k": [2, 10],
    "sending": {"canary": 3},
}
POLICY = {
    "title": "Counted complaints",
    "verdicts": ["Good", "Bad"],
    "coverage": 0.1,
    "rules": [{"verdict": "Bad", "any": [{"at_least": 1, "where": {"pleased": "false"}}]}],
}
GOLD = "item,field,value\nbook/g0,pleased,true\nbook/g2,pleased,false\nbook/g0,people,Mr. Kay\n"


@dataclass(frozen=True)
class Whole:
    """What two runs of the study left: the second was made by the command."""

    run: Run
    progress: Progress
    said: str
    n_paid: int
    again: subprocess.CompletedProcess
    n_paid_again: int


def write_study(folder: Path) -> Path:
    """The study in a folder; gives the folder."""
    for name in ("policies", "letters"):
        (folder / name).mkdir(parents=True)
    rows = [
        {"id": f"g{n}", "text": text, "house": house, "date": date}
        for n, (text, house, date) in enumerate(TEXTS)
    ]
    files = {
        "guests.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows),
        "letters/one.xyz": "Nobody reads this format.",
        "houses.csv": "house,name\ninn,The $tar\nmill,The $tar\n",
        "study.yml": yaml.safe_dump(STUDY, sort_keys=False),
        "prompt.md": "Read what a guest wrote.\n",
        "policies/V0.yml": yaml.safe_dump(POLICY),
        "gold.csv": GOLD,
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def run_twice(folder: Path, service: dict) -> Whole:
    """Run the study in `folder` here, then by the command; VOTEBOOK_OUTPUTS says where."""
    said: list[str] = []
    given = {"study": str(folder), "service": "local"}
    run, progress = pipeline.run(given, say=lambda text, **_: said.append(text))
    n_paid = sending.paid(service).total()
    command = [sys.executable, "-m", "lib", "run", str(folder)]
    again = subprocess.run(
        command, cwd=runs.ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    return Whole(run, progress, "\n".join(said), n_paid, again, sending.paid(service).total())


def start_service(outputs: Path) -> dict:
    """The local service that a run with these outputs will find; it is to be ended by its pid."""
    stages = ("--validating=0", "--in-progress=0", "--finalizing=0")
    return local_api.start(outputs / ".local_api", idle_exit_seconds=300, options=stages)
