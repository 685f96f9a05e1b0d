"""Two spellings of one class, and a text that says a name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ost.descriptors.names import FUNCTION_WORDS, readable, says, stems
from ost.names import fold


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("walking the dog", "WalkDog"),
        ("walking the dog", "walks a dog"),
        ("pour", "pouring"),
        ("brush_hair", "brushing hair"),
        ("riding a bike", "RideBike"),
        ("making cakes", "make a cake"),
    ],
)
def test_inflections_of_a_name_have_the_same_stems(first, second):
    assert stems(first) == stems(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("pouring something into something", "pouring something out of something"),
        ("pulling something from left to right", "pulling something from right to left"),
        ("sit", "situp"),
        ("run", "runner"),
        ("playing guitar", "playing bass guitar"),
        ("dog walking", "walking the dog"),
    ],
)
def test_other_names_have_other_stems(first, second):
    assert stems(first) != stems(second)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a golfer plays golf on a lawn", "playing golf"),
        ("GOLF on a lawn", "golf"),
        ("brushed hair beside a mirror", "brush hair"),
        ("two people fence", "fencing (sport)"),
        ("someone holds a cup", "Holding something"),
        ("hair is brushing", "brush"),
    ],
)
def test_a_text_says_a_name_in_any_inflection(text, name):
    assert says(text, name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("two opposite walls", "sit"),
        ("a guitar on a stand to be played", "playing guitar"),
        ("golfer on a lawn", "golf"),
        ("brush beside long hair", "brushing hair and teeth"),
        ("anything at all", "something"),
        ("anything at all", "(in brackets)"),
    ],
)
def test_a_text_that_only_resembles_a_name_does_not_say_it(text, name):
    assert not says(text, name)


@given(st.text(), st.text())
def test_any_text_can_be_compared(text, name):
    assert says(text, name) in (True, False)


WORDS = st.lists(st.from_regex(r"[a-z]{3,9}", fullmatch=True), min_size=1, max_size=4).map(" ".join)


@given(WORDS, WORDS, WORDS)
def test_a_text_says_every_name_that_stands_in_it(before, name, after):
    assert says(f"{before} {name} {after}", name) or not stems(name, FUNCTION_WORDS)


@given(st.text())
def test_a_spelling_and_its_readable_form_have_one_key(label):
    assert fold(readable(label)) == fold(label)
