"""A process that follows runs in forked children, so that each can be killed and costs little.

Reads one JSON object a line: outputs, run, service, crash. Writes the child's end: its exit code,
or minus the signal that ended it.
"""

import json
import os
import sys

import sending

from lib import runs


def follow(asked):
    """Follow one run in this process, which may be told to crash; gives the exit code."""
    os.environ["VOTEBOOK_OUTPUTS"] = asked["outputs"]
    os.environ["VOTEBOOK_CRASH"] = asked["crash"]
    to = sending.service_at(asked["service"], asked["service"]["base_url"])
    progress = sending.finish(runs.open_run(asked["study"]), to)
    return 0 if progress.state == "done" else 3


def main():
    """Answer one line with one line until there are no more."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = follow(json.loads(line))
            finally:
                os._exit(code)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
