"""Prompts: the sentences, made from names and descriptors, that a text tower embeds."""

from __future__ import annotations

from ost.descriptors.pack import PackClass
from ost.types import Kind, Templates


def prompts(item: PackClass, kind: Kind, templates: Templates) -> tuple[str, ...]:
    """Return the prompts of one class and kind; without descriptors of that kind, the prompt of its name alone."""
    descriptors: tuple[str, ...] = () if kind == "name" else getattr(item, kind)
    if not descriptors:
        return (_fill(templates.name, item.name, ""),)
    template: str = getattr(templates, kind)
    return tuple(_fill(template, item.name, descriptor) for descriptor in descriptors)


def _fill(template: str, name: str, descriptor: str) -> str:
    # Not str.format: a name may hold braces.
    parts = template.split("{descriptor}")
    return descriptor.join(part.replace("{name}", name) for part in parts)
