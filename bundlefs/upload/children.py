"""Programs that work for the upload, and end with it, also where it is killed."""

import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from bundlefs.base.threads import start_abandonable
from bundlefs.upload.words import UploadError, explained, tell

_PATIENCE_SECONDS = 10


class Child:
    """A running program, what it says passed on as it comes, and its last lines kept.

    It is to be started by a thread that outlasts it: the kernel takes the end of that for the end
    of us.

    Args:
        words: its command line, without secrets.
        heard: what is done with each line that it says, beside keeping it.
        talks: whether it is spoken to, by its standard input and output.
        environment: its variables, ours by default.
        keeps: descriptors that it has as well.
    """

    def __init__(
        self,
        words: Sequence[str],
        heard: Callable[[str], None] = tell,
        *,
        talks: bool = False,
        environment: Mapping[str, str] | None = None,
        keeps: Sequence[int] = (),
    ) -> None:
        self.words = tuple(words)
        self._heard = heard
        self._said: deque[str] = deque(maxlen=100)
        pipe = subprocess.PIPE
        with_us = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        self.process = subprocess.Popen(
            [*with_us, *words],
            stdin=pipe if talks else subprocess.DEVNULL,
            stdout=pipe if talks else subprocess.DEVNULL,
            stderr=pipe,
            env=environment,
            pass_fds=keeps,
            encoding="utf-8",
            errors="surrogateescape",
        )
        self._listening: threading.Thread = start_abandonable(self._listen, "listen")

    def _listen(self) -> None:
        with suppress(OSError, ValueError):  # it is closed at the end
            for line in self.process.stderr or ():
                self._said.append(line)
                self._heard(line.rstrip("\n").expandtabs())

    def say(self, line: str) -> None:
        """Say a line to it.

        Raises:
            OSError: it has ended.
        """
        if self.process.stdin:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self.process.poll() is not None

    @property
    def said(self) -> str:
        """What it has said last, once it has ended."""
        self._listening.join(1)
        return "".join(self._said)

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            UploadError: it failed.
        """
        code = self.process.wait()
        self._listening.join()
        if code:
            raise self.failure()

    def failure(self) -> UploadError:
        """Return why it has ended, as far as it has said so."""
        return UploadError(explained(self.words, self.process.returncode or 0, self.said))

    def end(self) -> None:
        """End it, at last by force."""
        if self.process.stdin:
            with suppress(OSError):
                self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
