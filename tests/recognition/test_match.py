"""Matching against a slow reference written from the paper, with POT for the plans."""

import math
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ost.errors import TransportError, UsageError
from ost.recognition import match as module
from ost.recognition.match import EPS, explain, match, similarity
from ost.types import ClassHead, Descriptors, FrameEmbeddings

with warnings.catch_warnings():  # POT's own source holds an invalid escape
    warnings.simplefilter("ignore")
    import ot

SCALE = 100.0


pytestmark = pytest.mark.usefixtures("one_thread")


def some_frames(clips=3, length=7, width=12, seed=0, masked=False):
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(clips, length, width, generator=generator) * torch.rand(
        clips, length, 1, generator=generator
    )
    mask = torch.rand(clips, length, generator=generator) < 0.7 if masked else None
    if mask is not None:
        mask[:, 0] = True
    return FrameEmbeddings(normalize(raw, dim=-1), raw.norm(dim=-1), mask)


def some_descriptors(counts, width=12, seed=1, calibrated=False):
    generator = torch.Generator().manual_seed(seed)
    most = max(counts)
    mask = torch.arange(most) < torch.tensor(counts)[:, None]
    values = normalize(torch.randn(len(counts), most, width, generator=generator), dim=-1) * mask[..., None]
    texts = tuple(tuple(f"prompt {a}.{n}" for n in range(count)) for a, count in enumerate(counts))
    if not calibrated:
        return Descriptors(values, mask, texts)
    shift = torch.randn(mask.shape, generator=generator) * 0.2
    return Descriptors(values, mask, texts, shift, 0.5 + torch.rand(mask.shape, generator=generator))


def some_head(spatial=(4, 4, 4, 4, 4), temporal=(4, 4, 4, 4, 4), calibrated=False):
    kinds = {
        "spatial": some_descriptors(spatial, seed=1, calibrated=calibrated),
        "temporal": some_descriptors(temporal, seed=2, calibrated=calibrated),
        "name": some_descriptors((1,) * len(spatial), seed=3, calibrated=calibrated),
    }
    return ClassHead(tuple(f"class {a}" for a in range(len(spatial))), kinds, SCALE)


def slow_logit(frames, head, clip, a, kinds, eps):
    """s * mean over kinds of (OT + pool), for one clip and one class, in fp64."""
    rows = slice(None) if frames.mask is None else frames.mask[clip].numpy()
    seen = frames.values[clip].double().numpy()[rows]
    terms = []
    for kind in kinds:
        d = head.kinds[kind]
        there = d.mask[a].numpy()
        sim = np.array([[f @ g for g in d.values[a].double().numpy()[there]] for f in seen])
        if d.shift is not None:
            sim = d.gain[a].double().numpy()[there] * (sim - d.shift[a].double().numpy()[there])
        t, n = sim.shape
        uniform = np.full(t, 1 / t), np.full(n, 1 / n)
        if math.isinf(eps):
            plan = np.outer(*uniform)
        else:
            plan = ot.bregman.sinkhorn_log(*uniform, 1 - sim, eps, numItermax=5000, stopThr=1e-11, warn=False)
        terms.append((plan * sim).sum() + sim.mean())
    return head.logit_scale * sum(terms) / len(terms)


@pytest.mark.parametrize("kinds", [("spatial", "temporal"), ("spatial",), ("temporal",)])
@pytest.mark.parametrize("eps", [0.05, 0.1, 1.0, math.inf])
@pytest.mark.parametrize("variant", ["plain", "ragged", "calibrated"])
def test_logits_equal_the_slow_reference(kinds, eps, variant):
    ragged = {"spatial": (1, 4, 2, 3, 5), "temporal": (6, 1, 1, 2, 4)} if variant != "plain" else {}
    frames, head = (
        some_frames(masked=variant == "ragged"),
        some_head(**ragged, calibrated=variant == "calibrated"),
    )
    scores = match(frames, head, kinds=kinds, eps=eps)
    assert scores.names == head.names
    expected = [[slow_logit(frames, head, b, a, kinds, eps) for a in range(5)] for b in range(3)]
    np.testing.assert_allclose(scores.logits.numpy(), expected, atol=2e-3 if eps < 1 else 1e-3, rtol=0)


def test_the_defaults_are_the_papers():
    frames, head = some_frames(), some_head()
    assert EPS == 0.1
    expected = match(frames, head, match="ot", kinds=("temporal", "spatial"), eps=0.1).logits
    torch.testing.assert_close(match(frames, head).logits, expected, atol=1e-4, rtol=0)


def test_both_kinds_are_the_mean_of_each_alone():
    frames, head = some_frames(), some_head()
    alone = [match(frames, head, kinds=(kind,)).logits for kind in ("spatial", "temporal")]
    torch.testing.assert_close(match(frames, head).logits, (alone[0] + alone[1]) / 2, atol=1e-4, rtol=0)


def test_identical_frames_and_descriptors_give_twice_the_scale():
    one = normalize(torch.ones(1, 1, 12), dim=-1)
    frames = FrameEmbeddings(one.expand(1, 8, 12), torch.ones(1, 8))
    same = Descriptors(one.expand(1, 4, 12), torch.ones(1, 4, dtype=torch.bool), (("x",) * 4,))
    scores = match(frames, ClassHead(("x",), {"spatial": same, "temporal": same}, SCALE))
    assert scores.logits.item() == pytest.approx(2 * SCALE, abs=1e-3)


@pytest.mark.parametrize("elements", [1, 100, 400])
def test_chunking_over_classes_does_not_change_logits(monkeypatch, elements):
    frames, head = some_frames(masked=True), some_head((1, 4, 2, 3, 5), (2, 2, 6, 1, 1))
    expected = match(frames, head).logits
    monkeypatch.setattr(module, "SIMILARITIES_AT_ONCE", elements)
    torch.testing.assert_close(match(frames, head).logits, expected, atol=1e-4, rtol=0)


def test_a_clips_logits_do_not_depend_on_the_other_clips_or_classes():
    frames, head = some_frames(clips=6), some_head((1, 4, 2, 3, 5), (2, 2, 6, 1, 1))
    expected = match(frames, head).logits
    one = FrameEmbeddings(frames.values[4:5], frames.norms[4:5])
    torch.testing.assert_close(match(one, head).logits, expected[4:5], atol=2e-4, rtol=0)
    fewer = ClassHead(head.names[2:3], {k: cut(d, slice(2, 3)) for k, d in head.kinds.items()}, SCALE)
    torch.testing.assert_close(match(frames, fewer).logits, expected[:, 2:3], atol=2e-4, rtol=0)


def cut(descriptors, classes):
    return Descriptors(descriptors.values[classes], descriptors.mask[classes], descriptors.texts[classes])


def test_missing_frames_may_hold_anything():
    frames, head = some_frames(masked=True), some_head()
    values, norms = frames.values.clone(), frames.norms.clone()
    values[~frames.mask], norms[~frames.mask] = math.nan, math.inf
    junk = FrameEmbeddings(values, norms, frames.mask)
    for method in ("ot", "mean"):
        expected = match(frames, head, match=method).logits
        torch.testing.assert_close(match(junk, head, match=method).logits, expected, atol=0, rtol=0)
    kept = frames.mask[1]
    alone = FrameEmbeddings(frames.values[1:2, kept], frames.norms[1:2, kept])
    for method in ("ot", "mean"):
        expected = match(frames, head, match=method).logits[1:2]
        torch.testing.assert_close(match(alone, head, match=method).logits, expected, atol=5e-4, rtol=0)


@pytest.mark.parametrize("calibrated", [False, True])
def test_mean_matching_is_that_of_vifi_clip(calibrated):
    frames, head = some_frames(), some_head(calibrated=calibrated)
    raw = (frames.values * frames.norms[..., None]).double()
    video = raw.mean(1)
    video = video / video.norm(dim=-1, keepdim=True)
    names = head.kinds["name"]
    expected = video @ names.values[:, 0].double().T
    if calibrated:
        expected = names.gain[:, 0] * (expected - names.shift[:, 0])
    got = match(frames, head, match="mean").logits.double()
    torch.testing.assert_close(got, SCALE * expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("calibrated", [False, True])
def test_similarity_is_gain_times_distance_from_the_shift(calibrated):
    frames, d = some_frames(), some_descriptors((2, 3), calibrated=calibrated)
    got = similarity(frames.values, d)
    assert got.shape == (3, 2, 7, 3)
    dot = (frames.values[1, 4] @ d.values[1, 2]).item()
    expected = d.gain[1, 2].item() * (dot - d.shift[1, 2].item()) if calibrated else dot
    assert got[1, 1, 4, 2].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_explained_logit_is_the_matched_one(calibrated):
    frames, head = some_frames(masked=True), some_head((1, 4, 2, 3, 5), (2, 2, 6, 1, 1), calibrated)
    logits = match(frames, head, eps=0.05).logits
    for clip in range(3):
        for a, name in enumerate(head.names):
            evidence = explain(frames, head, name, clip=clip, eps=0.05)
            assert evidence.logit == pytest.approx(logits[clip, a].item(), abs=5e-4)
            length = int(frames.mask[clip].sum())
            for kind in ("spatial", "temporal"):
                plan, sim = evidence.plan[kind], evidence.similarity[kind]
                assert plan.shape == sim.shape == (length, len(evidence.texts[kind]))
                assert plan.sum(1).tolist() == pytest.approx([1 / length] * length, abs=3e-5)
            assert evidence.texts["spatial"] == head.kinds["spatial"].texts[a]


def test_a_head_of_one_kind_is_explained_by_that_kind():
    frames, head = some_frames(), some_head()
    spatial = replace(head, kinds={"spatial": head.kinds["spatial"]})
    evidence = explain(frames, spatial, "class 3", clip=1)
    assert set(evidence.plan) == {"spatial"}
    expected = match(frames, spatial, kinds=("spatial",)).logits[1, 3].item()
    assert evidence.logit == pytest.approx(expected, abs=5e-4)


def test_gradients_reach_frames_and_descriptors_with_the_plan_held_fixed():
    frames, head = some_frames(), some_head((2, 3), (1, 2))
    values = frames.values.clone().requires_grad_()
    spatial = head.kinds["spatial"].values.clone().requires_grad_()
    kinds = {**head.kinds, "spatial": replace(head.kinds["spatial"], values=spatial)}
    match(replace(frames, values=values), replace(head, kinds=kinds)).logits[0, 1].backward()
    plans = explain(frames, head, "class 1", clip=0).plan
    uniform = {kind: torch.full_like(plan, 1 / plan.numel()) for kind, plan in plans.items()}
    of_frames = sum((plans[k] + uniform[k]) @ head.kinds[k].values[1][head.kinds[k].mask[1]] for k in plans)
    of_spatial = (plans["spatial"] + uniform["spatial"]).T @ frames.values[0]
    torch.testing.assert_close(values.grad[0], SCALE / 2 * of_frames, atol=2e-3, rtol=0)
    torch.testing.assert_close(spatial.grad[1], SCALE / 2 * of_spatial, atol=2e-3, rtol=0)
    assert not values.grad[1:].any()
    assert not spatial.grad[0].any()


def test_half_precision_embeddings_are_matched_in_fp32():
    frames, head = some_frames(), some_head()
    half = replace(frames, values=frames.values.bfloat16())
    got = match(half, head).logits
    assert got.dtype == torch.float32
    torch.testing.assert_close(
        got, match(replace(frames, values=half.values.float()), head).logits, atol=0, rtol=0
    )


def test_wrong_use_says_what_is_wrong():
    frames, head = some_frames(), some_head()
    lean = replace(head, kinds={"spatial": head.kinds["spatial"]})
    with pytest.raises(UsageError, match="no temporal descriptors, only spatial"):
        match(frames, lean)
    with pytest.raises(UsageError, match="no name descriptors"):
        match(frames, lean, match="mean")
    with pytest.raises(UsageError, match="kinds are spatial, temporal or both"):
        match(frames, head, kinds=())
    with pytest.raises(UsageError, match="frames are 8 wide and spatial descriptors 12"):
        match(some_frames(width=8), head)
    with pytest.raises(UsageError, match="no class 'dancing' among the 5"):
        explain(frames, head, "dancing")
    with pytest.raises(UsageError, match="no spatial descriptors, only name"):
        explain(frames, replace(head, kinds={"name": head.kinds["name"]}), "class 1")
    with pytest.raises(TransportError, match="eps"):
        match(frames, head, eps=0)


@pytest.mark.parametrize("method", ["ot", "mean"])
def test_embeddings_that_are_not_finite_are_named(method):
    frames, head = some_frames(), some_head()
    frames.values[2, 5, 0] = math.nan
    with pytest.raises(TransportError, match="frame 5 of clip 2 is not finite"):
        match(frames, head, match=method)
    frames = some_frames()
    kind = "name" if method == "mean" else "temporal"
    head.kinds[kind].values[3, 0, 1] = math.inf
    with pytest.raises(
        TransportError, match=re.escape(f"class 'class 3': its {kind} embedding 0 is not finite")
    ):
        match(frames, head, match=method)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_1000_classes_by_64_videos_fit_in_2_gib(start, tmp_path):
    (tmp_path / "main.py").write_text("""
import re, torch
from torch.nn.functional import normalize
from ost.recognition.match import match
from ost.types import ClassHead, Descriptors, FrameEmbeddings
def read(key): return int(re.search(key + r':\\s+(\\d+)', open('/proc/self/status').read()).group(1)) / 1024
torch.set_num_threads(1)
def unit(*shape): return normalize(torch.randn(*shape), dim=-1)
d = Descriptors(unit(1000, 4, 512), torch.ones(1000, 4, dtype=torch.bool), ((),) * 1000)
head = ClassHead(tuple(map(str, range(1000))), {"spatial": d, "temporal": d}, 100.0)
frames = FrameEmbeddings(unit(64, 32, 512), torch.ones(64, 32))
held = read("VmRSS")
assert match(frames, head).logits.shape == (64, 1000)
print(read("VmHWM") - held)
""")
    code, out, err = start(tmp_path / "main.py").finish()
    assert code == 0, err
    assert 0 < float(out) < 2048
