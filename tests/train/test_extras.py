"""What training adds to a CLIP: saved, loaded, and refused where it does not fit."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from ost.backbones.extras import PROMPT_STD, TemporalTransformer, draw_prompts, draw_temporal
from ost.backbones.load import load_backbone
from ost.errors import UsageError, WeightsError
from ost.train.learner import load_learner
from ost.video.augment import NONE
from ost.weights.formats import Weights, read_weights, save_weights

TEXTS = ["a red square", "the sea and something that is green, seen from above"]
PROMPTS = {"tune": "prompts", "prompt_count": 3, "prompt_layers": 2}
TEMPORAL = {"tune": "image", "temporal_layers": 2}


def learner_of(config, pack, **changes):
    return load_learner(config.but(**changes), pack, "cpu", NONE, lambda line: None)


def load(file):
    return load_backbone(None, file, device="cpu", dtype="fp32")


def clip_pixels(frames=3, clips=2):
    return torch.randn(clips, frames, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def embedded(backbone, frames=3):
    found = backbone.embed_clips(clip_pixels(frames))
    return found.values, found.norms, backbone.embed_text(TEXTS).values


def disturb(parameters, size=0.1):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def unlike(a, b):
    return not torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("extra", [PROMPTS, TEMPORAL], ids=["prompts", "temporal"])
def test_a_model_that_moves_takes_what_it_learned_along(config, pack, tiny, extra):
    learner = learner_of(config, pack, **extra)
    disturb(learner.parameters.values(), 0.01)
    backbone = learner.backbone
    moved = backbone.to("cpu")
    for a, b in zip(embedded(moved), embedded(backbone), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    disturb(learner.parameters.values(), 0.5)
    assert unlike(embedded(moved)[0], embedded(backbone)[0]), "its towers are its own"
    with pytest.raises(UsageError, match="device 'meta' cannot be used"):
        backbone.to("meta")


@pytest.mark.parametrize("extra", [PROMPTS, TEMPORAL], ids=["prompts", "temporal"])
def test_what_was_added_survives_a_file_with_the_same_embeddings(config, pack, tiny, tmp_path, extra):
    learner = learner_of(config, pack, **extra)
    before = embedded(learner.backbone)
    disturb(p for name, p in learner.parameters.items() if name.startswith(("prompts.", "temporal.")))
    trained = embedded(learner.backbone)
    assert unlike(trained[0], before[0]), "what was added has a part in the embeddings"
    assert unlike(trained[2], before[2]) == (extra is PROMPTS)
    save_weights(learner.weights(), tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors")
    for a, b in zip(embedded(loaded), trained, strict=True):
        # a matrix that lies elsewhere in memory is multiplied in another order: 1e-6 before normalising
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-6)
    save_weights(loaded.weights(), tmp_path / "b.safetensors")
    one, two = (read_weights(tmp_path / f"{name}.safetensors").state for name in "ab")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("extra", [PROMPTS, TEMPORAL], ids=["prompts", "temporal"])
def test_training_goes_on_from_what_a_file_holds(config, pack, tmp_path, extra):
    learner = learner_of(config, pack, **extra)
    disturb(learner.parameters.values())
    save_weights(learner.weights(), tmp_path / "a.safetensors")
    again = learner_of(config, pack, **extra, weights=str(tmp_path / "a.safetensors"), seed=config.seed + 1)
    assert again.parameters.keys() == learner.parameters.keys()
    for name, parameter in learner.parameters.items():
        assert torch.equal(again.parameters[name], parameter), name


def test_training_sees_what_recognition_sees(config, pack, make_chunk):
    for extra in (PROMPTS, TEMPORAL):
        learner = learner_of(config, pack, **extra)
        disturb(learner.parameters.values(), 0.01)
        chunk = make_chunk([0, 1])
        with torch.no_grad():
            raw = learner.embed_chunk(chunk)
        found = learner.backbone.embed_clips(learner.backbone.preprocess.normalised(chunk.pixels))
        torch.testing.assert_close(found.values * found.norms[..., None], raw, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 6])
def test_a_fresh_transformer_over_time_changes_embeddings_little(tiny, layers):
    plain = load(tiny)
    grown = load_backbone(
        None,
        tiny,
        device="cpu",
        dtype="fp32",
        grow=lambda weights: replace(weights, state=weights.state | draw_temporal(3, 32, layers, 0)),
    )
    before, after = plain.embed_clips(clip_pixels()), grown.embed_clips(clip_pixels())
    assert not torch.equal(before.values, after.values)
    assert cosine_similarity(before.values, after.values, dim=-1).min() > 0.99
    assert torch.equal(plain.embed_text(TEXTS).values, grown.embed_text(TEXTS).values)


def test_a_trained_transformer_over_time_sees_the_order_of_frames(config, pack):
    backbone = learner_of(config, pack, **TEMPORAL).backbone
    disturb(backbone.temporal.parameters(), 0.5)
    forth, back = (
        backbone.embed_clips(pixels).values.mean(1) for pixels in (clip_pixels(), clip_pixels().flip(1))
    )
    assert unlike(forth, back)
    backbone.temporal = None
    forth, back = (
        backbone.embed_clips(pixels).values.mean(1) for pixels in (clip_pixels(), clip_pixels().flip(1))
    )
    torch.testing.assert_close(forth, back)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_other_frames_than_in_training_are_refused_with_the_number_to_use(config, pack, frames):
    backbone = learner_of(config, pack, **TEMPORAL).backbone
    with pytest.raises(UsageError, match=f"look at 3 frames a clip, not {frames}; use frames=3"):
        backbone.embed_clips(clip_pixels(frames))


def test_fresh_prompts_are_small_and_depend_on_the_seed_alone(tiny):
    weights = read_weights(tiny)
    torch.manual_seed(0)
    one = draw_prompts(weights, 2, 16, seed=1)
    torch.manual_seed(1)
    two, other = draw_prompts(weights, 2, 16, seed=1), draw_prompts(weights, 2, 16, seed=2)
    assert set(one) == {"prompts.visual", "prompts.text"}
    for name, tensor in one.items():
        assert tensor.shape == (2, 16, 64)
        assert torch.equal(two[name], tensor)
        assert not torch.equal(other[name], tensor)
        # 2048 numbers: their spread is known to 2%
        assert float(tensor.std()) == pytest.approx(PROMPT_STD, rel=0.08)


def test_prompts_take_room_from_long_texts_and_leave_short_ones_whole(config, pack):
    long = " ".join(["squares"] * 200)
    learner = learner_of(config, pack, **PROMPTS)
    tokens = learner.backbone.tokens([long, "a"], print)
    assert tokens.shape == (2, 77 - 3)
    assert learner.backbone.prompts.open_up(tokens).shape == (2, 77)
    assert learner.backbone.embed_text([long]).values.isfinite().all()


def test_prompts_in_more_layers_than_there_are_are_refused(config, pack):
    with pytest.raises(UsageError, match="3 layers do not fit the 2 of the image tower"):
        learner_of(config, pack, **{**PROMPTS, "prompt_layers": 3})


def test_prompts_want_plain_transformers(tiny):
    weights = read_weights(tiny)
    state = {name: t for name, t in weights.state.items() if name != "visual.class_embedding"}
    with pytest.raises(UsageError, match="two plain transformers"):
        draw_prompts(replace(weights, state=state), 1, 1, 0)


def prompts(layers=(2, 2), counts=(3, 3), widths=(64, 64)):
    visual, text = (torch.zeros(*shape) for shape in zip(layers, counts, widths, strict=True))
    return {"prompts.visual": visual, "prompts.text": text}


def temporal(frames=3, width=32, layers=1):
    return draw_temporal(frames, width, layers, 0)


HOSTILE = {
    "prompts of one tower": {"prompts.visual": torch.zeros(2, 3, 64)},
    "a matrix of prompts": {"prompts.visual": torch.zeros(3, 64), "prompts.text": torch.zeros(3, 64)},
    "a number for prompts": {"prompts.visual": torch.zeros(()), "prompts.text": torch.zeros(())},
    "more layers in one tower": prompts(layers=(2, 1)),
    "more vectors in one tower": prompts(counts=(3, 4)),
    "another tensor of prompts": prompts() | {"prompts.audio": torch.zeros(2, 3, 64)},
    "wide prompts": prompts(widths=(64, 128)),
    "narrow prompts": prompts(widths=(32, 64)),
    "prompts for layers that are not there": prompts(layers=(5, 5)),
    "prompts in no layer": prompts(layers=(0, 0)),
    "no vectors a layer": prompts(counts=(0, 0)),
    "more vectors than the context holds": prompts(counts=(80, 80)),
    "no positions": {n: t for n, t in temporal().items() if n != "temporal.positions"},
    "flat positions": temporal() | {"temporal.positions": torch.zeros(96)},
    "a missing tensor": {n: t for n, t in temporal().items() if not n.endswith("linear1.bias")},
    "a left-over tensor": temporal() | {"temporal.blocks.0.gate": torch.zeros(1)},
    "a gap between layers": {n.replace("blocks.0", "blocks.1"): t for n, t in temporal().items()},
    "a layer without a number": temporal() | {"temporal.blocks.": torch.zeros(1)},
    "another width in a layer": temporal() | {"temporal.blocks.0.norm1.weight": torch.ones(33)},
    "a transformer as wide as another CLIP": temporal(width=64),
    "a width that makes no heads": {"temporal.positions": torch.zeros(3, 193)},
    "no frames": temporal(frames=0),
    "no width": {"temporal.positions": torch.zeros(3, 0)},
}


@pytest.mark.parametrize("added", HOSTILE.values(), ids=HOSTILE)
def test_added_tensors_that_do_not_fit_are_refused_in_a_sentence(tiny, tmp_path, added):
    weights = read_weights(tiny)
    file = tmp_path / "hostile.safetensors"
    save_weights(replace(weights, state=weights.state | added), file)
    with pytest.raises(WeightsError, match=r"hostile\.safetensors") as error:
        embedded(load(file))
    assert "\n" not in str(error.value)


def test_the_hostile_files_differ_from_good_ones_in_what_is_said(tiny, tmp_path):
    weights = read_weights(tiny)
    for name, added in {"prompts": prompts(), "temporal": temporal()}.items():
        file = tmp_path / f"{name}.safetensors"
        save_weights(replace(weights, state=weights.state | added), file)
        assert all(part.isfinite().all() for part in embedded(load(file)))


def test_a_transformer_over_time_without_layers_is_twice_the_embedding_and_its_position():
    module = TemporalTransformer(2, 8, 0)
    torch.nn.init.ones_(module.positions)
    frames = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(frames), 2 * frames + 1)


def lora_learner(config, pack):
    learner = learner_of(config, pack, tune="lora", lora_rank=4)
    disturb(p for name, p in learner.parameters.items() if "lora_B" in name)
    return learner


def test_merged_low_rank_updates_give_the_embeddings_of_the_injected_towers(config, pack, tiny, tmp_path):
    learner = lora_learner(config, pack)
    injected = embedded(learner.backbone)
    plain = embedded(load(tiny))
    assert unlike(injected[0], plain[0]) and unlike(injected[2], plain[2])
    save_weights(learner.weights(), tmp_path / "merged.safetensors")
    for a, b in zip(embedded(load(tmp_path / "merged.safetensors")), injected, strict=True):
        # the sum is rounded once instead of twice
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    for a, b in zip(embedded(learner.backbone), injected, strict=True):
        assert torch.equal(a, b), "merging leaves the towers in training as they are"


def test_a_merged_file_has_the_names_and_shapes_of_a_plain_clip(config, pack, tiny):
    weights, plain = lora_learner(config, pack).weights(), read_weights(tiny)
    shapes = {name: tensor.shape for name, tensor in plain.state.items()}
    assert {name: tensor.shape for name, tensor in weights.state.items()} == shapes
    updated = {name for name in shapes if not torch.equal(weights.state[name], plain.state[name])}
    ends = ("attn.in_proj_weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    assert updated == {name for name in shapes if name.endswith(ends)}


def test_a_merged_matrix_is_the_old_one_and_the_product_of_its_update(config, pack, tiny):
    learner = lora_learner(config, pack)
    merged, plain = learner.weights().state, read_weights(tiny).state
    for tower, lora in (("visual.", "lora.visual."), ("", "lora.")):
        name = "transformer.resblocks.1.mlp.c_fc"
        a, b = (learner.parameters[f"{lora}{name}.lora_{x}.default.weight"].detach() for x in "AB")
        expected = plain[f"{tower}{name}.weight"] + b @ a
        torch.testing.assert_close(merged[f"{tower}{name}.weight"], expected, atol=1e-6, rtol=1e-6)


def test_updates_that_never_learned_leave_the_weights_to_the_bit(config, pack, tiny):
    weights, plain = learner_of(config, pack, tune="lora").weights(), read_weights(tiny)
    assert all(torch.equal(weights.state[name], plain.state[name]) for name in plain.state)


def test_low_rank_updates_begin_the_same_for_a_seed(config, pack):
    torch.manual_seed(0)
    one = learner_of(config, pack, tune="lora")
    torch.manual_seed(1)
    two = learner_of(config, pack, tune="lora")
    other = learner_of(config, pack, tune="lora", seed=1)
    started = [{n: p for n, p in x.parameters.items() if "lora_A" in n} for x in (one, two, other)]
    assert started[0]
    assert all(torch.equal(p, started[1][n]) for n, p in started[0].items())
    assert not any(torch.equal(p, started[2][n]) for n, p in started[0].items())


REGIMES = {
    "both": ({"tune": "both"}, lambda name: True),
    "image": ({"tune": "image"}, lambda name: name.startswith("visual.") or name == "logit_scale"),
    "text": ({"tune": "text"}, lambda name: not name.startswith("visual.")),
    "prompts": (PROMPTS, lambda name: name.startswith("prompts.")),
    "temporal": (
        TEMPORAL,
        lambda name: name.startswith(("visual.", "temporal.")) or name == "logit_scale",
    ),
}


@pytest.mark.parametrize(("changes", "trained"), REGIMES.values(), ids=REGIMES)
def test_a_file_differs_from_the_start_in_what_the_regime_trains_alone(config, pack, changes, trained):
    learner = learner_of(config, pack, **changes)
    before = {name: tensor.clone() for name, tensor in learner.weights().state.items()}
    disturb(learner.parameters.values())
    after = learner.weights().state
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if trained(name)}
    optimised = [id(p) for group in learner.groups() for p in group["params"]]
    assert sorted(optimised) == sorted(id(p) for p in learner.parameters.values())


def test_what_is_new_learns_at_the_full_rate_and_towers_at_their_share(config, pack):
    learner = learner_of(config, pack, **TEMPORAL, tower_lr=0.25)
    names = {id(p): name for name, p in learner.parameters.items()}
    shares = {names[id(p)]: group["share"] for group in learner.groups() for p in group["params"]}
    assert set(shares) == set(names.values())
    assert all(share == (1.0 if name.startswith("temporal.") else 0.25) for name, share in shares.items())


def test_the_weights_of_a_learner_keep_pixels_and_activation(config, pack, tiny):
    weights, plain = learner_of(config, pack, **PROMPTS).weights(), read_weights(tiny)
    assert isinstance(weights, Weights)
    assert (weights.preprocess, weights.quick_gelu) == (plain.preprocess, plain.quick_gelu)


def test_a_transformer_over_time_reads_bf16_towers_too(config, pack, tmp_path):
    save_weights(learner_of(config, pack, **TEMPORAL).weights(), tmp_path / "a.safetensors")
    exact = embedded(load(tmp_path / "a.safetensors"))[0]
    rough = embedded(load_backbone(None, tmp_path / "a.safetensors", device="cpu", dtype="bf16"))[0]
    assert float(cosine_similarity(exact, rough, dim=-1).min()) > 0.99
