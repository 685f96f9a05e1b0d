"""The ways of matching, held against the settings they come from."""

import math

import pytest

from ost.evaluate.ways import MEAN_POOL, TEXTS, ablation, way_of
from ost.recognition.recognizer import Settings

KINDS = [("spatial",), ("temporal",), ("spatial", "temporal"), ("temporal", "spatial")]


@pytest.mark.parametrize("kinds", KINDS, ids="+".join)
@pytest.mark.parametrize("eps", [1e-3, 0.1, 5.0, math.inf])
def test_a_way_matches_as_its_settings_do(kinds, eps):
    settings = Settings(kinds=kinds, eps=eps)
    way = way_of(settings)
    assert (way.match, set(way.kinds), way.weight) == ("ot", set(kinds), eps)
    assert way.matched == ("mean" if eps == math.inf else "transport")


@pytest.mark.parametrize("kinds", KINDS, ids="+".join)
@pytest.mark.parametrize("eps", [0.1, math.inf])
def test_mean_pool_settings_are_one_way_whatever_else_they_say(kinds, eps):
    settings = Settings(match="mean", kinds=kinds, eps=eps, frames=3, clips=2)
    assert way_of(settings) == MEAN_POOL
    assert (MEAN_POOL.match, MEAN_POOL.kinds) == ("mean", settings.matched)


def test_the_order_of_kinds_and_what_is_looked_at_make_no_other_way():
    assert len({way_of(Settings(kinds=kinds)) for kinds in KINDS}) == 3
    assert way_of(Settings(frames=3, clips=2, crops=3, sampling="keyframes")) == way_of(Settings())


@pytest.mark.parametrize("eps", [0.1, 2.0, math.inf])
def test_the_ablation_is_eight_ways_with_the_usual_one_and_the_baseline(eps):
    ways = ablation(eps)
    assert len(ways) == len(set(ways)) == len(set(map(str, ways))) == 8
    assert {way_of(Settings(eps=eps)), MEAN_POOL} <= set(ways)
    assert ablation() == ablation(Settings().eps)


def test_the_ablation_transports_and_averages_every_kind_of_texts():
    ways = ablation(0.3)
    for texts in TEXTS:
        averaged, transported = (way for way in ways if way.texts == texts)
        assert transported.matched == "transport" and transported.weight == 0.3
        assert averaged == MEAN_POOL or averaged.weight == math.inf
        assert averaged.kinds == transported.kinds
