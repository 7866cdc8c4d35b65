"""How a bundle is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bundlefs.base.errors import BundleError


@contextmanager
def refusing(reason: str) -> Iterator[None]:
    """Require that a bundle is refused for `reason`, in one line that a person can read."""
    with pytest.raises(BundleError, match=reason) as caught:
        yield
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
