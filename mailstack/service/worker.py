"""Becomes a worker: puts inherited sockets where sd_listen_fds(3) looks for them, then the program.

Run as `python -m mailstack.service.worker DESCRIPTORS COMMAND...`. Only the new process knows its
own number, which LISTEN_PID has to be.
"""

from __future__ import annotations

import os
import sys


def main(descriptors: str, *command: str) -> None:
    """Move the descriptors (numbers above all targets, separated by commas) and run the command."""
    for number, descriptor in enumerate(map(int, descriptors.split(","))):
        os.dup2(descriptor, 3 + number)  # which makes the new one inheritable
        os.close(descriptor)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
