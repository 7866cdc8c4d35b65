"""What keeps keys and plaintext in the process: no core dumps, and no variables for children."""

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4
"""[prctl(2)]"""


def rule_out_core_dumps() -> None:
    """Let no crash write the memory to a disk, and no other process of the user look into it.

    The limit holds for child processes as well: they have the plain image in memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The limit does not count where the kernel hands the dump to a program [core(5)].
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def take_variable(name: str) -> str | None:
    """Return an environment variable and remove it, so that no child process inherits it.

    Its bytes are overwritten: /proc/PID/environ shows those that the process was started with.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    place = libc.getenv(os.fsencode(name))
    if place:
        ctypes.memset(place, 0, len(ctypes.string_at(place)))
    return os.environ.pop(name, None)
