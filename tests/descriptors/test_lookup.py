"""Names find the descriptors of the class they mean, and nothing is taken that only resembles."""

import pytest

from ost.descriptors.lookup import join, nearest
from ost.descriptors.shipped import shipped_pack
from ost.descriptors.spec import resolve
from ost.errors import PackError


def test_the_names_of_the_issue_are_found():
    pack = resolve("archery, pouring, walking the dog")
    assert pack.names == ("archery", "pouring", "walking the dog")
    assert all(len(item.spatial) == len(item.temporal) == 4 for item in pack.classes)
    assert pack.notices == ()


@pytest.mark.parametrize("name", ["walk a dog", "Walks the dogs", "walked_dog"])
def test_an_inflection_is_taken_under_the_users_name_and_that_is_said(name):
    pack = resolve([name, "archery"])
    assert pack.classes[0].spatial == shipped_pack("k400").find("walking the dog").spatial or (
        pack.classes[0].spatial == shipped_pack("anet").find("walking the dog").spatial
    )
    assert pack.names[0] == name.replace("_", " ")
    (notice,) = pack.notices
    assert notice.startswith("descriptors taken from the same class in other words: ")
    assert "walking the dog" in notice


def test_a_spelling_wins_over_an_inflection():
    """HMDB-51 labels a class "pour", and its own pack knows it under that spelling."""
    assert resolve(["pour", "archery"]).notices == ()


def test_a_label_of_a_benchmark_finds_its_class():
    pack = resolve(["ApplyEyeMakeup", "YoYo"])
    assert pack.names == ("applying eye makeup", shipped_pack("ucf101").find("YoYo").name)


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "k400", "ssv2", "anet"])
def test_a_list_of_a_benchmarks_labels_gets_that_benchmarks_descriptors(name):
    whole = shipped_pack(name)
    pack = join(name, [item.label or item.name for item in whole.classes])
    assert [(item.spatial, item.temporal) for item in pack.classes] == [
        (item.spatial, item.temporal) for item in whole.classes
    ]
    assert pack.notices == ()


def test_a_name_keeps_the_users_words():
    pack = resolve("dodgeball, BRUSH HAIR, Riding-A-Bike")
    assert pack.names == ("dodgeball", "BRUSH HAIR", "riding a bike")
    assert all(item.spatial for item in pack.classes)


def test_of_several_packs_that_know_a_name_the_one_that_knows_most_of_the_list_is_taken():
    shared = {"archery", "knitting"}
    for name, others in (
        ("k400", ["abseiling", "air drumming"]),
        ("anet", ["playing congas", "bullfighting", "starting a campfire"]),
    ):
        found = join("mine", [*shared, *others]).classes
        assert [item.spatial for item in found] == [
            shipped_pack(name).find(wanted).spatial for wanted in [*shared, *others]
        ]


def test_a_near_name_is_shown_and_never_taken():
    pack = resolve("archrey, washing the dishes, zorbing")
    unknown = pack.classes[0]
    assert (unknown.name, unknown.spatial) == ("archrey", ())
    plain, near, advice = pack.notices[-3:]
    assert plain.endswith("matched by name alone: archrey, zorbing")
    assert near.startswith("near names, not taken: archrey: is 'archery' (")
    assert "zorbing" not in near
    assert "ost describe" in advice


def test_a_name_like_nothing_gets_no_suggestion():
    assert nearest("zorbing qqqq") is None
    pack = resolve("qqqq,xxxx")
    assert len(pack.notices) == 2


def test_two_names_of_one_class_are_refused():
    with pytest.raises(PackError, match="'walks the dog' and 'walking the dog' are one class in other words"):
        resolve(["walking the dog", "walks the dog"])


@pytest.mark.parametrize("name", ["", "the", "???", "🤸", "走る", "a" * 5000])
def test_any_name_has_a_nearest_or_none(name):
    hit = nearest(name)
    assert hit is None or len(hit) == 2
