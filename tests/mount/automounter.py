"""Play the part of systemd in `x-systemd.automount`: an automount point, and a command for it.

    automounter.py DIR COMMAND...

DIR becomes an automount point. The first who looks into it is held up by the kernel, COMMAND
is run, and when it has ended he goes on; what he finds is printed. COMMAND runs in the process
group of the automounter, as systemd sees to: of it alone the kernel lets nobody wait.
"""

import ctypes
import fcntl
import os
import subprocess
import sys
import threading

READY, FAIL = 0x9360, 0x9361
"""AUTOFS_IOC_READY and AUTOFS_IOC_FAIL [linux/auto_fs.h]."""
COMMAND_SECONDS = 20


def main(where: str, *command: str) -> None:
    """Do it once."""
    os.setpgid(0, 0)
    requests = automount(where)
    # Opened from within the group, it is the automount point itself.
    point = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    threading.Thread(target=answer, args=(requests, point, command), daemon=True).start()
    subprocess.run(["ls", where], process_group=0, check=False)


def automount(where: str) -> int:
    """Make the automount point; gives the pipe of the kernel's requests."""
    reader, writer = os.pipe2(os.O_DIRECT)
    options = f"fd={writer},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"test", where.encode(), b"autofs", 0, options.encode()):
        raise OSError(ctypes.get_errno(), f"autofs: {os.strerror(ctypes.get_errno())}")
    os.close(writer)
    return reader


def answer(requests: int, point: int, command: tuple[str, ...]) -> None:
    """Run the command for the first request, and let go who waits."""
    # An autofs_v5_packet: version, type, token, ...
    token = int.from_bytes(os.read(requests, 4096)[8:12], sys.byteorder)
    try:
        done = subprocess.run(command, timeout=COMMAND_SECONDS, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        done = False
    fcntl.ioctl(point, READY if done else FAIL, token)


if __name__ == "__main__":
    main(*sys.argv[1:])
