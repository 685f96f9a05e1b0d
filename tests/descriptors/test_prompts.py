"""Templates are filled in word for word."""

import pytest

from ost.descriptors.pack import PackClass
from ost.descriptors.prompts import prompts
from ost.types import Templates

PAPER = Templates(
    spatial="This is a video about {descriptor}",
    temporal="A video of {name} usually includes {descriptor}",
    name="a video of a person {name}.",
)
SAILING = PackClass("sailing", ("a mast", "a hull"), ("casting off", "tacking", "mooring"))


def test_prompts_are_the_papers():
    assert prompts(SAILING, "spatial", PAPER) == (
        "This is a video about a mast",
        "This is a video about a hull",
    )
    assert prompts(SAILING, "temporal", PAPER) == (
        "A video of sailing usually includes casting off",
        "A video of sailing usually includes tacking",
        "A video of sailing usually includes mooring",
    )
    assert prompts(SAILING, "name", PAPER) == ("a video of a person sailing.",)


@pytest.mark.parametrize("kind", ["spatial", "temporal"])
def test_a_class_without_descriptors_has_the_plain_template(kind):
    assert prompts(PackClass("sailing"), kind, PAPER) == ("a video of a person sailing.",)


@pytest.mark.parametrize(
    "text",
    [
        "{descriptor}",
        "{name}",
        "{0}",
        "{",
        "}}",
        "100 %s %(name)s %",
        "\\1 \\g<0>",
        "$name",
        "{{7*7}}",
        "{name!r}",
    ],
)
def test_names_and_descriptors_pass_through_verbatim(text):
    item = PackClass(text, (f"a {text} b",), (f"c {text} d",))
    assert prompts(item, "spatial", PAPER) == (f"This is a video about a {text} b",)
    assert prompts(item, "temporal", PAPER) == (f"A video of {text} usually includes c {text} d",)
    assert prompts(item, "name", PAPER) == (f"a video of a person {text}.",)
