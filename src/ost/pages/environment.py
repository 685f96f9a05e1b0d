"""How templates become pages.

What strangers wrote (names, descriptors, paths, notices) reaches a page through jinja2's escaping and no other way; the
content security policy of every page forbids scripts and foreign addresses besides.
"""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_environment() -> Environment:
    """The templates of pages; all that they are given is escaped."""
    environment = Environment(
        loader=PackageLoader("ost.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["number"] = number
    return environment


def percent(probability: float) -> str:
    """A probability with one decimal, never rounded to certainty or to impossibility."""
    if probability < 0.0005:
        return "< 0.1%"
    if probability >= 0.9995:
        return "100%" if probability == 1 else "> 99.9%"
    return f"{probability:.1%}"


def number(value: float, places: int = 2) -> str:
    """A number with a minus sign that is one, and none before zero."""
    text = f"{value:.{places}f}"
    return text[1:] if float(text) == 0 and text.startswith("-") else text.replace("-", "−")
