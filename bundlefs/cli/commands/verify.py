"""`bundlefs verify`: check a bundle as far as the keys at hand go, and say what was checked."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from bundlefs.base.errors import BundleError
from bundlefs.base.workers import Workers
from bundlefs.cli.common import Subparsers, human
from bundlefs.cli.given import (
    load_keys,
    naming_key_options,
    part_files,
    read_given,
    signature_in_words,
)
from bundlefs.cli.options import typed
from bundlefs.cli.options.given import GivenBundle, add_bundle_arguments, add_jobs
from bundlefs.cli.options.logs import add_quiet
from bundlefs.cli.streams import show
from bundlefs.cli.waits import pass_bar
from bundlefs.manifest.read import BundleManifest
from bundlefs.unbundling.extract import Pass, check_parts
from bundlefs.unbundling.indexes import FoundIndex, find_file
from bundlefs.unbundling.outputs import Nowhere
from bundlefs.unbundling.parts import PartFiles
from bundlefs.unbundling.unlock import Keys, Signature, check_signature, unlock


@dataclass(frozen=True, slots=True)
class _Options:
    given: GivenBundle
    jobs: int
    json: bool
    quiet: bool


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "verify",
        help="check a bundle: parts, signature, decryption, digest, size",
        description="Check a bundle as far as the given keys go. The exit code is 0 only if all"
        " that could be checked holds.",
        allow_abbrev=False,
    )
    add_bundle_arguments(parser)
    add_jobs(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_quiet(parser.add_argument)
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class _Check:
    """One check: what was looked at, its result (`ok`, `failed` or `skipped`), and why."""

    name: str
    result: str
    text: str

    def __str__(self) -> str:
        return f"{'FAILED' if self.result == 'failed' else self.result:7}  {self.name}: {self.text}"


def _outcome(look: Callable[[], str]) -> tuple[str, str]:
    """Return the result and the text of a check."""
    try:
        return "ok", look()
    except BundleError as error:
        return "failed", str(error)


class _Report:
    """The checks so far. Each is printed as it is done, unless all are to be one JSON object."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._checks: list[_Check] = []

    @property
    def failed(self) -> bool:
        """Whether a check has failed."""
        return any(check.result == "failed" for check in self._checks)

    def add(self, name: str, result: str, text: str) -> None:
        """Take the result of a check."""
        check = _Check(name, result, text)
        self._checks.append(check)
        if not self._as_json:
            show(str(check))

    def check(self, name: str, look: Callable[[], str]) -> bool:
        """Do a check: `look` returns what it found, or raises why it failed."""
        result, text = _outcome(look)
        self.add(name, result, text)
        return result == "ok"

    def close(self) -> None:
        """Print what is printed at the end."""
        if self._as_json:
            checks = [asdict(check) for check in self._checks]
            print(json.dumps({"ok": not self.failed, "checks": checks}, indent=1))


def run(arguments: argparse.Namespace) -> int:
    """Check everything that can be."""
    options = typed(_Options, arguments)
    keys = load_keys(options.given.keys)
    report = _Report(as_json=options.json)
    manifest = _manifest(report, options)
    if manifest is not None:
        _check(report, manifest, keys, options)
    report.close()
    sys.stdout.flush()
    return 1 if report.failed else 0


def _manifest(report: _Report, options: _Options) -> BundleManifest | None:
    """Read the manifest. In JSON a manifest of no use is a check that failed, as any other."""
    try:
        return read_given(options.given.manifest)
    except BundleError as error:
        if not options.json:
            raise
        report.add("manifest", "failed", str(error))
    return None


def _check(report: _Report, manifest: BundleManifest, keys: Keys, options: _Options) -> None:
    text = f"{manifest.name}, version {manifest.version}, {len(manifest.parts)} parts"
    report.add("manifest", "ok", text)
    _signature(report, manifest, keys)
    with Workers(options.jobs) as workers:
        _contents(report, manifest, keys, options, workers)


_RESULTS = {Signature.HOLDS: "ok", Signature.BAD: "failed"}


def _signature(report: _Report, manifest: BundleManifest, keys: Keys) -> None:
    result = _RESULTS.get(check_signature(manifest, keys), "skipped")
    report.add("signature", result, signature_in_words(manifest, keys))


def _contents(
    report: _Report,
    manifest: BundleManifest,
    keys: Keys,
    options: _Options,
    workers: Workers,
) -> None:
    found: list[PartFiles] = []
    given = options.given
    bar = partial(pass_bar, given.manifest, quiet=options.quiet)

    def sizes() -> str:
        found.append(part_files(manifest, given))
        total = human(found[0].size)
        return total if manifest.bundled_size else f"{total} (the manifest does not tell)"

    def digests() -> str:
        with bar("digesting") as progress:
            check_parts(found[0], workers, progress)
        return f"all {len(found[0])}"

    def decryption() -> str:
        with naming_key_options():
            # The signature is a check of its own.
            secret = unlock(manifest, keys, ignore_signature=True)
        with bar("decrypting") as progress:
            passed = Pass(manifest, found[0], secret, workers).run(Nowhere(), progress)
        digest = passed.digest if manifest.digest else "not checked, the manifest has none"
        return f"image of {passed.member.size} bytes, tar digest {digest}"

    if report.check("sizes of the parts", sizes):
        with found[0]:
            _parts_and_image(report, digests, decryption if keys.can_open else None)
    else:
        report.add("digests of the parts", "skipped", "the parts are not all there")
        report.add(_IMAGE, "skipped", "the parts are damaged")
    if found:
        _index(report, manifest, keys, given, found[0])


_NO_KEY = "skipped", "no private key given (--user-key)"
_IMAGE = "decryption, tar digest, image size"


def _parts_and_image(
    report: _Report, digests: Callable[[], str], decryption: Callable[[], str] | None
) -> None:
    """Check parts and image, and read the parts once.

    Those that are decrypted are digested by the way. Where that ends early, the others are digested
    then, since the report names all that are damaged.
    """
    decrypted = _outcome(decryption) if decryption else _NO_KEY
    if not report.check("digests of the parts", digests):
        decrypted = "skipped", "the parts are damaged"
    report.add(_IMAGE, *decrypted)


def _index(
    report: _Report,
    manifest: BundleManifest,
    keys: Keys,
    given: GivenBundle,
    parts: PartFiles,
) -> None:
    """Check the index that came with the bundle, if one did; EC2 does without."""

    def fits(index: FoundIndex) -> str:
        secret = unlock(manifest, keys, ignore_signature=True)
        return f"{index.table(manifest, secret, parts.size).blocks} blocks"

    try:
        folders = (given.folder, given.manifest.absolute().parent)
        index = find_file(manifest, parts.size, folders)
    except BundleError as error:
        report.add("index", "failed", str(error))
        return
    if index and keys.can_open:
        report.check("index", lambda: fits(index))
    elif index:
        report.add("index", *_NO_KEY)
