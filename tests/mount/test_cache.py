"""What is sealed once need not be compressed again: the store's promises, on a real mount."""

import os
from pathlib import Path

import pytest

from tests.support.images import ext4_image, file_tree, random_image
from tests.support.mounts import mounted
from tests.support.servers import rclone, rclone_s3

MIB = 1 << 20


def forget(folder: Path) -> None:
    """Have the kernel drop the pages of all files, so that they are read from us again."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_with_a_cache_dir_an_upload_compresses_each_block_once(
    tmp_path: Path, mountpoint: Path
) -> None:
    image = random_image(tmp_path / "image", 70 * MIB)
    cache, bucket = tmp_path / "cache", tmp_path / "served" / "bucket"
    cache.mkdir()
    bucket.mkdir(parents=True)
    options = ["--level", "1", "--cache-size", "0", "--cache-dir", str(cache)]
    with (
        rclone_s3(bucket.parent, tmp_path) as server,
        mounted(image, mountpoint, *options) as mount,
    ):
        rclone(server, tmp_path, "copy", str(mountpoint), "sink:bucket")
        blocks = -(-int(mount.status()["tar_size"]) // MIB)
        assert mount.status()["blocks_compressed"] == blocks
        copies = {path.name: path.read_bytes() for path in bucket.iterdir()}
        forget(mountpoint)
        assert copies == {path.name: path.read_bytes() for path in mountpoint.iterdir()}
        assert mount.status()["blocks_compressed"] == blocks
        assert list(cache.iterdir()) == [], "the cache has no name that could be left behind"


def test_without_any_cache_blocks_are_made_again(tmp_path: Path, mountpoint: Path) -> None:
    """The counter of the test above can count: more is sealed here than is always kept."""
    image = random_image(tmp_path / "image", 70 * MIB)
    with mounted(image, mountpoint, "--level", "1", "--cache-size", "0") as mount:
        before = {path.name: path.read_bytes() for path in mountpoint.iterdir()}
        first = int(mount.status()["blocks_compressed"])
        forget(mountpoint)
        assert before == {path.name: path.read_bytes() for path in mountpoint.iterdir()}
        assert mount.status()["blocks_compressed"] > first


def test_the_memory_cache_keeps_what_fits(tmp_path: Path, mountpoint: Path) -> None:
    image = ext4_image(tmp_path / "image", file_tree(tmp_path / "tree"))
    with mounted(image, mountpoint, "--level", "1", "--cache-size", "1G") as mount:
        before = {path.name: path.read_bytes() for path in mountpoint.iterdir()}
        first = mount.status()["blocks_compressed"]
        forget(mountpoint)
        assert before == {path.name: path.read_bytes() for path in mountpoint.iterdir()}
        assert mount.status()["blocks_compressed"] == first


def test_eager_starts_the_pass_at_once(tmp_path: Path, mountpoint: Path) -> None:
    image = random_image(tmp_path / "image", 4 * MIB)
    with mounted(image, mountpoint, "--eager") as mount:
        while mount.status()["phase"] == "indexing":
            pass
        assert mount.status()["phase"] == "complete"


@pytest.mark.parametrize("cache", ["0", "256M"])
def test_ranges_of_one_part_make_no_block_twice(
    tmp_path: Path, mountpoint: Path, cache: str
) -> None:
    """As aws-cli reads: 0 to 8 MiB and 8 to 10 MiB, at a time, in steps; behind the frontier."""
    image = random_image(tmp_path / "image", 60 * MIB)
    with mounted(image, mountpoint, "--level", "1", "--cache-size", cache) as mount:
        part = mount.parts()[0]
        list(mountpoint.iterdir())
        forget(mountpoint)
        first = int(mount.status()["blocks_compressed"])
        with part.open("rb", buffering=0) as low, part.open("rb", buffering=0) as high:
            high.seek(8 * MIB)
            for _ in range(32):
                low.read(256 << 10)
                high.read(64 << 10)
        made = int(mount.status()["blocks_compressed"]) - first
        # 10 MiB of random bytes lie in 11 blocks, of which the first is in part 0 alone.
        assert made <= (0 if cache == "256M" else 11)
