"""What is computed once, even if several threads ask for it at the same time: a property, a value of an object."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any, Generic, TypeVar, overload
from weakref import ref

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


class PerObject(Generic[T]):
    """A value for each object, by identity, for as long as the object lives; several threads get the same one."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock = make, RLock()
        self._values: dict[int, tuple[ref[Any], T]] = {}

    def get(self, item: object) -> T:
        """Return the value of an object; a new one each time for objects that allow no weak references."""
        key = id(item)
        with self._lock:
            if key not in self._values:
                try:
                    self._values[key] = (ref(item, lambda _: self._values.pop(key, None)), self._make())
                except TypeError:
                    return self._make()
            return self._values[key][1]
