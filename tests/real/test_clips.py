"""The whole way on real clips: what a user would do, with the embedded backbone."""

import csv

import pytest

import ost
from ost.names import fold


@pytest.fixture(scope="module")
def lite():
    return ost.load("lite", frames=4)


def test_a_clip_of_cyclists_is_told_from_indoor_actions(lite, bikes):
    prediction = lite.recognize(bikes, ["riding a bike", "brushing teeth", "washing dishes", "playing piano"])
    assert prediction.top(1)[0].name == "riding a bike"


def test_the_evidence_adds_up_to_the_logit(lite, bikes):
    prediction = lite.recognize(bikes, "everyday")
    for score in prediction.top(3):
        assert prediction.plan(score.name).logit == pytest.approx(score.logit, abs=1e-4)


def test_names_alone_beat_chance_by_far_on_labelled_clips(lite, real_clips):
    with (real_clips / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "ucf101"]
    names = sorted({row["label"] for row in rows})
    results = list(lite.recognize_all([real_clips / row["path"] for row in rows], names))
    hits = sum(fold(r.top(1)[0].name) == fold(row["label"]) for r, row in zip(results, rows, strict=True))
    assert hits >= 3 * len(rows) / len(names)  # three times chance, where a method that is broken has one
