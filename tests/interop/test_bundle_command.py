"""`bundlefs bundle`, run as a user runs it: what it writes is what a mount shows."""

import sys
from pathlib import Path

import pytest

from bundlefs.state.sealed_index import index_size
from tests.interop.back import done, refused, report, within
from tests.interop.bundled import FAST, piped, undone
from tests.support import oracles
from tests.support.folders import contents
from tests.support.keys import KeyPair
from tests.support.mounts import mounted
from tests.support.tools import ACCOUNT, run


@pytest.mark.parametrize(
    ("which", "options"),
    [
        ("image", ("--level", "0")),
        ("image", FAST),
        ("sparse", FAST),
        ("sparse", ()),
        ("sparse", ("--no-sparse", *FAST)),
    ],
)
def test_it_writes_what_a_mount_shows(
    which: str, options: tuple[str, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(which)
    regions = ("--region", "us-east-1", "--region", "cn-north-1", "--prefix", "my disk")
    state = ("--state", tmp_path / "state")
    done("bundle", *options, *regions, *state, path, tmp_path / "dest")
    with mounted(path, tmp_path / "mnt", *map(str, (*options, *regions, *state))) as mount:
        shown = {item.name: item.read_bytes() for item in mount.path.iterdir() if item.is_file()}
    assert contents(tmp_path / "dest") == shown
    assert {"my disk.manifest.xml", "my disk.cn-north-1.manifest.xml"} < set(shown)


def test_a_mount_first_gives_the_same(image: Path, tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state"))
    with mounted(image, tmp_path / "mnt", *FAST, *state) as mount:
        shown = {item.name: item.read_bytes() for item in mount.path.iterdir() if item.is_file()}
        line = refused("bundle", *FAST, *state, image, tmp_path / "dest")
        assert "in use by" in line
        assert str(mount.path) in line
    done("bundle", *FAST, *state, image, tmp_path / "dest")
    assert contents(tmp_path / "dest") == shown


def test_stock_tools_undo_it(sparse: Path, user_keys: KeyPair, tmp_path: Path) -> None:
    done("bundle", "--user-key", user_keys.private, sparse, tmp_path / "new" / "dest")
    undone(tmp_path / "new" / "dest", user_keys, sparse)


def test_our_own_way_back_takes_it(sparse: Path, user_keys: KeyPair, tmp_path: Path) -> None:
    key = ("--user-key", user_keys.private)
    done("bundle", *key, sparse, tmp_path / "dest")
    manifest = tmp_path / "dest" / "image.manifest.xml"
    done("verify", *key, manifest)
    done("unbundle", *key, manifest, "-o", tmp_path / "back")
    oracles.assert_same(tmp_path / "back", sparse)


def test_the_manifest_is_the_last_of_all(image: Path, tmp_path: Path) -> None:
    done("bundle", *FAST, image, tmp_path / "dest")
    times = {path.name: path.stat().st_ctime_ns for path in (tmp_path / "dest").iterdir()}
    manifest = times.pop("image.manifest.xml")
    assert sorted(times) == [f"image.part.0{number}" for number in range(4)]
    # The clock of a file system ticks in milliseconds: the last part may have the same time.
    assert manifest >= max(times.values())
    assert manifest > times["image.part.00"]


def test_the_log_file_has_what_is_said(image: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = tmp_path / "log"
    ending = done("bundle", *FAST, "--log-file", log, image, tmp_path / "dest")
    assert ending.err == ""
    assert f"the bundle of {image} is complete" in log.read_text()


WITHOUT_FUSE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyfuse3", "trio"):
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
from bundlefs.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_it_needs_no_fuse(image: Path, tmp_path: Path) -> None:
    words = ["bundle", "--state", "none", "--level", "1", "--account", ACCOUNT]
    run([sys.executable, "-c", WITHOUT_FUSE, *words, image, tmp_path / "dest"])
    assert (tmp_path / "dest" / "image.manifest.xml").exists()


def test_the_index_goes_with_its_bundle_and_not_with_another(
    sparse: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    dest, key = tmp_path / "out", ("--user-key", user_keys.private)
    words = ("bundle", "--account", ACCOUNT, *key, *FAST)
    index, verify = dest / "image.index", ("verify", dest, *key)

    def checked() -> tuple[str, str]:
        return report(within(*verify)[1]).get("index", ("", ""))

    assert within(*words, "--with-index", sparse, dest)[0] == 0
    made = index.read_bytes()
    outcome, says = checked()
    assert (outcome, index_size(int(says.removesuffix(" blocks")))) == ("ok", len(made))
    # for another region, say: the bundle is the same, and so is its index
    assert within(*words, sparse, dest)[0] == 0
    assert index.read_bytes() == made
    code, _, err = within(*words, "--fresh", sparse, dest)
    assert (code, index.exists()) == (0, False)
    assert f"{index} is removed: it is the index of another bundle" in err
    assert checked() == ("", "")
    index.write_bytes(made)
    assert checked() == ("FAILED", f"index {index}: it is of another bundle, or is damaged")
    code, err = piped(
        *words, "--with-index", "--size", str(sparse.stat().st_size), "-", dest, data=sparse
    )
    assert code == 0, err
    assert checked()[0] == "ok"
    undone(dest, user_keys, sparse)
    assert report(within("verify", dest)[1])["index"][0] == "skipped"
    mine = b"a file of somebody's own"
    index.write_bytes(mine)
    assert within(*words, "--fresh", sparse, dest)[0] == 0
    assert index.read_bytes() == mine
