"""Frame embeddings x class head -> scores: the one place where a video meets a class name.

    logits[b, a] = s * mean over kinds of (OT + pool),    OT = score(sim, eps), pool = score(sim, inf)

with the kinds spatial and temporal (OST, CVPR 2024, section 3.3; the two terms add, so the effective
scale is twice CLIP's). `method="mean"` is the matching of ViFi-CLIP: the raw embeddings of a clip's frames
averaged and normalised, against one prompt a class.

A trained adapter adds w_a . mean_t(f_t) + b_a. That is the same matching in a wider space, where a frame is
[s e_t, f_t] and w_a stands beside each of the class's descriptors: a term that is equal for all descriptors
does not move a transport plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ost.errors import TransportError, UsageError
from ost.transport import score
from ost.types import BOTH, ClassHead, Descriptors, Evidence, FrameEmbeddings, Kind, LearnedClasses, Scores

Method = Literal["ot", "mean"]
EPS = 0.1
CHUNK_ELEMENTS = 1 << 23  # similarities in memory at once, 32 MiB in fp32


def match(
    frames: FrameEmbeddings,
    head: ClassHead,
    *,
    method: Method = "ot",
    kinds: Sequence[Kind] = BOTH,
    eps: float = EPS,
) -> Scores:
    """Logits of B clips against A classes.

    Memory is bounded: classes are taken so many at a time that their similarities to all frames fit in
    `CHUNK_ELEMENTS`.

    Args:
        frames: embeddings of B clips of T frames.
        head: A classes; for `method="mean"` it has the kind "name", else those in `kinds`.
        method: "ot" or "mean".
        kinds: ("spatial", "temporal") or one of them alone.
        eps: entropic weight of the transport, in units of similarity; inf is the mean.

    Raises:
        UsageError: the head lacks a kind that is asked for, or the widths differ.
        TransportError: an embedding that takes part is not finite.
    """
    needed: tuple[Kind, ...] = ("name",) if method == "mean" else tuple(kinds)
    _check(frames, head, needed)
    if method == "mean":
        logits = head.logit_scale * _mean_pool(frames, head.kinds["name"])
    else:
        terms = [_kind_scores(frames, head.kinds[kind], eps) for kind in needed]
        logits = head.logit_scale * torch.stack(terms).mean(0)
    if head.learned is not None:
        logits = logits + learned_logits(frames, head.learned)
    return Scores(logits=logits, names=head.names)


def explain(
    frames: FrameEmbeddings, head: ClassHead, name: str, *, clip: int = 0, eps: float = EPS
) -> Evidence:
    """Similarities and plans of one clip and one class, for each kind that the head has.

    Raises:
        UsageError: the head has no such class, or no descriptors to match.
    """
    if name not in head.names:
        raise UsageError(f"there is no class {name!r} among the {len(head.names)} that were recognised")
    kinds: list[Kind] = [kind for kind in BOTH if kind in head.kinds]
    _check(frames, head, kinds or BOTH)
    a = head.names.index(name)
    rows = frames.mask[clip] if frames.mask is not None else slice(None)
    similarities: dict[Kind, Tensor] = {}
    plans: dict[Kind, Tensor] = {}
    texts: dict[Kind, tuple[str, ...]] = {}
    terms: list[Tensor] = []
    for kind in kinds:
        d = head.kinds[kind]
        sim = similarity(frames.values[clip : clip + 1], d, slice(a, a + 1))[0, 0][rows][:, d.mask[a]]
        transported, plans[kind] = score(sim, eps, return_plan=True)
        similarities[kind], texts[kind] = sim, d.texts[a]
        terms.append(transported + sim.mean())
    logit = head.logit_scale * torch.stack(terms).mean().item()
    if head.learned is not None:
        logit += learned_logits(frames, head.learned)[clip, a].item()
    return Evidence(name=name, texts=texts, similarity=similarities, plan=plans, logit=logit)


def similarity(frames: Tensor, descriptors: Descriptors, classes: slice = slice(None)) -> Tensor:
    """Similarities [B, A, T, N] of frames [B, T, D] to the descriptors of some classes, in fp32."""
    sim = torch.einsum("btd,and->batn", frames.float(), descriptors.values[classes].float())
    if descriptors.shift is not None:
        sim = sim - descriptors.shift[classes][None, :, None, :]
    if descriptors.gain is not None:
        sim = sim * descriptors.gain[classes][None, :, None, :]
    return sim


def learned_logits(frames: FrameEmbeddings, learned: LearnedClasses) -> Tensor:
    """What an adapter adds to the logits, [B, A].

    Raises:
        UsageError: the frames have no features, or of another width.
    """
    features, width = frames.features, learned.weight.shape[-1]
    if features is None or features.shape[-1] != width:
        has = "none" if features is None else f"{features.shape[-1]} wide"
        raise UsageError(
            f"the adapter reads features {width} wide, and the frames have {has}; embed them with it"
        )
    present = torch.ones_like(features[..., 0]) if frames.mask is None else frames.mask.to(features)
    pooled = torch.einsum("btf,bt->bf", features, present / present.sum(-1, keepdim=True))
    return pooled @ learned.weight.T + learned.bias


def _kind_scores(frames: FrameEmbeddings, descriptors: Descriptors, eps: float) -> Tensor:
    """OT + pool of one kind, [B, A]."""
    frame_mask = None if frames.mask is None else frames.mask[:, None, :]
    parts: list[Tensor] = []
    for classes in _chunks(frames, descriptors):
        sim = similarity(frames.values, descriptors, classes)
        mask = descriptors.mask[classes]
        transported = score(sim, eps, frame_mask=frame_mask, descriptor_mask=mask)
        pooled = score(sim, math.inf, frame_mask=frame_mask, descriptor_mask=mask)
        parts.append(transported + pooled)
    return torch.cat(parts, dim=1)


def _chunks(frames: FrameEmbeddings, descriptors: Descriptors) -> Iterator[slice]:
    clips, length, _ = frames.values.shape
    classes, most, _ = descriptors.values.shape
    step = max(1, CHUNK_ELEMENTS // max(1, clips * length * most))
    return (slice(start, start + step) for start in range(0, classes, step))


def _mean_pool(frames: FrameEmbeddings, names: Descriptors) -> Tensor:
    raw = frames.values * frames.norms[..., None]
    if frames.mask is not None:
        raw = torch.where(frames.mask[..., None], raw, 0.0)
    pooled = normalize(raw.sum(1), dim=-1)
    return similarity(pooled[:, None, :], names)[:, :, 0, 0]


def _check(frames: FrameEmbeddings, head: ClassHead, kinds: Sequence[Kind]) -> None:
    if not kinds:
        raise UsageError("no kind of descriptor was asked for; use spatial, temporal or both")
    for kind in kinds:
        if kind not in head.kinds:
            raise UsageError(
                f"the class head has no {kind} descriptors, only {', '.join(head.kinds)}; build it with them"
            )
        width = head.kinds[kind].values.shape[-1]
        if width != frames.values.shape[-1]:
            raise UsageError(
                f"frames are {frames.values.shape[-1]} wide and {kind} descriptors {width}; "
                "use one backbone for both"
            )
    _check_finite(frames, head, kinds)


def _check_finite(frames: FrameEmbeddings, head: ClassHead, kinds: Sequence[Kind]) -> None:
    bad = ~torch.isfinite(frames.values * frames.norms[..., None]).all(-1)
    if frames.mask is not None:
        bad &= frames.mask
    if bool(bad.any()):
        clip, frame = bad.nonzero()[0].tolist()
        raise TransportError(f"frames: the embedding of frame {frame} of clip {clip} is not finite")
    for kind in kinds:
        bad = ~torch.isfinite(head.kinds[kind].values).all(-1) & head.kinds[kind].mask
        if bool(bad.any()):
            a, n = bad.nonzero()[0].tolist()
            raise TransportError(f"class {head.names[a]!r}: its {kind} embedding {n} is not finite")
