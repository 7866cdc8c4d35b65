"""The pipeline against the bare codec on all cores, in one process, over the same bytes.

    python ceiling.py IMAGE LEVEL...

The bare codec is `Codec.compress`, its proof included, over blocks in memory and nothing
else: no reading, no SHA-1, no AES, no order. Prints a JSON list of
`{"level", "codec", "bare_seconds", "pipeline_seconds", "bundling_seconds"}`.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from bundlefs.base.workers import Workers, default_jobs
from bundlefs.bundling.assembly import Engine
from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.export import Export, Tap
from bundlefs.bundling.recipe import Recipe
from bundlefs.bundling.sinks import DirectorySink
from bundlefs.bundling.store import BlockStore
from bundlefs.codec.deflate import BLOCK_SIZE, codec_for
from bundlefs.image.raw import Image
from bundlefs.keys.regions import recipients
from bundlefs.keys.rsa import UserKeys
from bundlefs.manifest.write import Metadata
from bundlefs.state.memory import State


def bare(blocks: list[bytes], level: int) -> float:
    """Return the seconds in which the codec alone deflates the blocks on all cores."""
    codec = codec_for(level)
    start = time.perf_counter()
    with ThreadPoolExecutor(default_jobs()) as pool:
        for _ in pool.map(lambda block: len(codec.compress(block)), blocks):
            pass
    return time.perf_counter() - start


def pipeline(image: Path, level: int, keys: UserKeys) -> float:
    """Return the seconds of our whole first pass, from the image to sealed and digested parts."""
    metadata = Metadata(account="123456789012")
    recipe = Recipe("image", metadata, recipients("image", [], []), keys, level)
    with Image.open(image) as source, Workers(default_jobs()) as workers:
        state = State(source.extents())
        bundle = Bundle(source, recipe, Engine(workers, BlockStore(0)), state)
        start = time.perf_counter()
        bundle.when_complete().result()
        return time.perf_counter() - start


def bundling(image: Path, level: int, keys: UserKeys) -> float:
    """Return the seconds of `bundlefs bundle` into a folder, synced parts and manifest included."""
    metadata = Metadata(account="123456789012")
    recipe = Recipe("image", metadata, recipients("image", [], []), keys, level)
    with (
        TemporaryDirectory() as name,
        Image.open(image) as source,
        Workers(default_jobs()) as workers,
    ):
        tap = Tap(workers.lane(8))
        bundle = Bundle(source, recipe, Engine(workers, tap), State(source.extents()))
        start = time.perf_counter()
        Export(bundle, tap, DirectorySink(name), Path(name)).run()
        return time.perf_counter() - start


def main(path: Path, levels: list[int]) -> None:
    """Measure each level in turn."""
    data = path.read_bytes()
    blocks = [data[start : start + BLOCK_SIZE] for start in range(0, len(data), BLOCK_SIZE)]
    del data
    keys = UserKeys.load(None, None)
    found = []
    for level in levels:
        pipeline(path, level, keys)
        found.append(
            {
                "level": level,
                "codec": codec_for(level).name,
                "bare_seconds": bare(blocks, level),
                "pipeline_seconds": pipeline(path, level, keys),
                "bundling_seconds": bundling(path, level, keys),
            }
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(text) for text in sys.argv[2:]])
