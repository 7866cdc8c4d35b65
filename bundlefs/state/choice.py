"""Which bundle a mount is to go on with: what was asked for, held against what is kept.

*Terms* are what the bytes depend on besides secret, time and extents: the image's stat, the
parameters, the codec's version. Nothing here touches a file.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bundlefs.base.spans import Span
from bundlefs.keys.rsa import Secret
from bundlefs.state.file import Contents
from bundlefs.state.index import Index
from bundlefs.state.kept import Kept

log = logging.getLogger(__name__)

_SECOND = 10**9
_UNKNOWN = 60 * _SECOND
_IMAGE = "image's "
"""What the terms of the image itself begin with: where they differ, it is another image."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a mount is going to be made of, to be held against a state file."""

    image: Path
    terms: Mapping[str, str]
    recipients: Mapping[str, str]
    extents: tuple[Span, ...] | None


def switched(
    current: Contents | None, kept: list[Kept], wanted: Wanted, *, fresh: bool
) -> tuple[Contents, list[Kept]]:
    """Return another bundle than the current one, and which of those kept it takes the place of."""
    fitting = [one for one in kept if not reasons(one.contents, wanted)]
    known = [one.contents for one in kept] + ([current] if current else [])
    # Without a current one nobody knows what was there since: somebody has removed it.
    sure = current is not None
    if fitting and not fresh:
        found = max(fitting, key=lambda one: one.contents.taken)
        return _resumed(found.contents, known, wanted, sure=sure), [found]
    if current and not fresh:
        _tell_why_new(current, wanted)
    return _begun(wanted, known, sure=sure), fitting


def _now_after(known: Iterable[Contents], *, sure: bool) -> int:
    """Return the time, or a later one: a sink skips what is not newer, and clocks are set back.

    `sure` tells that all are known; each was at most a second ahead of the one before.
    """
    newest = max((max(one.shown, one.taken, one.gone_ns) for one in known), default=0)
    step = _SECOND if sure else _UNKNOWN
    return max(time.time_ns(), newest + step if newest else 0)


def _begun(wanted: Wanted, known: Iterable[Contents], *, sure: bool) -> Contents:
    secret = Secret.generate()
    return Contents(
        image=str(wanted.image),
        terms=dict(wanted.terms),
        recipients=dict(wanted.recipients),
        secret=secret,
        created_ns=_now_after(known, sure=sure),
        extents=wanted.extents,
        index=Index(secret.iv).dump(),
        manifests={},
        untouched=True,
    )


def _tell_why_new(old: Contents, wanted: Wanted) -> None:
    log.warning(
        "%s: a new bundle with a new key, since %s; upload everything anew%s",
        wanted.image,
        "; ".join(reasons(old, wanted)),
        "" if lost(wanted)(old) else ". The one before is kept: as it was asked for, it goes on",
    )


def reasons(old: Contents, wanted: Wanted) -> list[str]:
    """Say why an old bundle is not the one that is wanted; an empty list if it is."""
    return [*differences(old.terms, wanted.terms), *_other_keys(old, wanted)]


def lost(wanted: Wanted) -> Callable[[Contents], bool]:
    """Return what tells of which bundles the image is no longer there."""
    now = {name: value for name, value in wanted.terms.items() if name.startswith(_IMAGE)}

    def lost(old: Contents) -> bool:
        then = {name: value for name, value in old.terms.items() if name.startswith(_IMAGE)}
        return then != now

    return lost


def continued(old: Contents, wanted: Wanted) -> Contents:
    """Go on with a bundle, and with the keys that it got at any time."""
    log.info("%s: going on with the bundle of %s", wanted.image, _when(old.created_ns))
    recipients = {**old.recipients, **wanted.recipients}
    return replace(old, image=str(wanted.image), recipients=recipients)


def remembering(
    new: Contents, known: Iterable[Contents], dropped: Iterable[Contents], *, fresh: bool
) -> Contents:
    """Add what those who go back to an earlier bundle must know of those that are gone then."""
    gone = [one.gone_ns for one in known] + [one.taken for one in dropped if not one.untouched]
    # What a fresh one takes the place of may be damaged, and is not asked when it was read.
    return replace(new, gone_ns=max([*gone, new.created_ns if fresh else 0]))


def _resumed(old: Contents, known: list[Contents], wanted: Wanted, *, sure: bool) -> Contents:
    """Go back to an earlier bundle.

    Where another one may have been read since, parts of that may have taken the place of parts
    of this. They have the same sizes, and copy tools skip what is not newer: the old times would
    leave a mixture of both. So the files show a new time, and keep it from then on.
    """
    now = _now_after(known, sure=sure)
    resumed = replace(continued(old, wanted), taken_ns=now)
    between = [one for one in known if one.taken > old.taken and not one.untouched]
    gone = max(one.gone_ns for one in known) > old.taken
    if sure and not between and not gone:
        return resumed
    last = max(between, key=lambda one: one.taken, default=None)
    log.warning(
        "%s: going on with the bundle of %s. Another one was read since (%s), so that the files"
        " show a new time: run the same copy again, and it replaces what is there of the other",
        wanted.image,
        _when(old.created_ns),
        "; ".join(reasons(last, wanted)) if last else "or may have been: it is kept no longer",
    )
    return replace(resumed, shown_ns=now)


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Say what is different, in words: `level was 6, is 9`."""
    names = [*old, *(name for name in new if name not in old)]
    return [
        f"{name} was {old.get(name, 'not known')}, is {new.get(name, 'not known')}"
        for name in names
        if old.get(name) != new.get(name)
    ]


def _other_keys(old: Contents, wanted: Wanted) -> list[str]:
    return [
        f"the EC2 key of {name} is another"
        for name, key in wanted.recipients.items()
        if old.recipients.get(name, key) != key
    ]


def _when(created_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created_ns / 1e9))
