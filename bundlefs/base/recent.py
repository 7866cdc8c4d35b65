"""What is costly to make: the last used of it is kept in memory.

Concurrency: any thread may ask. One lock guards what is kept, and each thing that is being made
has a lock of its own, so that nothing is made twice at a time and nobody waits for another thing.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Recent(Generic[K]):
    """Bytes by key, each made when it is first needed; the last `most` used ones are kept."""

    def __init__(self, most: int, make: Callable[[K], bytes]) -> None:
        self._most = most
        self._make = make
        self._lock = threading.Lock()
        self._kept: OrderedDict[K, bytes] = OrderedDict()
        self._making: dict[K, threading.Lock] = {}

    def get(self, key: K) -> bytes:
        """Return the bytes of a key, or raise what making them raises."""
        with self._lock:
            found = self._found(key)
            if found is not None:
                return found
            making = self._making.setdefault(key, threading.Lock())
        # The kernel reads ahead in many requests at a time: one of them makes what all wait for.
        with making:
            with self._lock:
                found = self._found(key)
            return self._made(key) if found is None else found

    def _found(self, key: K) -> bytes | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def _made(self, key: K) -> bytes:
        made = self._make(key)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            self._making.pop(key, None)
        return made
