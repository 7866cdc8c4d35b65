"""What the mount shows that several modules of this folder share, and how it refuses."""

import pytest

NAMES = [
    "image.cn-north-1.manifest.xml",
    "image.manifest.xml",
    "image.part.00",
    "image.part.01",
    "image.part.02",
]
every_name = pytest.mark.parametrize("name", NAMES)


def fails_with(*numbers: int) -> "pytest.RaisesExc[OSError]":
    """Expect an error of one of these numbers."""
    return pytest.raises(OSError, check=lambda error: error.errno in numbers)
