"""Match frame embeddings against a class head: optimal transport, mean-pooling and adapters.

    logits[b, a] = s * mean over kinds of (OT + pool),    OT = score(sim, eps), pool = score(sim, inf)

with the kinds spatial and temporal (OST, CVPR 2024, section 3.3; the two terms add, so the effective
scale is twice CLIP's). `match="mean"` is the matching of ViFi-CLIP: the raw embeddings of a clip's frames
averaged and normalised, against one prompt a class.

A trained adapter moves the frame embeddings and adds w_a . mean_t(f_t) + b_a. That is the same matching in a wider
space, where a frame is [s e_t, f_t] and w_a is appended to each of the class's descriptors: a term that is equal for
all descriptors does not change the transport plan. Mean-pool matching is the baseline of the towers without adapter: it
never includes what an adapter learned.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ost.catalog import did_you_mean
from ost.errors import TransportError, UsageError
from ost.names import fold
from ost.recognition.settings import EPS, Match, check_choice, checked_kinds
from ost.transport import score
from ost.types import (
    BOTH,
    ClassHead,
    DescriptorKind,
    Descriptors,
    Evidence,
    FrameEmbeddings,
    Kind,
    LearnedClasses,
    Scores,
)

SIMILARITIES_AT_ONCE = 1 << 23  # similarities in memory at once, 32 MiB in fp32


def match(
    frames: FrameEmbeddings,
    head: ClassHead,
    *,
    match: Match = "ot",
    kinds: DescriptorKind | Sequence[Kind] = BOTH,
    eps: float = EPS,
    method: Match | None = None,
) -> Scores:
    """Return the logits of B clips against A classes.

    Memory is bounded: classes are matched in chunks whose similarities to all frames fit in `SIMILARITIES_AT_ONCE`.

    Args:
        frames: embeddings of B clips of T frames.
        head: A classes; for `match="mean"` it has the kind "name", else those in `kinds`.
        match: "ot" or "mean".
        kinds: ("spatial", "temporal") or one of them alone.
        eps: entropic weight of the transport, in units of similarity; inf is the mean.
        method: the former name of `match`.

    Raises:
        UsageError: the head lacks one of `kinds`, or the widths differ.
        TransportError: an embedding that is matched is not finite.
    """
    if method is not None:
        warnings.warn("the argument method is now called match", DeprecationWarning, stacklevel=2)
        match = method
    check_choice("match", match, get_args(Match))
    needed: tuple[Kind, ...] = ("name",) if match == "mean" else _as_kinds(kinds)
    _check(frames, head, needed)
    if match == "mean":
        return Scores(head.logit_scale * _mean_pool(frames, head.kinds["name"]), head.names)
    learned = head.learned
    adapted_frames = frames if learned is None else adapted(frames, learned)
    terms = [_kind_scores(adapted_frames, head.kinds[kind], eps) for kind in needed]
    logits = head.logit_scale * torch.stack(terms).mean(0)
    if learned is not None:
        logits = learned.temperature * logits + learned_logits(adapted_frames, learned)
    return Scores(logits, head.names)


def explain(
    frames: FrameEmbeddings, head: ClassHead, name: str, *, clip: int = 0, eps: float = EPS
) -> Evidence:
    """Return the similarities and transport plans of one clip and one class, for each kind of the head.

    Args:
        frames: embeddings of B clips of T frames.
        head: A classes with descriptors.
        name: the readable name or the label of a class, in any spelling.
        clip: which of the B clips.
        eps: entropic weight of the transport.

    Raises:
        UsageError: the head has no such class, or no descriptors to match.
    """
    a = class_index(head, name)
    if not -len(frames.values) <= clip < len(frames.values):
        raise UsageError(f"there is no clip {clip} among the {len(frames.values)}")
    kinds: list[Kind] = [kind for kind in BOTH if kind in head.kinds]
    _check(frames, head, kinds or BOTH)
    learned = head.learned
    frames = frames if learned is None else adapted(frames, learned)
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
    if learned is not None:
        logit = learned.temperature * logit + learned_logits(frames, learned)[clip, a].item()
    return Evidence(name=head.names[a], texts=texts, similarity=similarities, plan=plans, logit=logit)


def _as_kinds(kinds: DescriptorKind | Sequence[Kind]) -> tuple[Kind, ...]:
    """Return the kinds to match; "name" alone matches names by transport."""
    return ("name",) if not isinstance(kinds, str) and tuple(kinds) == ("name",) else checked_kinds(kinds)


def class_index(head: ClassHead, name: str) -> int:
    """Return the row of the class with this readable name or label, in any spelling; names win over labels.

    Raises:
        UsageError: the head has no such class.
    """
    for spellings in (head.names, head.labels):
        if name in spellings:
            return spellings.index(name)
    key = fold(name)
    for spellings in (head.names, head.labels):
        if (row := next((a for a, known in enumerate(spellings) if fold(known) == key), None)) is not None:
            return row
    known = list(dict.fromkeys((*head.names, *head.labels)))
    raise UsageError(f"there is no class {name!r} among the {len(head.names)}{did_you_mean(name, known)}")


def similarity(frames: Tensor, descriptors: Descriptors, classes: slice = slice(None)) -> Tensor:
    """Return the similarities [B, A, T, N], fp32, of frames [B, T, D] to the descriptors of some classes."""
    sim = torch.einsum("btd,and->batn", frames.float(), descriptors.values[classes].float())
    if descriptors.shift is not None:
        sim = sim - descriptors.shift[classes][None, :, None, :]
    if descriptors.gain is not None:
        sim = sim * descriptors.gain[classes][None, :, None, :]
    return sim


def adapted(frames: FrameEmbeddings, learned: LearnedClasses) -> FrameEmbeddings:
    """Apply an adapter to frames: add its residual to the embeddings, and centre the features for its classes.

    Args:
        frames: with features of width F.
        learned: the parameters of the adapter.

    Returns:
        Embeddings as unit vectors, and features as unit vectors relative to the mean of the examples.

    Raises:
        UsageError: the features have another width.
    """
    unit, width = frames.unit_features, len(learned.centre)
    if unit.shape[-1] != width:
        raise UsageError(
            f"the adapter reads features {width} wide, and those of the frames are {unit.shape[-1]} wide"
        )
    features = normalize(unit - learned.centre, dim=-1)
    moved = normalize(frames.values + features @ learned.down.T @ learned.up.T, dim=-1)
    return replace(frames, values=moved, features=features)


def learned_logits(frames: FrameEmbeddings, learned: LearnedClasses) -> Tensor:
    """Return what an adapter adds to the logits of adapted frames, [B, A]."""
    features = frames.features
    assert features is not None
    present = torch.ones_like(features[..., 0]) if frames.mask is None else frames.mask.to(features)
    pooled = torch.einsum("btf,bt->bf", features, present / present.sum(-1, keepdim=True))
    return pooled @ learned.weight.T + learned.bias


def _kind_scores(frames: FrameEmbeddings, descriptors: Descriptors, eps: float) -> Tensor:
    """Return OT + pool of one kind, [B, A]."""
    frame_mask = None if frames.mask is None else frames.mask[:, None, :]
    parts: list[Tensor] = []
    for classes in _chunks(frames, descriptors):
        sim = similarity(frames.values, descriptors, classes)
        mask = None if descriptors.full else descriptors.mask[classes]
        transported = score(sim, eps, frame_mask=frame_mask, descriptor_mask=mask)
        pooled = score(sim, math.inf, frame_mask=frame_mask, descriptor_mask=mask)
        parts.append(transported + pooled)
    return torch.cat(parts, dim=1)


def _chunks(frames: FrameEmbeddings, descriptors: Descriptors) -> Iterator[slice]:
    clips, length, _ = frames.values.shape
    classes, most, _ = descriptors.values.shape
    step = max(1, SIMILARITIES_AT_ONCE // max(1, clips * length * most))
    return (slice(start, start + step) for start in range(0, classes, step))


def _mean_pool(frames: FrameEmbeddings, names: Descriptors) -> Tensor:
    raw = frames.values * frames.norms[..., None]
    if frames.mask is not None:
        raw = torch.where(frames.mask[..., None], raw, 0.0)
    pooled = normalize(raw.sum(1), dim=-1)
    return similarity(pooled[:, None, :], names)[:, :, 0, 0]


def _check(frames: FrameEmbeddings, head: ClassHead, kinds: Sequence[Kind]) -> None:
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
        if (position := head.kinds[kind].infinite) is not None:
            a, n = position
            raise TransportError(f"class {head.names[a]!r}: its {kind} embedding {n} is not finite")
