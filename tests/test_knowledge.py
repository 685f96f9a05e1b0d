"""What goes into the questions, and what the text towers read."""

import pytest

from ost.backbones.tokens import text_context
from ost.descriptors.shipped import shipped_pack
from ost.errors import UsageError
from ost.knowledge import neighbours, question


def test_neighbours_are_the_classes_that_mean_something_similar():
    near = neighbours(shipped_pack("ucf101").names, 3)
    assert "swimming front crawl" in near["swimming breaststroke"]
    assert "discus throw" in near["hammer throw"]
    assert all(name not in others for name, others in near.items())
    assert all(len(others) <= 3 for others in near.values())


def test_classes_that_have_nothing_in_common_are_no_neighbours():
    assert neighbours(("pouring tea", "archery")) == {"pouring tea": (), "archery": ()}
    assert neighbours(("alone",)) == {"alone": ()}


def test_a_question_holds_the_setting_on_one_line():
    asked = question(shipped_pack("everyday"), setting=" kitchen,\n  fixed camera ")
    assert "filmed: kitchen, fixed camera\n" in asked.messages("drinking")[1]["content"]


@pytest.mark.parametrize(
    ("name", "limit", "text", "tokens"),
    [
        (None, 77, "a cup", 4),
        ("ViT-B-32/openai", 77, "a cup", 4),
        ("PE-Core-B-16/meta", 32, "a cup", 4),
        ("lite", 256, "a cup", 4),
    ],
)
def test_a_text_tower_is_read_without_its_weights(name, limit, text, tokens):
    context = text_context(name)
    assert (context.limit, context.count(text)) == (limit, tokens)
    assert "{descriptor}" in context.templates.spatial


def test_an_unknown_backbone_is_answered_with_near_ones():
    with pytest.raises(UsageError, match="there is no backbone 'PE-Core-B-61/meta'; did you mean"):
        text_context("PE-Core-B-61/meta")
