"""Look up the context length, tokenizer and templates of a text tower without its weights."""

from __future__ import annotations

from ost.backbones.catalog import DEFAULT
from ost.backbones.names import check_backbone
from ost.errors import UsageError
from ost.types import TextContext


def text_context(name: str | None = None) -> TextContext:
    """Return what the backbone's text tower reads; at most its tokenizer is downloaded.

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
