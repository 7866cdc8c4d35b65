"""Put the manual pages into the wheel, in share/man/man1 of wherever it is installed.

`contrib/man/page.py` makes them, in a process of its own: it imports the program. For that
a build needs what the parser imports, which is all that the program needs but FUSE's libraries.
"""

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The parser does not load them, and they are compiled against libfuse3.
_NOT_FOR_THE_PARSER = {"pyfuse3", "trio"}


class ManualPages(BuildHookInterface):  # type: ignore[type-arg]  # it is not subscriptable at run time
    """The build hook; hatchling finds it as the only one in this file."""

    def dependencies(self) -> list[str]:
        """Return what has to be installed for a build."""
        needed = self.metadata.core.dependencies
        names = [re.split(r"[^\w.-]", each, maxsplit=1)[0] for each in needed]
        pairs = zip(names, needed, strict=True)
        return [
            "argparse-manpage>=4.6",
            *(each for name, each in pairs if name not in _NOT_FOR_THE_PARSER),
        ]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # hatchling's
        """Make the pages before the wheel is put together."""
        self._folder = tempfile.TemporaryDirectory(prefix="bundlefs-man-")
        folder = Path(self._folder.name)
        subprocess.run(
            [sys.executable, str(Path(self.root, "contrib", "man", "page.py")), str(folder)],
            # No compiled files in the tree, which may be somebody else's than who builds.
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            check=True,
        )
        for page in folder.iterdir():
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002  # same
        """Remove them afterwards, and what Python compiled of this file.

        The tree may be somebody else's than who builds, and not theirs to clean.
        """
        self._folder.cleanup()
        compiled = Path(importlib.util.cache_from_source(__file__))
        compiled.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it has other files, or is not there
            compiled.parent.rmdir()
