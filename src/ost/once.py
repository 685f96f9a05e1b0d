"""A property that is computed once, even if several threads read it at the same time."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class once(Generic[T]):
    """`functools.cached_property` with a lock, which it lacks since Python 3.12.

    The value is stored in the object's `__dict__` under its name, as with `cached_property`.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute, self.name, self._lock = compute, compute.__name__, RLock()
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> once[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> once[T] | T:
        if instance is None:
            return self
        values = vars(instance)
        if self.name not in values:
            with self._lock:
                if self.name not in values:
                    values[self.name] = self.compute(instance)
        return values[self.name]
