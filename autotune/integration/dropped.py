"""What becomes of things whose owner nobody holds any more."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from autotune.domain.errors import UserError

Given = ParamSpec("Given")
Result = TypeVar("Result")


def end_with(owner: object, end: Callable[[], None]) -> None:
    """Have ``end`` called when nobody holds ``owner`` any more; it must not hold it itself.

    In a thread of its own: whoever drops the owner may have any lock. A program that ends does
    not wait for it.
    """
    weakref.finalize(owner, _start, end).atexit = False


def _start(end: Callable[[], None]) -> None:
    threading.Thread(target=end, name="autotune-dropped", daemon=True).start()


def weakly(method: Callable[Given, Result]) -> Callable[Given, Result]:
    """A bound method without its hold on its owner. Raises UserError where that is gone."""
    find = weakref.WeakMethod(method)

    def call(*args: Given.args, **options: Given.kwargs) -> Result:
        found = find()
        if found is None:
            raise UserError("the manager of this queue is gone: keep it as long as it is asked")
        return found(*args, **options)

    return call
