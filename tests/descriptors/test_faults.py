"""What is wrong with descriptors is said, and what is right is left alone."""

import pytest

from ost.descriptors.faults import class_faults, pack_faults
from ost.descriptors.pack import Pack, PackClass
from ost.types import Templates, TextContext

GOOD = PackClass("sailing", ("a white mast", "a wooden hull"), ("the rope is cast off", "the bow turns"))
WORDS = TextContext(8, lambda text: len(text.split()), Templates("{descriptor}", "{name}: {descriptor}", ""))


def test_good_descriptors_have_no_fault():
    assert class_faults(GOOD, count=2, context=WORDS) == []
    assert pack_faults(Pack("p", (GOOD,)), WORDS) == []


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (PackClass("sailing", ("a mast",), GOOD.temporal), "it has 1 spatial descriptors, not 2"),
        (PackClass("sailing", ("a mast", "A MAST"), GOOD.temporal), "the spatial 'A MAST' stands twice"),
        (PackClass("sailing", ("a mast", "the bow turns"), GOOD.temporal), "'the bow turns' stands twice"),
        (PackClass("sailing", ("a mast", "boats sail"), GOOD.temporal), "says the name of the class"),
        (PackClass("going out", ("a mast", "sails"), GOOD.temporal, "Sailing"), "says the name of the class"),
        (PackClass("sailing", ("a mast", " "), GOOD.temporal), "is empty"),
        (PackClass("sailing", ("a mast", "12 - 3"), GOOD.temporal), "holds no word"),
        (PackClass("sailing", ("a mast", "a\x00b"), GOOD.temporal), "signs that cannot be seen"),
        (PackClass("sailing", ("a mast", "x " * 17), GOOD.temporal), "is longer than 16 words"),
        (PackClass("sailing", ("a mast", "x" * 161), GOOD.temporal), "is longer than"),
        (PackClass("sailing", GOOD.spatial, ("a b c d e f g h", "b")), "a prompt has 9 tokens and the text"),
    ],
)
def test_each_fault_is_named(item, fault):
    context = WORDS if "tokens" in fault else None
    (found,) = class_faults(item, count=2, context=context)
    assert fault in found


def test_texts_that_two_classes_share_are_named_with_both():
    other = PackClass("rowing", ("a white mast", "two oars"), ("the oars dip", "the boat glides"))
    assert pack_faults(Pack("p", (GOOD, other))) == ["rowing: shares the spatial 'a white mast' with sailing"]


def test_a_pack_that_was_edited_after_it_was_written_says_so():
    pack = Pack("p", (GOOD,), provenance={"hash": "0" * 64})
    assert pack_faults(pack) == ["edited since it was written: its hash was 000000000000"]
    assert pack_faults(Pack("p", (GOOD,), provenance={"hash": pack.hash})) == []
    assert pack_faults(pack.select(["sailing"])) == []
