"""How far an upload is: a line that changes on a terminal, and some lines elsewhere."""

import shutil
import sys
import time

from bundlefs.upload import words
from bundlefs.upload.course import Stand

_MIB = 1 << 20
_APART_SECONDS = 5
_FEW_SECONDS = 3
"""Before that a rate says nothing."""


class Progress:
    """Shows where an upload stands, each time that it is called."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._began = time.monotonic()
        self._in_place = sys.stderr.isatty()
        self._tenths = 0
        self._told = self._began

    def __call__(self, about: int | None, stand: Stand) -> None:
        """Show it; `about` is how large all will be, as far as that can be told."""
        if self._quiet:
            return
        total = stand.made if stand.ended or not about else max(about, stand.made)
        seconds = time.monotonic() - self._began
        text = _text(total, stand, seconds)
        if self._in_place:
            words.draw(_bar(total, stand, text))
        elif self._due(total, stand):
            words.tell(f"bundlefs-upload: {text}")

    def _due(self, total: int, stand: Stand) -> bool:
        """Return whether another tenth is there; what takes no time needs no lines."""
        tenths = 10 * stand.sent // total if total else 0
        now = time.monotonic()
        if tenths <= self._tenths or now - self._told < _APART_SECONDS:
            return False
        self._tenths, self._told = tenths, now
        return True


def _text(total: int, stand: Stand, seconds: float) -> str:
    rate = stand.sent / max(seconds, 0.001)
    about = "" if stand.ended else "about "
    whole = f" of {about}{total // _MIB:,}" if total else ""
    text = f"{stand.made // _MIB:,} MiB made, {stand.sent // _MIB:,}{whole} MiB sent"
    text += f", {rate / _MIB:.1f} MiB/s"
    if total and stand.sent and seconds > _FEW_SECONDS:
        left = int((total - stand.sent) / rate)
        text += f", {left // 60}:{left % 60:02} left"
    return text


def _bar(total: int, stand: Stand, text: str) -> str:
    """Return a line with a bar in it: what is sent, what is made, what is to come."""
    columns = shutil.get_terminal_size().columns - 1
    width = columns - len(text) - 3
    if width < 10 or not total:  # noqa: PLR2004  # less says nothing
        return text[:columns]
    sent, made = (min(width, width * part // total) for part in (stand.sent, stand.made))
    return f"[{'#' * sent}{'-' * (made - sent)}{' ' * (width - made)}] {text}"
