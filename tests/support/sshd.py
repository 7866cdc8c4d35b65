"""A real sshd on loopback, and the `ssh` that knows it, with keys and settings of their own.

The port is the kernel's choice, which sshd cannot ask for: it is started anew for each
connection, as inetd does, and what it listens with is a socket of ours.
"""

import contextlib
import getpass
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.tools import run, tool

HOST = "sink"


def serve(listener: socket.socket, settings: Path, log: Path) -> None:
    """Start sshd for each connection until the listener is shut down; wait for all of them."""
    command = [tool("sshd"), "-i", "-f", str(settings), "-E", str(log)]
    with contextlib.ExitStack() as running, contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection:
                stream = connection.fileno()
                running.callback(subprocess.Popen(command, stdin=stream, stdout=stream).wait)


@contextlib.contextmanager
def sshd(scratch: Path) -> Iterator[Path]:
    """Run an sshd; gives a folder for PATH, whose `ssh` reaches it by the name `HOST`.

    Commands run as the user who runs the tests. The log is in `scratch/sshd.log`.
    """
    for name in ("host", "client"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", scratch / name])
    if os.geteuid() == 0:
        # Debian makes it when the service starts, and sshd refuses to run as root without it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    settings = {
        "HostKey": scratch / "host",
        "AuthorizedKeysFile": scratch / "client.pub",
        "AuthenticationMethods": "publickey",
        "StrictModes": "no",
        "PermitRootLogin": "yes",
    }
    config = scratch / "sshd_config"
    config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = threading.Thread(
            target=serve, args=(listener, config, scratch / "sshd.log"), name="sshd"
        )
        served.start()
        try:
            yield client(scratch, listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            served.join()


def client(scratch: Path, port: int) -> Path:
    """Make the `ssh`: the system's, with settings that a user would have in ~/.ssh/config."""
    known = f"[127.0.0.1]:{port} {(scratch / 'host.pub').read_text()}"
    (scratch / "known_hosts").write_text(known)
    settings = {
        "HostName": "127.0.0.1",
        "Port": port,
        "User": getpass.getuser(),
        "IdentityFile": scratch / "client",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": scratch / "known_hosts",
        "BatchMode": "yes",
    }
    config = scratch / "ssh_config"
    lines = "".join(f"  {key} {value}\n" for key, value in settings.items())
    config.write_text(f"Host {HOST}\n{lines}")
    command = scratch / "bin/ssh"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{tool("ssh")}" -F "{config}" "$@"\n')
    command.chmod(0o755)
    return command.parent
