"""Becomes another program that the kernel ends with whoever started it (Linux).

``python -I -S tether.py PARENT PIPE PROGRAM ARGUMENT…``, run as a file by
:mod:`autotune.backends.program`. A process can ask for this only itself, so this small one does
and then turns into the program: no code of ours runs between ``fork`` and ``exec`` of a process
that has threads. The pipe closes at the moment the program begins; an error number comes through
it where the program cannot.

Source: ``prctl(2)``, PR_SET_PDEATHSIG: kept over ``execve``, sent when the *thread* that started
the process ends.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def main(parent: int, pipe: int, command: list[str]) -> None:
    """Turn into the command; returns only where that fails or the parent is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        return
    os.set_inheritable(pipe, False)  # noqa: FBT003 - closes when the program begins
    try:
        os.execv(command[0], command)  # noqa: S606 - a list, no shell
    except OSError as error:
        os.write(pipe, str(error.errno).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
