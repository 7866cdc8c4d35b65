"""A disk of several partitions, opened: each is a file that mounts without an offset."""

import json
from pathlib import Path

from tests.mount.opened import BY_POINTS, BY_STATE, opened
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import bundlefs
from tests.support.tools import run

MIB = images.MIB


def disk(path: Path) -> list[tuple[str, int, int]]:
    """Make a disk with a file system in its first logical partition; return all, by sfdisk."""
    (path.parent / "files").mkdir()
    (path.parent / "files" / "hello").write_text("here")
    system = path.with_name("system")
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", path.parent / "files", system, "8M"])
    images.sparse_image(path, 40 * MIB, {3 * MIB: b"".join(images.noise(MIB, "first"))})
    lines = ("label: dos", "2048,8192,83", "10240,,5", "12288,16384,83", "32768,4096,82")
    run(["sfdisk", "-q", path], data="\n".join(lines).encode())
    with path.open("r+b") as file:
        file.seek(12288 * 512)
        file.write(system.read_bytes())
    table = json.loads(run(["sfdisk", "--json", path]))["partitiontable"]["partitions"]
    return [
        (f"image.p{one['node'].removeprefix(str(path))}", one["start"] * 512, one["size"] * 512)
        for one in table
        if one["type"] != "5"
    ]


def test_partitions_as_files(user_keys: KeyPair, tmp_path: Path) -> None:
    image, folder, files = tmp_path / "disk", tmp_path / "bundle", tmp_path / "root"
    found = disk(image)
    content = image.read_bytes()
    bundlefs("bundle", "--user-key", user_keys.private, image, folder)
    key = ("--user-key", user_keys.private)
    elsewhere = {"XDG_STATE_HOME": str(tmp_path / "elsewhere")}
    for access, env in ((BY_STATE, None), (BY_POINTS, elsewhere)):
        with opened(folder / "image.manifest.xml", tmp_path / "mnt", *key, env=env) as mount:
            assert mount.status()["access"] == access
            names = sorted(path.name for path in mount.path.iterdir())
            assert names == sorted(["image.img", *(name for name, _, _ in found)])
            for name, start, size in found:
                part = mount.path / name
                assert part.stat().st_size == size
                assert part.read_bytes() == content[start : start + size]
            assert not (mount.path / "image.p2").exists()
            files.mkdir(exist_ok=True)
            run(["mount", "-o", "ro,loop", mount.path / "image.p5", files])
            try:
                assert (files / "hello").read_text() == "here"
            finally:
                run(["umount", files])
