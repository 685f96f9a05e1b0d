"""A pack looked over, drawn, and tried on labelled clips."""

import csv
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from ost.backbones.base import prepared
from ost.backbones.lite.minilm import MiniLM
from ost.datasets.manifest import LabelledVideo
from ost.descriptors.pack import Pack, PackClass
from ost.errors import PackError, UsageError
from ost.evaluate.pack import check_pack
from ost.evaluate.picture import save_picture

HOSTILE = Pack(
    "$x_1$ & <b>",
    (
        PackClass("<script>$\\frac{1}$", ("a red cup",), ("it $rises",)),
        PackClass("walking [bold]", ("a park path",), ("it falls down",)),
    ),
)


@pytest.fixture(scope="module")
def embed():
    return MiniLM.installed().embed


def test_what_a_pack_holds_is_counted(embed):
    pack = Pack(
        "mine",
        (
            PackClass("pour", ("a cup of tea", "a person about to pour"), ("tilt it", "fill it up", "stop")),
            PackClass("drink", ("a red cup",), ("tilt it",)),
        ),
    )
    report = check_pack(pack, embed)
    assert report.counts == {"spatial": (1, 2), "temporal": (1, 3)}
    assert report.words["spatial"] == (3, 4.0, 5)
    assert report.too_long == {77: 0, 32: 0}
    assert any(
        f.startswith("pour: the spatial 'a person about to pour' says the name") for f in report.faults
    )
    assert "drink: shares the temporal 'tilt it' with pour" in report.faults


def test_prompts_are_counted_against_each_context(embed):
    long = PackClass("a name " * 12, ("a cup",), ("it falls " * 10,))
    report = check_pack(Pack("long", (long, PackClass("b", ("a jug",), ("it stops",)))), embed)
    assert report.too_long == {77: 0, 32: 1}
    assert 32 < report.longest <= 77


def test_a_pack_of_one_class_is_counted_and_not_compared(embed, tmp_path):
    report = check_pack(Pack("one", (PackClass("a", ("a cup",), ("it falls",)),)), embed)
    assert report.separability is None
    with pytest.raises(UsageError, match="nothing to compare"):
        save_picture(report, tmp_path / "x.svg")


def test_a_picture_is_drawn_whatever_the_names_hold(embed, tmp_path):
    report = check_pack(HOSTILE, embed)
    for name in ("x.svg", "x.png", "x.pdf"):
        save_picture(report, tmp_path / name)
    root = ElementTree.parse(tmp_path / "x.svg").getroot()
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    with Image.open(tmp_path / "x.png") as drawn:
        assert drawn.size[0] > 1000
    with pytest.raises(UsageError, match=r"a picture is \.svg"):
        save_picture(report, tmp_path / "x.gif")


def test_one_report_is_always_the_same_picture(embed, tmp_path):
    report = check_pack(HOSTILE, embed)
    for name in ("a.svg", "b.svg"):
        save_picture(report, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


class ColourBackbone:
    """Sees the mean colour of a frame, and reads the first colour in a text."""

    name, weights_hash, precision, logit_scale = "colours", "c", "float32", 10.0
    fingerprint, adapter, device, width = "colours", None, torch.device("cpu"), 3

    def __init__(self):
        from ost.types import Preprocess, Templates, TextContext

        self.preprocess = Preprocess(8, 8, "bilinear", False, (0.0,) * 3, (1.0,) * 3)
        self.text_context = TextContext(77, len, Templates("{descriptor}", "{descriptor}", "{name}"))
        self.frames_seen = 0

    def embed_frames(self, pixels):
        self.frames_seen += len(pixels)
        return prepared(pixels, self.preprocess).mean((2, 3))

    def embed_clips(self, pixels):
        from ost.backbones.base import frame_embeddings

        return frame_embeddings(self.embed_frames(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]))

    def embed_text(self, texts):
        from ost.backbones.base import TextEmbeddings

        plain = torch.tensor([1.0, 1.0, 1.0])
        rows = [
            next((torch.tensor(COLOURS[w]) / 255 for w in text.split() if w in COLOURS), plain)
            for text in texts
        ]
        return TextEmbeddings(torch.nn.functional.normalize(torch.stack(rows), dim=-1))


@pytest.fixture
def clips(tmp_path):
    """Two clips of each colour, as folders of frames."""
    found = []
    for colour, rgb in COLOURS.items():
        for number in range(2):
            folder = tmp_path / f"{colour}{number}"
            folder.mkdir()
            for i in range(3):
                Image.fromarray(np.full((8, 8, 3), rgb, np.uint8)).save(folder / f"{i}.png")
            found.append(LabelledVideo(folder, f"Class{colour.title()}"))
    return found


def colour_pack():
    """Spatial descriptors tell the colours apart; temporal ones take green for blue; names tell nothing."""
    steps = {"red": "red", "green": "blue", "blue": "green"}
    return Pack(
        "colours",
        tuple(
            PackClass(
                f"class {colour}x",
                (f"a {colour} wall",),
                (f"a {steps[colour]} light",),
                f"Class{colour.title()}",
            )
            for colour in COLOURS
        ),
    )


def score(clips, **options):
    """What `ost packs check` counts on clips: answers by what is matched."""
    from ost.cli.packs import _score

    place = clips[0].path.parent / "scored.csv"
    with place.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([clip.path.name, clip.label] for clip in clips)
    backbone = ColourBackbone()
    found = _score(backbone, colour_pack(), place, None, options.get("only_labelled", False), 2)
    return {way.texts: answer for way, answer in found.items()}, backbone


def test_accuracy_is_counted_by_what_is_matched(clips):
    found, backbone = score(clips)
    right = {texts: int(answer.right(1).sum()) for texts, answer in found.items()}
    # By names all classes tie, and one of three is right.
    assert (right["names"], right["spatial"], right["temporal"]) == (2, 6, 2)
    assert {answer.right(5).sum() for answer in found.values()} == {6}
    assert all(len(answer.names) == 3 for answer in found.values())
    assert backbone.frames_seen == 2 * 6  # one pass serves every way


def test_the_classes_can_be_those_that_some_clip_shows(clips):
    found, _ = score(clips[:4], only_labelled=True)
    assert found["both"].names == ("class redx", "class greenx")
    with pytest.raises(PackError, match="has no class 'ClassPink'"):
        score([LabelledVideo(clips[0].path, "ClassPink")])


def test_the_command_scores_a_manifest(ost_command, clips, tmp_path, monkeypatch):
    from ost.descriptors.pack import save_pack

    save_pack(colour_pack(), tmp_path / "colours.json")
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "dataset"])
        writer.writerows([clip.path.name, clip.label, "made"] for clip in clips)
        writer.writerow(["none.mp4", "ClassRed", "made"])
    monkeypatch.setattr("ost.backbones.load.load_backbone", lambda *_, **__: ColourBackbone())
    options = ["--clips", tmp_path / "clips.csv", "--dataset", "made", "--frames", "2"]
    code, out, err = ost_command(
        "packs", "check", tmp_path / "colours.json", *options, "--picture", tmp_path / "x.svg"
    )
    assert code == 1
    assert "6 clips, 3 classes, chance 33.3%" in out
    assert "6 of 6" in out
    assert "none.mp4" in err
    assert (tmp_path / "x.svg").is_file()
