"""The command `python -m lib`: run a study, test the workspace, open JupyterLab, serve locally."""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib.errors import BusyError, VotebookError

if TYPE_CHECKING:
    from lib.dispatch import Progress

DONE, STOPPED, WAITING, BUSY, INTERRUPTED = 0, 2, 3, 75, 130
_ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code: 0 done, 2 stopped, 3 waiting, 75 busy."""
    given = _parser().parse_args(arguments)
    try:
        return given.command(given)
    except VotebookError as error:
        return _failed(error)
    except KeyboardInterrupt:
        print("\nStopped. Nothing is lost: run the same command again.", file=sys.stderr)
        return INTERRUPTED


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
    print(progress)
    return WAITING if progress.state == "waiting" else STOPPED


def _failed(error: VotebookError) -> int:
    """The exit code for an error, which is said in one sentence or two."""
    print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
    return BUSY if isinstance(error, BusyError) else STOPPED


def _test(given: argparse.Namespace) -> int:
    named = [word for word in given.rest if (_ROOT / word.split("::")[0]).exists()]
    words = [*given.rest, *([] if named else ["notebooks", "tests", "lib"])]
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
    commands = parser.add_subparsers(title="commands", required=True)
    run = commands.add_parser("run", help="run notebooks 01 to 06 on a study and write the report")
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
    refresh = commands.add_parser("refresh", help="re-make the notebooks' reference outputs")
    refresh.set_defaults(command=_refresh)
    for name, command, words in (
        ("test", _test, "run all tests; further words go to pytest"),
        ("lab", _lab, "open JupyterLab on the notebooks; further words go to it"),
        ("serve", _serve, "run the local Batch API; --help lists its options"),
    ):
        sub = commands.add_parser(name, help=words, add_help=name != "serve", prefix_chars="\0")
        sub.add_argument("rest", nargs="*")
        sub.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
