"""`python -m lib.local_api`: the command line of the local Batch API."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib.local_api import upstream

DEFAULT_KEY = "OPENAI_API_KEY"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve as the arguments say; returns the exit code."""
    made = parser()
    options = made.parse_args(arguments)
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
        upstream=upstream_of(options, made) if options.upstream else None,
        faults=options.faults,
    )
    return serving.run(process)


def parser() -> argparse.ArgumentParser:
    """The options with their defaults and help."""
    made = argparse.ArgumentParser(
        prog="python -m lib.local_api",
        description="Serve a Batch API on this machine that behaves like OpenAI's, for tests, for"
        " trying things out and for working offline. Its answers are simulated, or those of any"
        " OpenAI-compatible service that --upstream names.",
        epilog="SECONDS of a stage are seconds of the service's clock, which --speed makes faster.",
    )
    _add_process(made)
    _add_behaviour(made)
    _add_upstream(made)
    return made


def _add_process(made: argparse.ArgumentParser) -> None:
    """Where the service is, who may use it, and when it leaves."""
    add = made.add_argument
    state = Path("outputs/.local_api")
    add("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (0: any free one)")
    add("--state", type=Path, default=state, metavar="DIR", help=f"files and batches ({state})")
    add("--token", metavar="T", help="token to ask for (made once, kept in the state)", type=_token)
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
    faults = "faults to begin with, in YAML or JSON; GET /votebook/faults lists all there are"
    add("--faults", type=Path, metavar="FILE", help=faults)
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


def _add_upstream(made: argparse.ArgumentParser) -> None:
    """Who answers in place of the built-in annotators."""
    add = made.add_argument_group("upstream").add_argument
    who = "let an OpenAI-compatible service answer, e.g. http://localhost:11434/v1 (Ollama)"
    add("--upstream", type=_address, metavar="URL", help=who)
    key = f"variable that holds the upstream's key ({DEFAULT_KEY} over https, else none)"
    add("--upstream-key-env", metavar="NAME", help=key)
    model = "the upstream's model, for every model or (may be repeated) for one that is asked for"
    names = "[ASKED=]NAME"
    add("--upstream-model", action="append", default=[], metavar=names, help=model)
    many = "requests under way at once, for all batches together (8)"
    add("--concurrency", type=_count, default=8, metavar="N", help=many)


def upstream_of(options: argparse.Namespace, made: argparse.ArgumentParser) -> "upstream.Settings":
    """The upstream that the options name; its key comes from the environment alone.

    Over plain http a key goes only where its variable was named on purpose.
    """
    from lib.local_api import upstream

    named, is_private = options.upstream_key_env, options.upstream.startswith("https:")
    if named and not os.environ.get(named):
        made.error(f"--upstream-key-env: there is no variable {named}, or it is empty")
    pairs = [one.rpartition("=") for one in options.upstream_model]
    return upstream.Settings(
        options.upstream,
        os.environ.get(named or (DEFAULT_KEY if is_private else "")),
        {asked: name for asked, _, name in pairs},
        options.concurrency,
    )


def _address(text: str) -> str:
    """The base URL of an upstream."""
    from lib.local_api import upstream

    try:
        return upstream.base_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    """A number, at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 1")
    return int(text)


def _token(text: str) -> str:
    """A token that a header can carry."""
    if not text.isascii() or not text.isprintable() or not text or text != text.strip():
        raise argparse.ArgumentTypeError("a token is ASCII text without spaces around it")
    return text


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
