"""Weight files of every kind: the same numbers in, the same embeddings out, every tensor accounted for."""

import numpy as np
import pytest
import torch

from ost.backbones.load import load_backbone
from ost.errors import UsageError, WeightsError
from ost.weights.blend import blend
from ost.weights.formats import architecture, read_weights, save_weights
from ost.weights.pixels import CLIP_MEAN, IMAGENET_MEAN, clip_preprocess, ost_preprocess

from .makers import (
    CONTEXT,
    EMBED,
    LAYERS,
    PATCH,
    SIZE,
    VOCAB,
    WIDTH,
    WRITERS,
    clip_state,
    pixels,
    write_open_clip,
    write_openai,
    write_ost,
)

TEXTS = ["a dog", "someone riding a horse on a beach"]
# What open_clip writes tells no activation; only a name does.
NAMES = {"openai": None, "ost": None, "open_clip": "ViT-B-16-quickgelu"}
scripted = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def embeddings(path, name=None, **settings):
    model = load_backbone(name, path, device="cpu", dtype="fp32", **settings)
    return torch.cat([model.embed_frames(pixels()), model.embed_text(TEXTS).values])


@pytest.fixture(scope="session")
def expected(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "clip.pt"
    write_open_clip(state, path)
    return embeddings(path, "ViT-B-16-quickgelu")


@scripted
@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_gives_the_same_embeddings_and_its_own_pixels(kind, state, expected, tmp_path):
    write, origin = WRITERS[kind]
    path, converted = tmp_path / "file.pth", tmp_path / "file.safetensors"
    write(state, path)
    weights = read_weights(path)
    assert weights.origin == origin
    assert set(weights.state) == set(state)
    assert torch.equal(embeddings(path, NAMES[origin]), expected)

    save_weights(weights, converted)
    again = read_weights(converted)
    assert (again.origin, again.quick_gelu) == (origin, weights.quick_gelu)
    assert torch.equal(embeddings(converted, NAMES[origin]), expected)

    pixels_wanted = {"openai": clip_preprocess(SIZE), "ost": ost_preprocess(SIZE), "open_clip": None}
    assert again.preprocess == weights.preprocess == pixels_wanted[origin]
    mean = load_backbone(NAMES[origin], converted).preprocess.mean
    assert mean == (IMAGENET_MEAN if origin == "ost" else CLIP_MEAN)


def test_the_shapes_tell_the_architecture(state, tmp_path):
    write_open_clip(state, path := tmp_path / "clip.pt")
    found = architecture(read_weights(path))
    assert vars(found) == {
        "embed_dim": EMBED,
        "image_size": SIZE,
        "patch_size": PATCH,
        "vision_width": WIDTH,
        "vision_layers": LAYERS,
        "context_length": CONTEXT,
        "vocab_size": VOCAB,
        "text_width": WIDTH,
        "text_layers": LAYERS,
    }


@pytest.mark.parametrize("accuracy", [72.5, np.float64(72.5), np.float32(72.5), torch.tensor(72.5)])
def test_what_a_checkpoint_says_of_its_training_is_read_as_plain_values(accuracy, state, tmp_path):
    write_ost(state, path := tmp_path / "ost.pth", accuracy)
    training = read_weights(path).training
    assert training == {
        "epoch": 9,
        "max_accuracy": 72.5,
        "config": {"DATA": {"NUM_FRAMES": 32}, "TITLE": "k400"},
    }
    assert type(training["max_accuracy"]) is float


def test_conversion_leaves_the_optimiser_behind(state, tmp_path):
    write_ost(state, path := tmp_path / "ost.pth")
    save_weights(read_weights(path), converted := tmp_path / "ost.safetensors")
    assert converted.stat().st_size < 0.35 * path.stat().st_size


def test_stored_prompts_are_left_out_and_learned_ones_are_not(state, tmp_path):
    WRITERS["vifi"][0](state, path := tmp_path / "vifi.pth")
    assert {name.split(".")[-1] for name in read_weights(path).left_out} == {
        "token_prefix",
        "token_suffix",
        "complete_text_embeddings",
    }
    write_ost(state, path, **{"module.prompt_learner.ctx": torch.ones(4, WIDTH)})
    with pytest.raises(WeightsError, match=r"left over 1: prompt_learner\.ctx"):
        load_backbone(weights=path)


@pytest.mark.parametrize("write", [write_openai, write_ost])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ln_final.bias": None}, "missing 1: ln_final.bias"),
        ({"visual.transformer.resblocks.0.ln_1.bias": None}, "missing 1: visual.transformer.resblocks.0"),
        ({"visual.transformer.resblocks.0.vpt": torch.ones(3)}, "left over 1: visual.transformer.*vpt"),
        (
            {"ln_final.bias": torch.ones(WIDTH + 1)},
            r"another shape for 1: ln_final.bias .*\[65\], not \[64\]",
        ),
        ({"visual.positional_embedding": torch.ones(6, WIDTH)}, "another shape for 1: visual.positional_emb"),
        ({"visual.conv1.weight": None}, "not those of a CLIP.*visual.conv1.weight"),
        ({"logit_scale": torch.ones(2)}, "another shape for 1: logit_scale"),
    ],
)
def test_every_tensor_is_accounted_for(change, message, write, state, tmp_path):
    changed = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
    write(changed, path := tmp_path / "changed.pth")
    with pytest.raises(WeightsError, match=message):
        load_backbone(weights=path)


def test_a_file_that_tells_no_activation_wants_a_name(state, tmp_path):
    write_open_clip(state, path := tmp_path / "clip.pt")
    with pytest.raises(WeightsError, match="does not state its activation; name the architecture"):
        load_backbone(weights=path)
    plain, quick = (embeddings(path, f"ViT-B-16{suffix}") for suffix in ("", "-quickgelu"))
    assert not torch.allclose(plain, quick, atol=1e-3)
    with pytest.raises(UsageError, match="'ViT-B-61'; did you mean 'ViT-B-16'"):
        load_backbone("ViT-B-61", path)


def test_a_width_without_whole_attention_heads_is_an_error(tmp_path):
    odd = clip_state()
    odd["visual.conv1.weight"] = torch.ones(80, 3, PATCH, PATCH)
    write_openai(odd, path := tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=r"80x2 .* does not divide into attention heads of 64"):
        load_backbone(weights=path)


class TestBlend:
    @pytest.fixture
    def pair(self, state, tmp_path):
        write_openai(state, original := tmp_path / "original.pt")
        write_ost(clip_state(seed=5), tuned := tmp_path / "tuned.pth")
        return read_weights(original), read_weights(tuned)

    def test_it_goes_straight_from_one_end_to_the_other(self, pair):
        original, tuned = pair
        for ratio in (0, 0.2, 0.5, 1):
            mixed = blend(original, tuned, ratio)
            assert mixed.preprocess == tuned.preprocess
            for name, value in mixed.state.items():
                line = ratio * original.state[name].double() + (1 - ratio) * tuned.state[name].double()
                atol = 0 if ratio in (0, 1) else 1e-6
                torch.testing.assert_close(value.double(), line, rtol=0, atol=atol)

    def test_its_hash_tells_both_files_and_the_ratio(self, pair):
        hashes = {blend(*pair, 0.2).hash, blend(*pair, 0.3).hash, blend(*pair[::-1], 0.2).hash}
        hashes |= {weights.hash for weights in pair}
        assert len(hashes) == 5
        assert blend(*pair, 0.2).hash == blend(*pair, 0.2).hash

    def test_what_does_not_belong_together_is_not_blended(self, pair, state, tmp_path):
        original, tuned = pair
        with pytest.raises(WeightsError, match=r"between 0 and 1, not 1\.5"):
            blend(original, tuned, 1.5)
        write_openai(clip_state(layers=1), path := tmp_path / "shallow.pt")
        with pytest.raises(WeightsError, match=r"blend: the original: .*missing 24: transformer.resblocks.1"):
            blend(read_weights(path), tuned, 0.5)

    def test_a_backbone_is_blended_while_it_is_loaded(self, pair, tmp_path):
        mixed = load_backbone(
            weights=tmp_path / "tuned.pth", blend=0.2, blend_with=tmp_path / "original.pt", dtype="fp32"
        )
        save_weights(blend(*pair, 0.2), saved := tmp_path / "mixed.safetensors")
        assert torch.equal(
            mixed.embed_frames(pixels()), load_backbone(weights=saved, dtype="fp32").embed_frames(pixels())
        )
        assert mixed.weights_hash == blend(*pair, 0.2).hash
        with pytest.raises(UsageError, match="add blend=SHARE"):
            load_backbone(weights=saved, blend_with=saved)
        with pytest.raises(UsageError, match="name the original weights with blend_with"):
            load_backbone(weights=saved, blend=0.5)
