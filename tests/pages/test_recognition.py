"""The page: synthetic predictions in, HTML out, read back with a parser."""

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

import ost
from ost.errors import UsageError
from ost.pages.recognition import LISTED, render_page, save_page
from ost.recognition.prediction import Model, Prediction, rank
from ost.recognition.settings import Settings
from ost.types import ClassHead, Descriptors, FrameEmbeddings, Frames, Seconds
from ost.video.thumbnails import thumbnails
from ost.weights.pixels import clip_preprocess

WIDTH = 16
HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' style='background:url(http://evil.example)",
    "</style></title></svg><script>alert(1)</script>",
    "{{ 7 * 7 }} {% include 'x' %} &amp; --> ]]>",
    "javascript:alert(1)",
)


pytestmark = pytest.mark.usefixtures("one_thread")


class Page(HTMLParser):
    """Tags with attributes, and the text inside each kind of tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))

    def of(self, tag):
        """Attributes of all such tags."""
        return [attrs for name, attrs in self.tags if name == tag]

    def inside(self, tag):
        """Texts directly inside such tags."""
        return [text for stack, text in self.texts if stack and stack[-1][0] == tag]

    def panel(self, number):
        """Texts of one class's evidence with the tag around each."""
        found = [(stack, text) for stack, text in self.texts if ("id", f"class-{number}") in pairs(stack)]
        return [(stack[-1][0], text) for stack, text in found]


def pairs(stack):
    return [pair for _, attrs in stack for pair in attrs.items()]


def a_prediction(
    classes=3,
    frames=6,
    descriptors=4,
    clips=1,
    crops=1,
    kinds=("spatial", "temporal"),
    match="ot",
    eps=0.1,
    names=None,
    texts=None,
    times=None,
    mask=None,
    **changes,
):
    """A prediction over random embeddings; picture i has the grey value 8 * i."""
    generator = torch.Generator().manual_seed(classes * 1000 + frames * 10 + descriptors)
    names = names or tuple(f"class {a}" for a in range(classes))
    kinds = ("name",) if match == "mean" else kinds
    wide = 1 if match == "mean" else descriptors
    total = clips * frames

    def embedded(*shape):
        return normalize(torch.randn(*shape, WIDTH, generator=generator), dim=-1)

    def of_kind(kind):
        rows = texts or (lambda a, n, kind: f"{kind} text {n} of {names[a]}")
        return Descriptors(
            values=embedded(classes, wide),
            mask=torch.ones(classes, wide, dtype=torch.bool),
            texts=tuple(tuple(rows(a, n, kind) for n in range(wide)) for a in range(classes)),
        )

    head = ClassHead(names, {kind: of_kind(kind) for kind in kinds}, 10.0, "c" * 64)
    embeddings = FrameEmbeddings(embedded(clips * crops, frames), torch.ones(clips * crops, frames), mask)
    scores = ost.match(embeddings, head, match=match, kinds=kinds, eps=eps)
    grey = (8 * np.arange(total)).astype(np.uint8)
    sampled = Frames(
        pixels=np.broadcast_to(grey[:, None, None, None], (total, 36, 64, 3)).copy(),
        times=tuple(times or (0.5 * i for i in range(total))),
        path="/videos/a clip.mp4",
        clips=clips,
        decoded=250,
    )
    given = {
        "path": "/videos/a clip.mp4",
        "classes": rank(scores),
        "model": Model("ViT-B-16/openai", "a" * 64, "f" * 64, "float32", clip_preprocess(224)),
        "pack_hash": "b" * 64,
        "settings": Settings(frames, match=match, eps=eps),
        "seconds": Seconds(0.25, 1.5, 0.125),
        "notices": (),
        "sample": sampled.sample,
        "thumbnails": thumbnails(sampled),
        "embeddings": embeddings,
        "head": head,
    }
    return Prediction(**{**given, **changes})


def cells(page, number=0):
    """The numbers in a class's heat maps, row by row."""
    return [float(text) for tag, text in page.panel(number) if tag == "td"]


def greys(html):
    """Grey values of the pictures in the page, in order."""
    images = re.findall(r"background-image: url\(data:image/jpeg;base64,([A-Za-z0-9+/=]+)\)", html)
    return [int(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).mean().round()) for data in images]


def words(html):
    """All text of a page, blanks folded."""
    return " ".join(" ".join(text for _, text in Page(html).texts).split())


@pytest.mark.parametrize("frames", [4, 32])
@pytest.mark.parametrize("match", ["ot", "mean"])
def test_the_page_is_one_file_without_foreign_address_or_script(frames, match):
    html = render_page(a_prediction(frames=frames, match=match))
    page = Page(html)
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", html), re.IGNORECASE)
    assert not {"link", "script", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    assert not [a for _, attrs in page.tags for a in attrs if a in ("src", "href") or a.startswith("on")]
    assert set(re.findall(r"url\((.{11})", html)) == {"data:image/"}
    assert "default-src 'none'" in html


def test_what_strangers_wrote_is_text_and_nothing_else():
    plain = a_prediction(
        classes=6, names=tuple("abcdef"), texts=lambda a, n, kind: f"t {n}", notices=("n",) * 6, path="/p/q"
    )
    hostile = a_prediction(
        classes=6,
        names=HOSTILE,
        texts=lambda a, n, kind: f"{n} {HOSTILE[a]}",
        notices=HOSTILE,
        path="/tmp/" + HOSTILE[0].replace("/", "") + "\udcff",
        model=Model(HOSTILE[0], "a" * 64, "f" * 64, "float32", clip_preprocess(224)),
    )
    html = render_page(hostile)
    page, reference = Page(html), Page(render_page(plain))
    assert sorted(tag for tag, _ in page.tags) == sorted(tag for tag, _ in reference.tags)
    assert {a for _, attrs in page.tags for a in attrs} == {a for _, attrs in reference.tags for a in attrs}
    shown = words(html)
    assert all(" ".join(name.split()) in shown for name in HOSTILE)
    assert "49" not in re.findall(r"<bdi>(.*?)</bdi>", html)


def test_a_path_that_is_not_unicode_is_saved(tmp_path):
    place = tmp_path / "why.html"
    save_page(a_prediction(path="/videos/\udcff.mp4"), place)
    assert "/videos/?.mp4" in place.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["why.html"]


@pytest.mark.parametrize("classes", [1, 2, LISTED, LISTED + 1, LISTED + 7])
def test_every_listed_class_has_a_choice_and_a_section(classes):
    prediction = a_prediction(classes=classes, frames=3, descriptors=2)
    html = render_page(prediction)
    page = Page(html)
    listed = prediction.top(LISTED)
    assert len(page.of("input")) == len(page.of("article")) == len(listed)
    assert ["checked" in attrs for attrs in page.of("input")] == [i == 0 for i in range(len(listed))]
    for i, score in enumerate(listed):
        assert page.of("article")[i] == {
            "class": "panel",
            "id": f"class-{i}",
            "aria-label": f"Evidence for {score.name}",
        }
        assert f"body:has(#pick-{i}:checked) #class-{i}" in html
        assert score.name in [text for _, text in page.panel(i)]
    left = classes - len(listed)
    assert (f"and {left} more class" in html) == (left > 0)


@pytest.mark.parametrize(("frames", "descriptors"), [(1, 2), (6, 4), (32, 3), (40, 2)])
def test_the_cells_are_the_plan_over_the_even_share(frames, descriptors):
    prediction = a_prediction(frames=frames, descriptors=descriptors)
    page = Page(render_page(prediction))
    for i, score in enumerate(prediction.classes):
        plan = prediction.plan(score.name).plan
        expected = torch.cat([(plan[kind] * frames * descriptors).T.flatten() for kind in plan])
        torch.testing.assert_close(torch.tensor(cells(page, i)), expected, atol=0.00501, rtol=0)
    assert np.mean(cells(page)) == pytest.approx(1, abs=0.005)


def test_colours_are_symmetric_around_the_even_share_and_the_legend_tells_their_range():
    prediction = a_prediction(frames=12)
    page = Page(render_page(prediction))
    largest = max(p.max().item() * p.numel() for p in prediction.plan().plan.values())
    legend = next(
        text for text in (a.get("aria-label", "") for a in page.of("div")) if "Colour scale" in text
    )
    assert f"from {1 / largest:.2f} times" in legend
    assert f"to {largest:.2f} times" in legend
    levels = [int(attrs["class"].split()[0][1:]) for attrs in page.of("td")][: len(cells(page))]
    assert all(
        level == 6 + round(6 * max(-1, math.log(ratio) / math.log(largest)))
        for level, ratio in zip(levels, expected_ratios(prediction), strict=True)
    )


def expected_ratios(prediction):
    return [x for plan in prediction.plan().plan.values() for x in (plan * plan.numel()).T.flatten().tolist()]


def test_a_uniform_plan_names_no_favourite_frame():
    html = render_page(a_prediction(eps=math.inf))
    assert "equal attention to every frame" in html
    assert "most attention at" not in html


def test_times_are_shown_in_seconds_and_frame_numbers_where_the_file_tells_none():
    timed = words(render_page(a_prediction(frames=4)))
    assert "0.0 0.5 1.0 1.5 seconds" in timed
    untimed = words(render_page(a_prediction(frames=4, times=[math.nan] * 4)))
    assert "1 2 3 4 frame number" in untimed
    assert "nan" not in untimed
    late = words(render_page(a_prediction(frames=2, times=[99.9, 3725.2])))
    assert "99.9 62:05 seconds" in late


def test_classes_without_descriptors_are_said_to_be_matched_by_name():
    html = render_page(
        a_prediction(descriptors=1, texts=lambda a, n, kind: f"a video of a person class {a}.")
    )
    assert html.count("matched by its name alone") == 3
    assert "<td" not in html
    assert "a video of a person class 0." in html


@pytest.mark.parametrize("kind", ["spatial", "temporal"])
def test_one_kind_alone_has_only_its_own_section(kind):
    other = {"spatial": "temporal", "temporal": "spatial"}[kind]
    shown = words(render_page(a_prediction(kinds=(kind,))))
    assert f"{kind} text 2 of class 0" in shown
    assert f"{other} descriptors" not in shown


def test_one_kind_with_a_name_alone_is_told_from_a_single_descriptor():
    by_name = a_prediction(
        descriptors=1, kinds=("spatial",), texts=lambda a, n, kind: f"a video of a person class {a}."
    )
    assert "matched by its name alone" in render_page(by_name)
    single = a_prediction(descriptors=1, kinds=("spatial",))
    assert "matched by its name alone" not in render_page(single)
    assert "One text only" in render_page(single)


def test_mean_pool_matching_shows_similarities_and_says_why_there_is_no_plan():
    html = render_page(a_prediction(match="mean"))
    assert "transport plan: it cannot tell" in words(html)
    assert "<td" not in html
    assert html.count('<polyline class="own"') == 3
    assert "mean-pool" in html


def test_the_curve_is_the_mean_similarity_of_each_frame():
    prediction = a_prediction(frames=5)
    points = re.search(r'<polyline class="own" points="([^"]+)"', render_page(prediction))
    drawn = np.array([[float(x) for x in point.split(",")] for point in points[1].split()])
    curve = prediction.plan().similarity["spatial"].mean(1).numpy()
    assert drawn[:, 0] == pytest.approx(np.arange(5) + 0.5)
    assert np.corrcoef(drawn[:, 1], curve)[0, 1] == pytest.approx(-1, abs=1e-4)  # y points down
    assert ((drawn[:, 1] > 0) & (drawn[:, 1] < 100)).all()


def test_several_clips_show_the_frames_of_the_clip_that_the_central_view_belongs_to():
    prediction = a_prediction(clips=4, crops=3, frames=5)
    html = render_page(prediction)
    assert greys(html) == pytest.approx([8 * i for i in range(10, 15)], abs=2)
    assert "clip 3 of 4, crop 2 of 3, the centre." in words(html)
    assert "5 × 12" in words(html)
    plan = prediction.plan().plan["spatial"]
    assert cells(Page(html))[:5] == pytest.approx((plan * plan.numel())[:, 0].tolist(), abs=0.00501)


@pytest.mark.parametrize(
    ("crops", "told"),
    [(1, "crop 1 of 1."), (5, "crop 5 of 5, the centre."), (10, "crop 5 of 10, the centre.")],
)
def test_the_page_names_the_crop_that_it_explains(crops, told):
    html = render_page(a_prediction(clips=2, crops=crops, frames=3))
    assert f"clip 2 of 2, {told}" in words(html)


def test_frames_that_the_view_lacks_are_left_out():
    prediction = a_prediction(frames=5, mask=torch.tensor([[True, True, False, True, False]]))
    html = render_page(prediction)
    assert greys(html) == pytest.approx([0, 8, 24], abs=2)
    assert len(cells(Page(html))) == 3 * 8


def test_words_that_all_descriptors_share_are_said_once():
    shared = a_prediction(texts=lambda a, n, kind: f"A video of jumping shows step {n}")
    assert "Each begins “ A video of jumping shows step …”" in words(render_page(shared))
    two = words(render_page(a_prediction(texts=lambda a, n, kind: f"two words{n} here")))
    assert "Each begins" not in two
    assert "two words3 here" in two


def test_the_baseline_says_that_it_is_not_clip_and_clip_does_not():
    assert "not CLIP" in render_page(
        a_prediction(model=Model("lite", "a" * 64, "f" * 64, "float32", clip_preprocess(224)))
    )
    assert "not CLIP" not in render_page(a_prediction())


def test_the_small_print_tells_how_the_answer_was_made():
    shown = words(render_page(a_prediction()))
    for text in ("a" * 12, "b" * 12, "ε = 0.1", "6 × 1", "250", "decoding 0.25", "towers 1.50"):
        assert text in shown
    assert "a" * 13 not in shown
    assert shown.count("/videos/a clip.mp4") == 1


def test_pictures_are_shrunk_but_never_blown_up():
    large = np.zeros((2, 720, 1280, 3), np.uint8)
    small = a_prediction(frames=2)
    big = replace(small, thumbnails=thumbnails(Frames(pixels=large, times=(0.0, 1.0), path="x")))
    for prediction, size in ((big, (284, 160)), (small, (64, 36))):
        html = render_page(prediction)
        data = re.search(r"base64,([A-Za-z0-9+/=]+)", html)
        assert Image.open(io.BytesIO(base64.b64decode(data[1]))).size == size


def test_a_prediction_without_thumbnails_says_how_to_have_them():
    with pytest.raises(UsageError, match=r"/videos/a clip.mp4: has no thumbnails .* thumbnails=True"):
        render_page(a_prediction(thumbnails=None))


def test_pictures_charts_tables_and_choices_have_names_for_those_who_do_not_see_them():
    page = Page(render_page(a_prediction(frames=12)))
    pictures = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    assert pictures
    assert all(attrs.get("aria-label") for attrs in pictures)
    assert len(page.of("caption")) == len(page.of("table")) == 6
    assert all(attrs["scope"] in ("col", "rowgroup") for attrs in page.of("th"))
    assert len(page.of("legend")) == len(page.of("fieldset")) == 1
    assert len([attrs for attrs in page.of("label") if attrs.get("class") == "choice"]) == 3
