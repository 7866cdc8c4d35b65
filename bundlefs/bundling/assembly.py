"""The one place that puts bundles together, and takes them apart in the right order.

A bundle needs an image, a recipe, a state, and an engine: threads that make its blocks and a
store that keeps them. One engine serves all bundles of a mount, and their images and states come
and go. At the end of all, each waits for those who use it:

1. the bundles, which their owners close: whoever waits for bytes is told;
2. the threads, which read the images and fill the store;
3. the store;
4. the states, which are saved, and the images. A read that storage does not answer may still
   hang in an image, and then nobody waits until that is closed.

Concurrency: each number is opened and let go of by one thread at a time; two numbers by any.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from bundlefs.base.threads import closed_in_time
from bundlefs.base.workers import Workers
from bundlefs.bundling.recipe import Recipe
from bundlefs.bundling.store import Store
from bundlefs.image.source import Source
from bundlefs.state.memory import State

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Engine:
    """What makes and keeps the blocks."""

    workers: Workers
    store: Store


Make = Callable[[Source, Recipe, Engine, State], B]
"""Makes a bundle, such as `Bundle` itself."""

Prepare = Callable[[Source, ExitStack], tuple[Recipe, State]]
"""Says what is made of an image that has been opened; what it enters ends before the image."""


class Assembly:
    """An engine, and the images and states of all bundles on it. A context manager.

    Args:
        engine: it belongs to the assembly from now on.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[int, ExitStack] = {}

    def bundle(
        self,
        make: Make[B],
        open_image: Callable[[], Source],
        prepare: Prepare,
        number: int = 0,
    ) -> B:
        """Open an image and make its bundle, which the caller closes. It can take minutes.

        Args:
            make: makes the bundle.
            open_image: opens the image, which belongs to the assembly then.
            prepare: gives the recipe and the state.
            number: of the bundle in the store, its own for as long as the assembly lasts.
        """
        with ExitStack() as held:
            image = open_image()
            held.callback(self._close_image, image)
            recipe, state = prepare(image, held)
            bundle = make(image, recipe, self._engine_of(number), state)
            self._open[number] = held.pop_all()
        return bundle

    def _engine_of(self, number: int) -> Engine:
        workers, store = self._engine.workers, self._engine.store
        return Engine(workers, store.share(number) if number else store)

    def _close_image(self, image: Source) -> None:
        """Let go of an image, unless a read of some image still hangs: it may hang as well."""
        closed_in_time(image.close, patient=self._engine.workers.ended)

    def let_go(self, number: int, *, for_good: bool) -> None:
        """Close the image and the state of a bundle that is closed; its blocks too, `for_good`."""
        self._open.pop(number, ExitStack()).close()
        if for_good:
            self._engine_of(number).store.drop()

    def close(self) -> None:
        """End the engine, then the states and images that are left. Again does nothing."""
        with ExitStack() as ends:
            for held in list(self._open.values()):
                ends.enter_context(held)
            ends.enter_context(closing(self._engine.store))
            ends.enter_context(self._engine.workers)
        self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
