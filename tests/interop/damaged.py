"""Small bundles that are damaged, and what all that read them must do."""

from tests.interop.back import MIB, leftovers, refused, report, within
from tests.support import bundles
from tests.support.bundles import Bundler, Made
from tests.support.keys import KeyPair

PART = MIB
SIMPLE = Bundler(bundles.gnu_tar("--format=gnu"), ("gzip", "-1"), part_size=PART)


def refused_by_all(made: Made, user: KeyPair) -> str:
    """Have the bundle refused by `verify` and `unbundle`, for one reason; gives the reason."""
    key = ("--user-key", user.private)
    out = made.manifest.parent.parent / "out"
    out.mkdir()
    line = refused("unbundle", made.manifest, *key, "-o", out / "disk")
    assert leftovers(out) == []
    code, shown, err = within("verify", made.manifest, *key)
    assert (code, err) == (1, ""), err
    failed = [says for outcome, says in report(shown).values() if outcome == "FAILED"]
    assert len(failed) == 1, shown
    # where several parts are damaged, verify names all
    assert f"bundlefs: {failed[0]}".startswith(line)
    return failed[0]
