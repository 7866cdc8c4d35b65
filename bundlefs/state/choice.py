"""Which bundle a mount goes on with: what is asked for is compared with what is kept.

*Terms* are what the bytes depend on besides the secret, the time and the extents: the image's
stat, the parameters, the codec's version. Where the terms of a file and of the mount differ,
another bundle is asked for: an earlier one goes on or a new one begins, and the log says why.
Nothing here touches a file.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bundlefs.base.spans import Span
from bundlefs.base.times import SECOND, local_time
from bundlefs.keys.rsa import Secret
from bundlefs.state.format import StateContents
from bundlefs.state.index import Index
from bundlefs.state.kept import Kept

log = logging.getLogger(__name__)

_NOT_GIVEN = ("None", "()")
"""What a parameter that was left out is written as."""

_AHEAD = SECOND
_AHEAD_OF_UNKNOWN = 60 * SECOND
_IMAGE = "image's "
"""Terms of the image itself begin so: where they differ, it is another image."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a mount is going to be made of, to be compared with a state file."""

    image: Path
    terms: Mapping[str, str]
    recipients: Mapping[str, str]
    extents: tuple[Span, ...] | None


def switched(
    current: StateContents | None, kept: list[Kept], wanted: Wanted, *, fresh: bool
) -> tuple[StateContents, list[Kept]]:
    """Return another bundle than the current one, and the kept ones whose place it takes."""
    fitting = [one for one in kept if not reasons(one.contents, wanted)]
    known = [one.contents for one in kept] + ([current] if current else [])
    # Without a current one nobody knows what was there since then: somebody has removed it.
    sure = current is not None
    if fitting and not fresh:
        found = max(fitting, key=lambda one: one.contents.taken)
        return _resumed(found.contents, known, wanted, sure=sure), [found]
    if current and not fresh:
        _tell_why_new(current, wanted)
    return _begun(wanted, known, sure=sure), fitting


def _now_after(known: Iterable[StateContents], *, sure: bool) -> int:
    """Return a time after that of all known bundles: now, unless the clock was set back.

    A copy tool skips what is not newer than what is there. `sure` tells that all bundles are
    known; each was at most a second ahead of the one before.
    """
    newest = max((max(one.shown, one.taken, one.gone_ns) for one in known), default=0)
    step = _AHEAD if sure else _AHEAD_OF_UNKNOWN
    return max(time.time_ns(), newest + step if newest else 0)


def _begun(wanted: Wanted, known: Iterable[StateContents], *, sure: bool) -> StateContents:
    secret = Secret.generate()
    return StateContents(
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


def _tell_why_new(old: StateContents, wanted: Wanted) -> None:
    log.warning(
        "%s: a new bundle with a new key, since %s; upload everything anew%s",
        wanted.image,
        "; ".join(reasons(old, wanted)),
        ""
        if has_lost_image(old, wanted)
        else ". The one before is kept: as it was asked for, it goes on",
    )


def reasons(old: StateContents, wanted: Wanted) -> list[str]:
    """Return why an old bundle is not the one that is wanted; an empty list if it is."""
    return [*differences(old.terms, wanted.terms), *_other_keys(old, wanted)]


def has_lost_image(old: StateContents, wanted: Wanted) -> bool:
    """Tell whether the image of an old bundle is no longer there: another is in its place."""
    return _image_terms(old.terms) != _image_terms(wanted.terms)


def _image_terms(terms: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in terms.items() if name.startswith(_IMAGE)}


def continued(old: StateContents, wanted: Wanted) -> StateContents:
    """Return a bundle that goes on, with all the recipients that it has had at any time."""
    log.info("%s: going on with the bundle of %s", wanted.image, local_time(old.created_ns))
    recipients = {**old.recipients, **wanted.recipients}
    return replace(old, image=str(wanted.image), recipients=recipients)


def remembering(
    new: StateContents,
    known: Iterable[StateContents],
    dropped: Iterable[StateContents],
    *,
    fresh: bool,
) -> StateContents:
    """Return a bundle that remembers when those that are gone were read, for going back later."""
    gone = [one.gone_ns for one in known] + [one.taken for one in dropped if not one.untouched]
    # A fresh bundle may take the place of a damaged one, which cannot tell when it was read.
    return replace(new, gone_ns=max([*gone, new.created_ns if fresh else 0]))


def _resumed(
    old: StateContents, known: list[StateContents], wanted: Wanted, *, sure: bool
) -> StateContents:
    """Return an earlier bundle that is gone back to.

    Where another one may have been read since, its parts may have taken the place of parts of
    this one. They have the same sizes, and copy tools skip what is not newer: with the old times
    there would be a mixture of both. So the files show a new time, and keep it from then on.
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
        local_time(old.created_ns),
        "; ".join(reasons(last, wanted)) if last else "or may have been: it is kept no longer",
    )
    return replace(resumed, shown_ns=now)


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return what is different, in words: `level was 6, is 9`.

    A term that says that something was not given is as none at all: a state of before there was
    that term has none, and is still the state of the same bundle.
    """
    names = [*old, *(name for name in new if name not in old)]
    return [
        f"{name} was {old.get(name, 'not known')}, is {new.get(name, 'not known')}"
        for name in names
        if _given(old, name) != _given(new, name)
    ]


def _given(terms: Mapping[str, str], name: str) -> str | None:
    value = terms.get(name)
    return None if value in _NOT_GIVEN else value


def _other_keys(old: StateContents, wanted: Wanted) -> list[str]:
    return [
        f"the EC2 key of {name} is another"
        for name, key in wanted.recipients.items()
        if old.recipients.get(name, key) != key
    ]
