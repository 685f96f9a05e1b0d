"""How a text tower reads: its context length, tokenizer and templates, without its weights."""

from __future__ import annotations

from ost.backbones.catalog import DEFAULT
from ost.backbones.names import check_backbone
from ost.errors import UsageError
from ost.types import TextContext


def text_context(name: str | None = None) -> TextContext:
    """What the backbone of that name reads; nothing is downloaded but, for some, the tokenizer.

    Raises:
        UsageError: there is no such backbone.
        WeightsError: its tokenizer cannot be fetched.
    """
    title = name or DEFAULT
    check_backbone(title)
    from ost.backbones.resolve import find_spec

    spec = find_spec(title)
    if spec is None:
        raise UsageError(f"there are no weights of {title!r} on the hub that open_clip knows")
    return spec.text_context(title)
