"""Catalogs: mappings from name to spec that include plug-ins and suggest near misses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from ost.errors import UsageError, first_line

T = TypeVar("T")


class Catalog(Mapping[str, T], Generic[T]):
    """An immutable `name -> spec` mapping, extended by entry points.

    Args:
        kind: the noun for one entry ("backbone"); used in error messages.
        entries: the entries that ship with the package.
        group: entry-point group from which other distributions add entries; a plug-in
            is imported only when its name is looked up.
    """

    def __init__(self, kind: str, entries: Mapping[str, T], group: str | None = None) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._plugins: dict[str, EntryPoint] = {}
        if group:
            for point in entry_points(group=group):
                self._plugins.setdefault(point.name, point)

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        if name in self._plugins:
            return self._load_plugin(name)
        raise KeyError(name)

    def _load_plugin(self, name: str) -> T:
        point = self._plugins[name]
        try:
            return point.load()
        except Exception as error:
            source = point.dist.name if point.dist else point.value
            raise UsageError(
                f"the {self.kind} {name!r} of {source} cannot be loaded ({first_line(error)})"
            ) from error

    def __iter__(self) -> Iterator[str]:
        yield from self._entries
        yield from (name for name in self._plugins if name not in self._entries)

    def __len__(self) -> int:
        return len(set(self._entries) | set(self._plugins))

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._plugins

    def find(self, name: str) -> T:
        """Return the entry called `name`.

        Raises:
            UsageError: there is none; the message suggests the nearest names.
        """
        if name in self:
            return self[name]
        raise UsageError(f"there is no {self.kind} called {name!r}{did_you_mean(name, self)}")


def did_you_mean(name: str, known: Mapping[str, object] | Sequence[str]) -> str:
    """Return the tail of an error message: near misses of `name`, or the first few known names."""
    if candidates := near_misses(name, known):
        return "; did you mean " + " or ".join(map(repr, candidates)) + "?"
    examples = sorted(known)[:8]
    return f"; known are {', '.join(examples)}{', ...' if len(known) > 8 else ''}" if examples else ""


def near_misses(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names most similar to this one, ignoring case; none if none is similar."""
    folded = {candidate.casefold(): candidate for candidate in known}
    return [folded[hit] for hit in difflib.get_close_matches(name.casefold(), folded, n=most, cutoff=0.6)]
