"""The gradient of a step, against a straightforward loop that has everything in one piece."""

import copy
import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, gelu, layer_norm, log_softmax, normalize, softmax

from ost.ranks import Ranks
from ost.train.learner import load_learner
from ost.train.plan import RankShare
from ost.train.step import step_gradient
from ost.video.augment import NONE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ot


def learner_of(config, pack):
    return load_learner(config, pack, "cpu", NONE, lambda line: None)


def cut(chunk, sizes):
    """A chunk as several."""
    start, parts = 0, []
    for size in sizes:
        own = slice(start, start + size)
        parts.append(
            replace(
                chunk,
                pixels=chunk.pixels[own],
                labels=chunk.labels[own],
                colours=chunk.colours[own],
                paths=chunk.paths[own],
            )
        )
        start += size
    return parts


def gradients(learner, parts):
    for parameter in learner.parameters.values():
        parameter.grad = None
    share = RankShare(tuple(() for _ in parts), 1.0)
    loss, _ = step_gradient(learner, (share,), iter(parts), Ranks())
    return loss, {name: p.grad.clone() for name, p in learner.parameters.items()}


def plain_frames(towers, chunk):
    """Raw frame embeddings [b, T, D], in fp64."""
    mean = torch.tensor(towers.preprocess.mean).view(3, 1, 1) * 255
    std = torch.tensor(towers.preprocess.std).view(3, 1, 1) * 255
    pixels = (chunk.pixels.double() - mean) / std
    return towers.visual(pixels.flatten(0, 1)).unflatten(0, chunk.pixels.shape[:2])


def plain_logits(learner, raw, classes):
    """The method's logits written down from its formulas: open_clip, POT, one video and class at a time."""
    towers, pack = learner.backbone, learner.pack
    frames, scale = normalize(raw, dim=-1), towers.text.logit_scale.exp()
    b, t = frames.shape[:2]

    def embed(texts):
        return normalize(towers.text.encode_text(towers.tokens(texts, print)), dim=-1)

    rows = []
    for i in range(b):
        row = []
        for a in classes:
            item = pack.classes[a]
            spatial = [f"This is a video about {d}" for d in item.spatial]
            temporal = [f"A video of {item.name} usually includes {d}" for d in item.temporal]
            terms = []
            for texts in (spatial, temporal):
                sim = frames[i] @ embed(texts).T
                n = len(texts)
                cost = (1 - sim.detach()).double().numpy()
                plan = ot.sinkhorn(
                    [1 / t] * t,
                    [1 / n] * n,
                    cost,
                    0.1,
                    method="sinkhorn_log",
                    stopThr=1e-12,
                    numItermax=10000,
                )
                terms.append((torch.from_numpy(plan) * sim).sum() + sim.mean())
            row.append(scale * (terms[0] + terms[1]) / 2)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def plain_loss(learner, chunk):
    """The method's loss, of a batch's videos among the batch's own classes."""
    logits = plain_logits(learner, plain_frames(learner.backbone, chunk), chunk.labels.tolist())
    truth = (chunk.labels[:, None] == chunk.labels[None, :]).double()
    q = softmax(10 * truth, dim=-1)

    def direction(x):
        return (q * (q.log() - log_softmax(x, dim=-1))).sum() / len(x)

    return direction(logits) + direction(logits.T)


LABELS = {"distinct": [0, 1, 2], "repeated": [0, 0, 2, 1, 0], "all one": [1, 1, 1]}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_loss_and_gradients_of_a_step_equal_a_plain_implementation(config, pack, make_chunk, labels):
    learner = learner_of(config, pack)
    # CLIP's own start. At 100 the rounding of a similarity, 6e-8, is 1e-5 of a logit, in whatever implementation.
    learner.log_scale.data.fill_(math.log(1 / 0.07))
    chunk = make_chunk(labels)
    loss, found = gradients(learner, [chunk])
    exact = copy.deepcopy(learner)
    for tower in (exact.backbone.visual, exact.backbone.text):
        tower.double().zero_grad()
    expected = plain_loss(exact, chunk)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    assert len(found) == len([*learner.backbone.visual.parameters(), *learner.backbone.text.parameters()])
    for name, parameter in exact.parameters.items():
        wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        error = (found[name] - wanted).abs().max() / wanted.abs().max().clamp(min=1)
        assert error < 1e-5, name


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (2, 3), (4, 1)])
def test_gradients_do_not_depend_on_how_a_batch_is_cut(config, pack, make_chunk, sizes, replay):
    learner = learner_of(config.but(replay=replay), pack)
    chunk = make_chunk([0, 1, 1, 2, 0])
    loss, whole = gradients(learner, [chunk])
    cut_loss, found = gradients(learner, cut(chunk, sizes))
    assert cut_loss == pytest.approx(loss, abs=1e-5)
    for name in whole:
        torch.testing.assert_close(found[name], whole[name], atol=1e-5, rtol=1e-4)


def test_several_contrastive_batches_make_the_mean_of_their_losses(config, pack, make_chunk):
    learner = learner_of(config, pack)
    chunk = make_chunk([0, 1, 1, 2, 0])
    first, second = cut(chunk, (3, 2))
    parts = [gradients(learner, [part]) for part in (first, second)]
    for parameter in learner.parameters.values():
        parameter.grad = None
    step = (RankShare(((),), 3 / 5), RankShare(((),), 2 / 5))
    loss, _ = step_gradient(learner, step, iter([first, second]), Ranks())
    assert loss == pytest.approx(3 / 5 * parts[0][0] + 2 / 5 * parts[1][0], abs=1e-5)
    for name, parameter in learner.parameters.items():
        wanted = 3 / 5 * parts[0][1][name] + 2 / 5 * parts[1][1][name]
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-5, rtol=1e-4)


def test_the_gradient_flows_through_similarities_and_not_through_the_plan(config, pack, make_chunk):
    """Held to finite differences of the loss with the plans of the unmoved point."""
    from ost.backbones.base import frame_embeddings
    from ost.recognition.match import match

    learner = learner_of(config, pack)
    raw = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    head = learner.head([0, 1, 2], learner.frozen_texts([0, 1, 2]))
    match(frame_embeddings(raw), head).logits[0, 1].backward()
    from ost.recognition.match import explain

    plans = explain(frame_embeddings(raw.detach()), head, "green square").plan
    other = raw.detach().clone().requires_grad_()
    total = torch.zeros(())
    for kind, plan in plans.items():
        d = head.kinds[kind]
        sim = normalize(other[0], dim=-1) @ d.values[1][d.mask[1]].T
        total = total + ((plan * sim).sum() + sim.mean()) / 2
    total.backward()
    torch.testing.assert_close(raw.grad, other.grad, atol=1e-6, rtol=1e-5)


def plain_over_time(state, raw, layers):
    """A pre-norm transformer over [b, T, D], residual, from its matrices (Vaswani et al. 2017; GELU; D / 64 heads)."""
    width = raw.shape[-1]
    heads = max(1, width // 64)
    x = raw + state["positions"]
    for i in range(layers):
        of = {name.removeprefix(f"blocks.{i}."): tensor for name, tensor in state.items()}
        y = layer_norm(x, (width,), of["norm1.weight"], of["norm1.bias"])
        y = y @ of["self_attn.in_proj_weight"].T + of["self_attn.in_proj_bias"]
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in y.chunk(3, dim=-1))
        y = softmax(q @ k.mT / math.sqrt(width / heads), dim=-1) @ v
        y = y.transpose(1, 2).flatten(2)
        x = x + y @ of["self_attn.out_proj.weight"].T + of["self_attn.out_proj.bias"]
        y = layer_norm(x, (width,), of["norm2.weight"], of["norm2.bias"])
        y = gelu(y @ of["linear1.weight"].T + of["linear1.bias"])
        x = x + y @ of["linear2.weight"].T + of["linear2.bias"]
    return raw + x


def test_cross_entropy_over_all_classes_equals_a_plain_one(config, pack, make_chunk):
    learner = learner_of(config.but(tune="image", loss="classes", temporal_layers=2), pack)
    learner.log_scale.data.fill_(math.log(1 / 0.07))
    chunk = make_chunk([0, 2, 2, 1, 0])
    loss, found = gradients(learner, cut(chunk, (2, 2, 1)))
    exact = copy.deepcopy(learner)
    for module in (exact.backbone.visual, exact.backbone.text, exact.backbone.temporal):
        module.double().zero_grad()
    over_time = dict(exact.backbone.temporal.named_parameters())
    raw = plain_over_time(over_time, plain_frames(exact.backbone, chunk), layers=2)
    expected = cross_entropy(plain_logits(exact, raw, range(3)), chunk.labels)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    assert "temporal.positions" in found and not any(name.startswith("transformer.") for name in found)
    assert found.keys() == exact.parameters.keys()
    for name, parameter in exact.parameters.items():
        error = (found[name] - parameter.grad).abs().max() / parameter.grad.abs().max().clamp(min=1)
        assert error < 1e-5, name
    assert bool(found["temporal.positions"].any()) and bool(found["logit_scale"])


TRAINED = {
    "both": ("visual.", "transformer.", "logit_scale"),
    "image": ("visual.", "logit_scale"),
    "text": ("transformer.", "logit_scale"),
    "prompts": ("prompts.",),
    "lora": ("lora.",),
}


@pytest.mark.parametrize("tune", TRAINED)
def test_a_regime_trains_what_it_says_and_nothing_else(config, pack, make_chunk, tune):
    extra = {"prompt_count": 2, "prompt_layers": 2} if tune == "prompts" else {}
    learner = learner_of(config.but(tune=tune, **extra), pack)
    _, found = gradients(learner, cut(make_chunk([0, 1, 2, 0]), (2, 2)))
    for start in TRAINED[tune]:
        assert any(name.startswith(start) and bool(grad.any()) for name, grad in found.items()), start
    if tune == "image":
        assert not any(name.startswith(("transformer.", "token_embedding")) for name in found)
    if tune in ("prompts", "lora"):
        assert all(name.startswith(TRAINED[tune]) for name in found)
    still = [
        p
        for m in (learner.backbone.visual, learner.backbone.text)
        for p in m.parameters()
        if not p.requires_grad
    ]
    assert all(p.grad is None for p in still)
    assert bool(still) == (tune != "both")


def test_activation_checkpointing_changes_no_gradient(config, pack, make_chunk):
    chunk = make_chunk([0, 1, 2])
    plain = gradients(learner_of(config, pack), [chunk])
    spared = gradients(learner_of(config.but(checkpointing=True), pack), [chunk])
    assert spared[0] == pytest.approx(plain[0], abs=1e-6)
    for name in plain[1]:
        torch.testing.assert_close(spared[1][name], plain[1][name], atol=1e-6, rtol=1e-5)


def test_the_scale_is_clamped(config, pack):
    learner = learner_of(config.but(max_scale=50), pack)
    with torch.no_grad():
        learner.log_scale.fill_(math.log(80))
    learner.clamp_scale()
    assert learner.backbone.logit_scale == pytest.approx(50)


def test_biases_norms_and_the_scale_do_not_decay(config, pack):
    learner = learner_of(config, pack)
    names = {id(p): name for name, p in learner.parameters.items()}
    free = [names[id(p)] for g in learner.groups() if not g["weight_decay"] for p in g["params"]]
    decayed = [names[id(p)] for g in learner.groups() if g["weight_decay"] for p in g["params"]]
    assert "logit_scale" in free
    assert all(n in free for n in names.values() if n.endswith("bias") or "ln_" in n)
    assert "visual.conv1.weight" in decayed and "text_projection" in decayed
    assert len(free) + len(decayed) == len(names)
