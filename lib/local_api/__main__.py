"""`python -m lib.local_api`: the command line of the local Batch API."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve as the arguments say; returns the exit code."""
    options = parser().parse_args(arguments)
    from lib.local_api import context, serving

    settings = context.Settings(
        tier=options.tier,
        count_output=options.count_output,
        release_seconds=options.release,
        validating_seconds=options.validating,
        in_progress_seconds=options.in_progress,
        finalizing_seconds=options.finalizing,
        cancelling_seconds=options.cancelling,
    )
    process = serving.Process(
        state=options.state,
        port=options.port,
        token=options.token,
        speed=options.speed,
        idle_exit_seconds=options.idle_exit,
        endpoint=options.endpoint,
        settings=settings,
    )
    return serving.run(process)


def parser() -> argparse.ArgumentParser:
    """The options with their defaults and help."""
    made = argparse.ArgumentParser(
        prog="python -m lib.local_api",
        description="Serve a Batch API on this machine that behaves like OpenAI's, for tests, for"
        " trying things out and for working offline. Its answers are simulated.",
        epilog="SECONDS of a stage are seconds of the service's clock, which --speed makes faster.",
    )
    _add_process(made)
    _add_behaviour(made)
    return made


def _add_process(made: argparse.ArgumentParser) -> None:
    """Where the service is, who may use it, and when it leaves."""
    add = made.add_argument
    state = Path("outputs/.local_api")
    add("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (0: any free one)")
    add("--state", type=Path, default=state, metavar="DIR", help=f"files and batches ({state})")
    add("--token", metavar="T", help="token to ask for (made once, kept in the state)")
    leave = "leave after so long without a request or a batch under way (0: never)"
    add("--idle-exit", type=_seconds, default=0.0, metavar="SECONDS", help=leave)
    where = "write base_url, token and pid here too when ready, besides DIR/endpoint.json"
    add("--endpoint", type=Path, metavar="FILE", help=where)


def _add_behaviour(made: argparse.ArgumentParser) -> None:
    """Its clock, its limits, and how long the stages of a batch last."""
    add = made.add_argument
    speed = "how fast the clock runs; at 86400 the 24 hours of a batch pass in a second (1)"
    add("--speed", type=_positive, default=1.0, metavar="FACTOR", help=speed)
    add("--tier", type=int, default=1, metavar="N", help="usage tier, for queue limits (1)")
    count = "let the queue reserve the completion limit of a request besides its input"
    add("--count-output", action="store_true", help=count)
    durations = {
        "release": (0.0, "how late the queue forgets a batch that has ended"),
        "validating": (0.2, "shortest time in this stage"),
        "in-progress": (0.4, "shortest time in this stage"),
        "finalizing": (0.1, "shortest time in this stage"),
        "cancelling": (0.1, "shortest time in this stage"),
    }
    for name, (seconds, what) in durations.items():
        help_text = f"{what} ({seconds})"
        add(f"--{name}", type=_seconds, default=seconds, metavar="SECONDS", help=help_text)


def _seconds(text: str) -> float:
    """A duration, at least 0."""
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a duration in seconds")
    return seconds


def _positive(text: str) -> float:
    """A factor above 0."""
    factor = _seconds(text)
    if not factor:
        raise argparse.ArgumentTypeError("the factor must be above 0")
    return factor


if __name__ == "__main__":
    sys.exit(main())
