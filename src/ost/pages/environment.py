"""The jinja2 environment and filters of the pages.

Untrusted text (names, descriptors, paths, notices) reaches a page only through jinja2's escaping. As a second defence,
the content security policy of every page forbids scripts and external addresses.
"""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_environment() -> Environment:
    """Return the environment of the page templates, which escapes every value."""
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
    """Format a probability with one decimal, never rounded to 0% or 100%."""
    if probability < 0.0005:
        return "< 0.1%"
    if probability >= 0.9995:
        return "100%" if probability == 1 else "> 99.9%"
    return f"{probability:.1%}"


def number(value: float, places: int = 2) -> str:
    """Format a number with a typographic minus sign, and none before zero."""
    text = f"{value:.{places}f}"
    return text[1:] if float(text) == 0 and text.startswith("-") else text.replace("-", "−")
