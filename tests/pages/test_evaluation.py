"""The page of an evaluation: what it shows is what was measured, and what strangers wrote is text."""

import base64
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from ost.datasets.manifest import LabelledVideo
from ost.descriptors.pack import Pack, PackClass
from ost.evaluate.config import EvaluateConfig
from ost.evaluate.lists import EvaluationList
from ost.evaluate.measure import measure
from ost.evaluate.protocols import OWN_PROTOCOL, PROTOCOLS
from ost.evaluate.task import EvaluationTask
from ost.pages.evaluation import ALL_CLASSES, CLASSES, GROUPS, render_evaluation

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }} $x_1$ & café 東京")


class Parsed(HTMLParser):
    """Tags with their attributes, and the text outside of style."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self._skip = [], [], 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._skip += tag == "style"

    def handle_endtag(self, tag):
        self._skip -= tag == "style"

    def handle_data(self, data):
        if not self._skip:
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def measured(backbone, tiny_videos, tmp_path):
    """What comes of some videos of each of these classes."""

    def make(
        names=HOSTILE, lists=1, per_class=4, protocol=OWN_PROTOCOL, own_classes=False, broken=(), **settings
    ):
        video_lists = []
        for number in range(lists):
            classes = [f"{name} {number}" for name in names] if own_classes else list(names)
            items = [
                PackClass(name, (f"a {name}", "a cup"), (f"it {i}", "it ends"))
                for i, name in enumerate(classes)
            ]
            clips = []
            for a, name in enumerate(classes):
                for k in range(per_class):
                    path = tmp_path / f"{number}-{a}-{k}.mp4"
                    shutil.copy(tiny_videos[(a * k) % 3], path)
                    clips.append(LabelledVideo(path, name))
            for name in broken:
                (tmp_path / name).write_text("no video")
                clips.append(LabelledVideo(tmp_path / name, classes[0]))
            video_lists.append(
                EvaluationList(f"list {number}", Pack("made", tuple(items)), clips, ("gone.mp4",))
            )
        config = EvaluateConfig(frames=2, videos=tmp_path, **settings)
        return measure(EvaluationTask(config, protocol, video_lists), backbone)

    return make


def test_the_page_is_one_file_without_script_or_foreign_address(measured):
    html = render_evaluation(measured())
    page = Parsed(html)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "link", "object", "form", "base")]
    assert "default-src 'none'" in html
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert all(attributes.get(name, "data:").startswith("data:") for name in ("src", "href"))
    assert all(url.startswith("data:image/jpeg") for url in re.findall(r"url\(([^)]*)\)", html))


def test_what_strangers_wrote_is_text_and_nothing_else(measured):
    page = Parsed(render_evaluation(measured(broken=["<b>bad</b>\udcff.mp4".replace("/", "")])))
    for name in HOSTILE:
        assert name in page.words
    assert "49 $x_1$" not in page.words
    assert ("img", {"src": "x", "onerror": "alert(2)"}) not in page.tags
    assert "<b>bad<b>" in page.words


def test_class_names_in_the_matrix_are_escaped(measured):
    (matrix,) = [a["src"] for tag, a in Parsed(render_evaluation(measured())).tags if tag == "img"]
    svg = base64.b64decode(matrix.partition(",")[2]).decode()
    assert "<script>" not in svg and "&lt;script&gt;" in svg


def test_the_numbers_are_those_that_were_measured(measured):
    found = measured(ablate=True)
    page = Parsed(render_evaluation(found))
    for what, numbers in found.summaries().items():
        assert what in page.words
        assert f"{numbers.top1.mean:.1%}" in page.words
    for name, share in found.lists[0].by_class().items():
        assert f"{name} 4 as asked {share:.1%}" in page.words
    assert "gone.mp4 : is in the list and not there" in page.words.replace(" :", " :")


def test_examples_are_right_one_way_and_wrong_the_other(measured):
    found = measured()
    own, other = found.lists[0], found.baseline[0]
    wins = int((own.right(1) & ~other.right(1)).sum())
    losses = int((other.right(1) & ~own.right(1)).sum())
    assert wins or losses, "else this shows nothing"
    words = Parsed(render_evaluation(found)).words
    assert ("Where descriptors and transport win" in words) == bool(wins)
    assert ("Where they lose" in words) == bool(losses)
    assert "Transport plan" in words


def test_mean_pooling_alone_has_neither_baseline_nor_examples(measured):
    words = Parsed(render_evaluation(measured(match="mean"))).words
    assert "win" not in words.split() and "baseline" not in words.split()


def test_every_picture_of_an_example_is_on_the_page(measured):
    html = render_evaluation(measured())
    used = set(re.findall(r'class="frame (e\d-\d+-\d+)"', html))
    carried = set(re.findall(r"\.(e\d-\d+-\d+) \{ background-image", html))
    assert used and used <= carried


def test_many_classes_are_cut_to_those_that_changed_most(measured):
    names = [f"class {i:02d}" for i in range(ALL_CLASSES + 5)]
    words = Parsed(render_evaluation(measured(names, per_class=1))).words
    assert f"⋮ {len(names) - 2 * CLASSES} classes between" in words
    assert all(name in words for name in names), "all of them are there to be unfolded"


def test_lists_of_the_same_classes_are_drawn_as_one_and_others_apart(measured):
    same = Parsed(render_evaluation(measured(lists=3)))
    assert same.words.count("Class by class") == 1
    apart = Parsed(render_evaluation(measured(lists=GROUPS + 2, own_classes=True)))
    assert apart.words.count("Class by class") == GROUPS
    assert "2 more lists" in apart.words


def test_published_numbers_are_beside_the_measured_ones(measured, printed):
    words = Parsed(render_evaluation(measured(protocol=PROTOCOLS["zero-shot/hmdb51"]))).words
    assert words.count("published, ") == 5
    for who, number in printed("zero-shot/hmdb51").items():
        assert f"published, {who} {number}" in words


def test_a_matrix_of_many_classes_has_no_names_beside_it(measured):
    from ost.pages.evaluation import LABELLED, draw_matrix

    names = tuple(f"class {i}" for i in range(LABELLED + 1))
    svg = base64.b64decode(draw_matrix(np.eye(len(names), dtype=int), names).partition(",")[2]).decode()
    assert "class 7" not in svg and "taken for" in svg
