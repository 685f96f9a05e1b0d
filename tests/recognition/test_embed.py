"""Videos to embeddings, packs to class heads, and the heads kept on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ost.cache import FOLDERS
from ost.descriptors.pack import Pack, PackClass
from ost.errors import VideoError
from ost.recognition.embed import class_head
from ost.recognition.match import BOTH, match
from ost.recognition.reader import read_videos
from ost.recognition.settings import Settings
from ost.types import Frames, Templates
from ost.video.transform import transform

PACK = Pack(
    "mine",
    (
        PackClass("sailing", ("a mast", "a hull"), ("casting off", "tacking", "mooring")),
        PackClass("rowing", ("oars",), ("pulling",)),
        PackClass("nothing known"),
    ),
)


def embed_frames(backbone, frames, crops=1):
    (found,) = read_videos(
        backbone, [frames], Settings(len(frames.times) // frames.clips, frames.clips, crops)
    )
    if isinstance(found, VideoError):
        raise found
    return found.embeddings


def some_frames(clips=1, length=5, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (clips * length, 20, 32, 3), dtype=np.uint8)
    return Frames(pixels, (0.0,) * clips * length, "some.mp4", clips)


def kept(cache):
    return sorted((cache / FOLDERS["heads"]).glob("*"))


def assert_same(one, other):
    assert (one.names, one.hash, one.logit_scale, set(one.kinds)) == (
        other.names,
        other.hash,
        other.logit_scale,
        set(other.kinds),
    )
    for kind, d in one.kinds.items():
        e = other.kinds[kind]
        assert d.texts == e.texts
        assert torch.equal(d.mask, e.mask)
        for a, b in ((d.values, e.values), (d.shift, e.shift), (d.gain, e.gain)):
            assert (a is None and b is None) or torch.equal(a, b)


def test_frames_are_embedded_view_by_view_and_normalised(make_backbone):
    backbone, frames = make_backbone(), some_frames(clips=2)
    got = embed_frames(backbone, frames, crops=3)
    assert got.values.shape == (6, 5, 24)
    views = transform(frames, backbone.preprocess, 3)
    for v in range(6):
        raw = backbone.embed_frames(views[v])
        torch.testing.assert_close(got.values[v] * got.norms[v][:, None], raw, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(got.values.norm(dim=-1), torch.ones(6, 5))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_embedding_that_is_not_finite_names_the_video(make_backbone, monkeypatch, bad):
    backbone = make_backbone()
    monkeypatch.setattr(backbone, "embed_frames", lambda pixels: torch.full((len(pixels), 4), bad))
    with pytest.raises(VideoError, match=r"some.mp4: .*not finite.*fp32"):
        embed_frames(backbone, some_frames())


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_head_holds_each_prompts_embedding_in_its_place(make_backbone, calibrated):
    backbone = make_backbone(calibrated=calibrated)
    head = class_head(backbone, PACK, BOTH)
    assert head.names == PACK.names
    assert head.kinds["spatial"].texts == (
        ("seen: a mast", "seen: a hull"),
        ("seen: oars",),
        ("just nothing known",),
    )
    assert head.kinds["temporal"].mask.tolist() == [[True] * 3, [True, False, False], [True, False, False]]
    for d in head.kinds.values():
        assert not d.values[~d.mask].any()
        for a, row in enumerate(d.texts):
            for n, text in enumerate(row):
                alone = backbone.embed_text([text])
                assert torch.equal(d.values[a, n], alone.values[0])
                assert (d.gain is None) is not calibrated
                if calibrated:
                    assert torch.equal(d.shift[a, n], alone.shift[0])
                    assert torch.equal(d.gain[a, n], alone.gain[0])


def test_equal_prompts_are_embedded_once_whatever_their_class_and_kind(make_backbone):
    backbone = make_backbone()
    twins = Pack(
        "twins", (PackClass("sailing", ("a sail",)), PackClass("rigging", ("a sail", "a rope"), ("up",)))
    )
    head = class_head(backbone, twins, BOTH)
    assert backbone.texts == [["seen: a rope", "seen: a sail"], ["rigging: up", "just sailing"]]
    spatial = head.kinds["spatial"].values
    assert torch.equal(spatial[0, 0], spatial[1, 0])


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_head_seen_before_is_read_without_the_text_tower(make_backbone, fresh_cache, calibrated):
    first = class_head(make_backbone(calibrated=calibrated), PACK, BOTH)
    again = make_backbone(calibrated=calibrated)
    assert_same(class_head(again, PACK, BOTH), first)
    assert again.texts == []
    assert [path.name for path in kept(fresh_cache)] == [f"{first.hash}.safetensors"]


def test_a_head_of_another_process_is_read_without_the_text_tower(
    make_backbone, fresh_cache, start, tmp_path
):
    (tmp_path / "main.py").write_text(f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from conftest import FakeBackbone
from ost.descriptors.pack import Pack, PackClass
from ost.cache import FOLDERS
from ost.recognition.embed import class_head
pack = Pack("other", ({", ".join(map(repr, PACK.classes))},))
print(class_head(FakeBackbone(), pack, ("spatial", "temporal")).hash)
""")
    code, out, err = start(tmp_path / "main.py").finish()
    assert code == 0, err
    backbone = make_backbone()
    assert class_head(backbone, PACK, BOTH).hash == out.strip()
    assert backbone.texts == []
    assert len(kept(fresh_cache)) == 1


def test_the_cache_can_be_left_alone(make_backbone, fresh_cache):
    backbone = make_backbone()
    for _ in range(2):
        class_head(backbone, PACK, BOTH, cache=False)
    assert len(backbone.texts) == 4
    assert not fresh_cache.exists()


def test_heads_are_shared_only_by_equal_weights_precision_and_prompts(make_backbone):
    def key(pack=PACK, kinds=BOTH, templates=None, **backbone):
        made = make_backbone(**backbone)
        if templates:
            made.text_context = replace(made.text_context, templates=templates)
        return class_head(made, pack, kinds).hash

    sailing, *rest = PACK.classes
    other_templates = Templates("SEEN: {descriptor}", "{name}: {descriptor}", "just {name}")
    keys = [
        key(),
        key(weights_hash="w1"),
        key(precision="bfloat16"),
        key(kinds=("spatial",)),
        key(kinds=("temporal",)),
        key(kinds=("name",)),
        key(templates=other_templates),
        key(Pack("mine", PACK.classes[:2])),
        key(Pack("mine", PACK.classes[::-1])),
        key(Pack("mine", (replace(sailing, spatial=("a hull", "a mast")), *rest))),
        key(Pack("mine", (replace(sailing, name="Sailing"), *rest))),
    ]
    assert len(set(keys)) == len(keys)
    assert key(replace(PACK, name="other", licence="MIT", provenance={"by": "me"})) == keys[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:100],
        lambda data: data[:-7],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: b"not a tensor in sight",
        lambda data: data.replace(b"notices", b"n0tices"),
        lambda data: data.replace(b"temporal.mask", b"temporal.m4sk"),
    ],
)
def test_a_damaged_file_in_the_cache_is_made_anew(make_backbone, fresh_cache, damage):
    expected = class_head(make_backbone(), PACK, BOTH)
    (place,) = kept(fresh_cache)
    whole = place.read_bytes()
    assert damage(whole) != whole
    place.write_bytes(damage(whole))
    backbone = make_backbone()
    assert_same(class_head(backbone, PACK, BOTH), expected)
    assert len(backbone.texts) == 2
    assert place.read_bytes() == whole


def test_a_write_that_fails_leaves_no_file_and_the_head_is_still_there(
    make_backbone, fresh_cache, monkeypatch
):
    write_bytes = Path.write_bytes

    def full(path, data):
        write_bytes(path, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert class_head(make_backbone(), PACK, BOTH).names == PACK.names
    assert kept(fresh_cache) == []


def test_a_cache_that_cannot_be_written_stops_nothing(make_backbone, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("OST_CACHE", str(tmp_path / "file" / "cache"))
    assert class_head(make_backbone(), PACK, BOTH).names == PACK.names


def test_what_the_text_tower_had_to_say_is_said_again_from_the_cache(make_backbone):
    long = Pack("long", (PackClass("x" * 200), PackClass("short")))
    first, second = make_backbone(), make_backbone()
    heads = [class_head(backbone, long, ("name",)) for backbone in (first, second)]
    assert second.texts == []
    assert [head.notices for head in heads] == [("a text was cut",)] * 2


def test_a_head_from_the_cache_matches_like_a_new_one(make_backbone):
    backbone = make_backbone(calibrated=True)
    frames = embed_frames(backbone, some_frames())
    logits = [match(frames, class_head(backbone, PACK, BOTH)).logits for _ in range(2)]
    assert len(backbone.texts) == 2
    assert torch.equal(*logits)


def test_a_kind_has_the_same_bits_whatever_other_kinds_are_asked_for(fresh_cache):
    import ost

    backbone, pack = ost.load("lite").backbone, ost.pack("everyday")
    together = class_head(backbone, pack, ("name", *BOTH), cache=False)
    for kind in BOTH:
        alone = class_head(backbone, pack, (kind,), cache=False).kinds[kind]
        assert torch.equal(alone.values, together.kinds[kind].values)
        assert torch.equal(alone.gain, together.kinds[kind].gain)
