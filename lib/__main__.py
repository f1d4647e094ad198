"""The command `python -m lib`: run a study, go on with a run, test, open JupyterLab, serve locally.

It reads the command line and gives the exit code; what it says about errors is what they say.
"""

import argparse
import importlib.util
import io
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib import commands, exchange
from lib.commands import BUSY, CODES, DONE, INTERRUPTED, STOPPED, plain
from lib.errors import BusyError, VotebookError

if TYPE_CHECKING:
    from lib.standing import Progress

_ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code: 0 done, 2 stopped, 3 waiting, 75 busy."""
    _speak_anywhere()
    given = _parser().parse_args(arguments)
    try:
        return given.command(given)
    except VotebookError as error:
        return _failed(error)
    except KeyboardInterrupt:
        what = "Stopped. Nothing is lost, and batches at the service go on"
        print(f"\n{what}: run the same command again.", file=sys.stderr)
        return INTERRUPTED


def _speak_anywhere() -> None:
    """What a terminal cannot show, as in the locale C, is escaped and ends no command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(given: argparse.Namespace) -> int:
    from lib import pipeline

    if given.inspect:
        for name, parameter in pipeline.known_parameters().items():
            print(f"{name}: {parameter.kind} = {parameter.default}  {parameter.help}")
        return DONE
    named = {"study": given.study, "service": given.service, "run_name": given.run or ""}
    if given.max_usd is not None:
        named["max_usd"] = given.max_usd
    _, progress = pipeline.run({**named, **dict(given.parameter)})
    if progress and progress.state == "waiting" and not progress.n_in_flight and not given.max_usd:
        print("Planned only, nothing was sent: --max-usd N lets it spend up to N US dollars.")
    return _ended(progress)


def _ended(progress: "Progress | None") -> int:
    """The exit code for where a run stands; says how far it is unless all is done."""
    if progress is None or progress.state == "done":
        return DONE
    print(plain(str(progress)))
    return CODES[progress.state]


def _failed(error: VotebookError) -> int:
    """The exit code for an error, which is said in one sentence or two."""
    print(plain(f"\n{type(error).__name__}: {error}"), file=sys.stderr)
    return BUSY if isinstance(error, BusyError) else STOPPED


def _test(given: argparse.Namespace) -> int:
    named = [word for word in given.rest if (_ROOT / word.split("::")[0]).exists()]
    # The whole suite runs in the groups of tests/conftest.py, the slowest first, in a few more
    # processes than there are cores: a third of its time is waiting.
    n_processes = (os.cpu_count() or 1) * 3 // 2
    everything = ["-n", str(n_processes), "--dist=loadscope", "--no-loadscope-reorder"]
    everything += ["notebooks", "tests", "lib"]
    words = [*given.rest, *([] if named else everything)]
    with tempfile.TemporaryDirectory(prefix="vb-") as folder:
        return subprocess.call(  # noqa: S603 - our own command
            [sys.executable, "-m", "pytest", "--nbval-lax", *words],
            cwd=_ROOT,
            env={**os.environ, "VOTEBOOK_OUTPUTS": folder},
        )


def _lab(given: argparse.Namespace) -> int:
    if importlib.util.find_spec("jupyterlab") is None:
        what = "JupyterLab is not installed here: `python3 votebook.py lab` installs and opens it,"
        raise VotebookError(f"{what} and in an own environment `pip install jupyterlab` does.")
    command = [sys.executable, "-m", "jupyterlab", "--notebook-dir", str(_ROOT), *given.rest]
    return subprocess.call(command, cwd=_ROOT)  # noqa: S603 - our own command


def _serve(given: argparse.Namespace) -> int:
    return subprocess.call([sys.executable, "-m", "lib.local_api", *given.rest])  # noqa: S603 - our own module


def _refresh(_: argparse.Namespace) -> int:
    from lib import pipeline

    pipeline.refresh()
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="votebook.py",
        description="Votebook, a workspace that labels a corpus with a panel of LLMs.",
    )
    subs = parser.add_subparsers(title="commands", required=True)
    run = subs.add_parser("run", help="run notebooks 01 to 07 on a study and write the report")
    run.add_argument("study", nargs="?", default="allergy", help="a folder under data/, or a path")
    run.add_argument("--run", metavar="NAME", help="name of the run (default: the study's)")
    run.add_argument("--service", default="local", help="local, openai, or a base URL")
    run.add_argument(
        "--max-usd", metavar="N", help="spend at most N US dollars; without it, plan only"
    )
    run.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter of the notebooks",
    )
    run.add_argument("--inspect", action="store_true", help="list the parameters and stop")
    run.set_defaults(command=_run)
    _add_commands_of_runs(subs)
    _add_commands_of_files(subs)
    refresh = subs.add_parser("refresh", help="re-make the notebooks' reference outputs")
    refresh.set_defaults(command=_refresh)
    for name, command, words in (
        ("test", _test, "run all tests; further words go to pytest"),
        ("lab", _lab, "open JupyterLab on the notebooks; further words go to it"),
        ("serve", _serve, "run the local Batch API; --help lists its options"),
    ):
        sub = subs.add_parser(name, help=words, add_help=name != "serve", prefix_chars="\0")
        sub.add_argument("rest", nargs="*")
        sub.set_defaults(command=command)
    return parser


def _add_commands_of_runs(subs: "argparse._SubParsersAction") -> None:
    """What can be done with a run that is there, and the commands that look after it."""
    step = _of_run(subs, "advance", commands.advance, "take one step: reconcile, collect, submit")
    step.add_argument("--scheduled", nargs="?", const="", help=argparse.SUPPRESS)
    step.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    watch = _of_run(subs, "watch", commands.watch, "go on until all is in, and say how far it is")
    watch.add_argument("--hours", type=commands.number, default=math.inf, metavar="H")
    for sub in (step, watch):
        sub.add_argument("--service", default="", help="only when the run has none yet")
    entry = subs.add_parser("schedule", help="let cron, systemd or launchd go on with a run")
    entry.add_argument("action", choices=["install", "status", "remove"])
    entry.add_argument("run", metavar="RUN")
    entry.add_argument("--every", type=int, default=10, metavar="MIN", help="minutes (default 10)")
    entry.add_argument("--max-usd", type=commands.number, metavar="N", help="approve this budget")
    entry.add_argument("--by", choices=["cron", "systemd", "launchd"], default="")
    entry.set_defaults(command=commands.schedule)
    check = subs.add_parser("check", help="re-read all of a run, and repair what can be derived")
    check.add_argument("run", metavar="RUN")
    check.add_argument("--offline", action="store_true", help="do not ask the service")
    check.set_defaults(command=commands.check)
    test = subs.add_parser("selftest", help="two tiny requests through a real account")
    test.add_argument("--service", default="openai", metavar="S")
    test.add_argument("--model", default="", metavar="M")
    test.add_argument("--max-usd", type=commands.number, default=0.0, metavar="N")
    test.set_defaults(command=commands.selftest)
    bench = subs.add_parser("bench", help="run measurements by name; without one, list them")
    bench.add_argument("names", nargs="*", metavar="NAME")
    bench.set_defaults(command=commands.bench)


def _add_commands_of_files(subs: "argparse._SubParsersAction") -> None:
    """What people and other tools write and read: samples to label, votes, reviews, exports."""
    gold = subs.add_parser("sample-gold", help="draw a random sample for people to label")
    gold.add_argument("run", metavar="RUN")
    gold.add_argument("--n", type=commands.whole, metavar="N", help="items in all (default 200)")
    gold.add_argument("--seed", default="", metavar="S", help="another random order (default 1)")
    words = "equal numbers by source, group, review, or what the panel says of a field"
    gold.add_argument("--by", nargs="+", metavar="BY", help=words)
    gold.add_argument("--format", choices=["csv", "label-studio", "both"], default="both")
    gold.add_argument("--anew", action="store_true", help="draw another sample")
    gold.add_argument("--read", default="", metavar="FILE", help="put a filled file into gold.csv")
    gold.set_defaults(command=exchange.sample_gold)
    count = subs.add_parser("count", help="count votes from anywhere, with or without a study")
    count.add_argument("votes", metavar="VOTES", help="CSV or Parquet: item, worker, label, ...")
    count.add_argument("--truth", default="", metavar="FILE", help="true labels: item, label")
    words = "what may be said: a,b,c or FIELD=a,b,c; the rest abstains (default: all that occurs)"
    count.add_argument("--labels", nargs="+", default=[], metavar="L", help=words)
    weight = exchange.named_number
    words = "weights other than 1, by model or worker"
    count.add_argument(
        "--weights", nargs="+", type=weight, default=[], metavar="NAME=W", help=words
    )
    words = "share of the weight of which more must have answered (default .5)"
    count.add_argument("--quorum", type=exchange.share, default=0.5, metavar="Q", help=words)
    words = "each run of a model has a vote of its own; else they share one"
    count.add_argument("--per-run", action="store_true", help=words)
    count.add_argument("--numbers", choices=["mean", "median"], default="", help="of numbers")
    count.add_argument("--infer", action="store_true", help="what truth inference would say")
    count.add_argument("--out", default="", metavar="FILE", help="write a .parquet or .csv file")
    count.set_defaults(command=exchange.count)
    _add_review_and_export(subs)


def _add_review_and_export(subs: "argparse._SubParsersAction") -> None:
    """What leaves a run for people and other tools, and what people give back."""
    review = subs.add_parser(
        "review", help="list what people should look at first, or read it back"
    )
    review.add_argument("run", metavar="RUN")
    words = "values to look at (default: all doubtful); fields below a condition come on top"
    review.add_argument("--n", type=commands.whole, metavar="N", help=words)
    review.add_argument("--format", choices=["csv", "label-studio"], default="csv")
    review.add_argument("--text", action="store_true", help="with the texts of the documents")
    review.add_argument("--to", default="", metavar="FOLDER", help="(default: review/ of the run)")
    review.add_argument(
        "--read", default="", metavar="FILE", help="put a filled list into corrections.csv"
    )
    review.set_defaults(command=exchange.review)
    export = subs.add_parser("export", help="write the results for other tools")
    export.add_argument("run", metavar="RUN")
    formats = ["parquet", "csv", "label-studio", "huggingface", "conll", "spacy"]
    words = "(default: parquet csv)"
    default = formats[:2]
    export.add_argument("--format", nargs="+", choices=formats, default=default, help=words)
    export.add_argument("--to", default="", metavar="FOLDER", help="(default: export/ of the run)")
    export.add_argument("--text", action="store_true", help="with the texts of the documents")
    export.set_defaults(command=exchange.export)


def _of_run(
    subs: "argparse._SubParsersAction",
    name: str,
    command: Callable[[argparse.Namespace], int],
    words: str,
) -> argparse.ArgumentParser:
    sub = subs.add_parser(name, help=words)
    sub.add_argument("run", metavar="RUN")
    sub.add_argument(
        "--max-usd", type=commands.number, metavar="N", help="default: as approved before"
    )
    sub.set_defaults(command=command)
    return sub


if __name__ == "__main__":
    sys.exit(main())
