"""Becomes a worker: puts inherited sockets where sd_listen_fds(3) looks for them, then the program.

Run as `python -m mailstack.service.worker SUPERVISOR DESCRIPTORS COMMAND...`. Only the new process
knows its own number, which LISTEN_PID has to be, and only it can ask to be told of its parent's end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(supervisor: str, descriptors: str, *command: str) -> None:
    """Move the descriptors (numbers above all targets, separated by commas) and run the command."""
    _end_with(int(supervisor))
    for number, descriptor in enumerate(map(int, descriptors.split(","))):
        os.dup2(descriptor, 3 + number)  # which makes the new one inheritable
        os.close(descriptor)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.execv(command[0], command)


def _end_with(supervisor: int) -> None:
    """Have the kernel send SIGTERM when the supervisor dies, however it dies (prctl(2)).

    Workers that lived on would keep the ports, and nobody could start the server again. The request
    outlives the exec.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != supervisor:  # it died before we could ask
        raise SystemExit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
