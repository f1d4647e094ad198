"""Thousands of requests made from the API's specification, sent to the local service.

Schemathesis is not part of the project's environment; give it one of its own:

    python -m venv /tmp/schemathesis && /tmp/schemathesis/bin/pip install schemathesis
    python votebook.py serve --state /tmp/state    # in another terminal; then what it prints:
    export OPENAI_BASE_URL=... OPENAI_API_KEY=...
    /tmp/schemathesis/bin/python -m benchmarks.schemathesis_local_api ../shared

The argument is the folder that holds `openai/openapi-batch.json`. The specification is repaired as
`tests/specification.py` says. Fails on an answer of 500 or above, on a status, a content type, a
header or a body that the specification does not declare, on a method that it does not have and is
not refused, and on an answer without the token.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests import specification

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run schemathesis; returns its exit code, 0 when nothing was found."""
    options = _parser().parse_args(arguments)
    published = specification.read(options.shared)
    wanted = _with_token(specification.without_streams(specification.repaired(published)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "openapi.json"
        path.write_text(json.dumps(wanted), encoding="utf-8")
        return subprocess.run(_command(path, options), cwd=folder, check=False).returncode


def _parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    made.add_argument("shared", type=Path, help="folder that holds openai/openapi-batch.json")
    made.add_argument("--examples", type=int, default=100, help="cases for each operation (100)")
    made.add_argument("--seed", type=int, default=1, help="seed of the cases (1)")
    return made


def _with_token(described: dict) -> dict:
    """The specification with the token, of which the published one says nothing."""
    bearer = {"type": "http", "scheme": "bearer"}
    components = {**described["components"], "securitySchemes": {"token": bearer}}
    return {**described, "components": components, "security": [{"token": []}]}


def _command(path: Path, options: argparse.Namespace) -> list[str]:
    """The command line of schemathesis."""
    return [
        *(sys.executable, "-m", "schemathesis.cli", "run", str(path)),
        f"--url={os.environ['OPENAI_BASE_URL']}",
        f"--header=Authorization: Bearer {os.environ['OPENAI_API_KEY']}",
        f"--checks={','.join(CHECKS)}",
        f"--max-examples={options.examples}",
        f"--seed={options.seed}",
        "--request-timeout=10",
        "--continue-on-failure",
    ]


if __name__ == "__main__":
    sys.exit(main())
