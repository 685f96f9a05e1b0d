"""A property that is computed once, also when several threads ask for it at the same time."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, RLock
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")
_creating = Lock()


class once(Generic[T]):
    """`functools.cached_property` with a lock for each object: since Python 3.12 that has none.

    Its value lies in the object's `__dict__` under its name, as with `cached_property`.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute, self.name = compute, compute.__name__
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
            with _lock_of(values):
                if self.name not in values:
                    values[self.name] = self.compute(instance)
        return values[self.name]


def _lock_of(values: dict[str, Any]) -> Any:
    with _creating:
        return values.setdefault("_once_lock", RLock())
