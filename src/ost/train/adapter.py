"""Fit an adapter to a few labelled clips in seconds, from the cached embeddings of frozen towers.

The logits are those of the descriptors, at a temperature fitted to the examples, plus a linear map of the features:

    logits = tau * match(v + U D x, head) + W x + b,    x unit features from the examples' mean, averaged over a clip

W is a multinomial logistic regression beside the zero-shot logits (their information is an offset, not a feature),
with an L2 weight chosen by leave-one-shot-out cross-validation on the examples alone. U then moves the frame
embeddings v along with W through the matching; D holds the examples' principal directions. In the common objective a
change of a logit costs the same through U as through W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ost.backbones.adapter import Adapter
from ost.backbones.base import Backbone
from ost.recognition.match import match
from ost.recognition.reader import some_clips
from ost.train.config import TrainConfig
from ost.types import ClassHead, Descriptors, FrameEmbeddings, Kind, LearnedClasses

PENALTIES = tuple(10.0 ** (k / 2) for k in range(1, -9, -1))  # 3 to 1e-4
TEMPERATURES = tuple(2.0 ** (k / 2) for k in range(-8, 5))  # 1/16 to 4
BIAS_PENALTY = 1e-3  # holds the biases, which would run away where classes separate
RANK, RESIDUAL_STEPS = 16, 8


@dataclass(frozen=True)
class Examples:
    """Labelled clips, embedded by a frozen backbone.

    Attributes:
        frames: embeddings and raw features of n clips.
        labels: int64 [n], rows of the head.
    """

    frames: FrameEmbeddings
    labels: Tensor


@dataclass(frozen=True)
class Fitted:
    """A fitted adapter and the cross-validation that chose its penalty.

    Attributes:
        adapter: the learned parameters.
        penalty: the L2 weight chosen by cross-validation.
        losses: penalty -> cross-validated loss, nats per clip; empty if no class has two examples.
    """

    adapter: Adapter
    penalty: float
    losses: dict[float, float]


class Linear(NamedTuple):
    """Weight [A, F] and bias [A] of the classes."""

    weight: Tensor
    bias: Tensor


def fit_adapter(backbone: Backbone, head: ClassHead, examples: Examples, config: TrainConfig) -> Fitted:
    """Fit an adapter to the examples; deterministic to the bit on one machine.

    Args:
        backbone: frozen.
        head: the classes, with the logit scale of the backbone.
        examples: of these classes; a class without examples is left unchanged.
        config: `kinds`, `eps` and `frames` are read.
    """
    frames = examples.frames
    classes, labels = torch.unique(examples.labels, return_inverse=True)
    head = _some_classes(head, classes)
    unit = frames.unit_features
    centre = unit.mean((0, 1))
    pooled = normalize(unit - centre, dim=-1).mean(1)
    zero_shot = match(frames, head, kinds=config.kinds, eps=config.eps).logits
    temperature = _temperature(zero_shot, labels)
    offset = temperature * zero_shot
    # The regression's weights lie in the span of the examples: a class needs one number per clip.
    _, singular_values, basis = torch.linalg.svd(pooled.double(), full_matrices=False)
    reduced = pooled.double() @ basis.T
    penalty, losses = _choose_penalty(offset, reduced, labels)
    weight, bias = _regress(offset, reduced, labels, penalty)
    adapter = Adapter(
        backbone=backbone.name,
        backbone_hash=backbone.weights_hash,
        names=head.names,
        frames=config.frames,
        temperature=temperature,
        centre=centre,
        weight=(weight @ basis).to(pooled),
        bias=bias.to(pooled),
        down=basis[: min(RANK, len(singular_values))].to(pooled).contiguous(),
        up=pooled.new_zeros(frames.values.shape[-1], min(RANK, len(singular_values))),
    )
    return Fitted(_with_residual(adapter, head, Examples(frames, labels), penalty, config), penalty, losses)


def _some_classes(head: ClassHead, chosen: Tensor) -> ClassHead:
    """Return the class head restricted to the `chosen` rows."""
    index: list[int] = chosen.tolist()

    def some_rows(d: Descriptors) -> Descriptors:
        shift, gain = (None if t is None else t[chosen] for t in (d.shift, d.gain))
        return Descriptors(d.values[chosen], d.mask[chosen], tuple(d.texts[a] for a in index), shift, gain)

    kinds: dict[Kind, Descriptors] = {kind: some_rows(d) for kind, d in head.kinds.items()}
    return replace(head, names=tuple(head.names[a] for a in index), kinds=kinds, hash="")


def _temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature at which the zero-shot logits have the least cross-entropy on the examples."""
    losses = [float(cross_entropy(t * logits, labels)) for t in TEMPERATURES]
    return TEMPERATURES[losses.index(min(losses))]


def _choose_penalty(offset: Tensor, pooled: Tensor, labels: Tensor) -> tuple[float, dict[float, float]]:
    """Return the L2 weight with the least loss on left-out shots, or the middle one if there is only one shot."""
    shots = _shot_numbers(labels.tolist())
    folds = range(min(5, max(shots) + 1))
    if len(folds) < 2:
        return PENALTIES[len(PENALTIES) // 2], {}
    fold = torch.tensor(shots, device=labels.device) % len(folds)
    losses = dict.fromkeys(PENALTIES, 0.0)
    for left_out in folds:
        test = fold == left_out
        fitted = None
        for penalty in PENALTIES:  # from strong to weak, each warm-started from the one before
            fitted = _regress(offset[~test], pooled[~test], labels[~test], penalty, fitted)
            logits = offset[test] + pooled[test] @ fitted.weight.T + fitted.bias
            losses[penalty] += float(cross_entropy(logits, labels[test], reduction="sum")) / len(labels)
    return min(losses, key=losses.__getitem__), losses


def _shot_numbers(labels: Sequence[int]) -> list[int]:
    """Number the examples within their class, from 0."""
    counts: dict[int, int] = {}
    shots: list[int] = []
    for label in labels:
        shots.append(counts.get(label, 0))
        counts[label] = shots[-1] + 1
    return shots


def _regress(
    offset: Tensor, pooled: Tensor, labels: Tensor, penalty: float, start: Linear | None = None
) -> Linear:
    """Fit a multinomial logistic regression with the given logits as offset, in fp64.

    Minimises sum of cross-entropies + penalty / 2 * |W|^2, which is convex, by L-BFGS.
    """
    x, zero_shot = pooled.double(), offset.double()
    weight, bias = start or Linear(
        x.new_zeros(zero_shot.shape[1], x.shape[1]), x.new_zeros(zero_shot.shape[1])
    )
    weight, bias = (t.clone().requires_grad_() for t in (weight, bias))

    def objective() -> Tensor:
        fit = cross_entropy(zero_shot + x @ weight.T + bias, labels, reduction="sum")
        return fit + penalty / 2 * weight.square().sum() + BIAS_PENALTY * bias.square().sum()

    _minimise(objective, [weight, bias], 200)
    return Linear(weight.detach(), bias.detach())


def _minimise(objective: Callable[[], Tensor], parameters: list[Tensor], steps: int) -> None:
    """Minimise the objective over the parameters in place, by L-BFGS."""
    solver = torch.optim.LBFGS(
        parameters, max_iter=steps, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    solver.step(closure)  # pyright: ignore[reportArgumentType]


def _with_residual(
    adapter: Adapter, head: ClassHead, examples: Examples, penalty: float, config: TrainConfig
) -> Adapter:
    """Return the adapter with a residual on frame embeddings, learned with W and b through the matching."""
    up, weight, bias = (t.clone().requires_grad_() for t in (adapter.up, adapter.weight, adapter.bias))
    scale = head.logit_scale * adapter.temperature

    def objective() -> Tensor:
        learned = LearnedClasses(weight, bias, adapter.temperature, adapter.centre, adapter.down, up)
        adapted = replace(head, learned=learned)
        logits = match(examples.frames, adapted, kinds=config.kinds, eps=config.eps).logits
        norm = weight.square().sum() + (scale * up).square().sum()
        fit = cross_entropy(logits, examples.labels, reduction="sum")
        return fit + penalty / 2 * norm + BIAS_PENALTY * bias.square().sum()

    _minimise(objective, [up, weight, bias], RESIDUAL_STEPS)
    return replace(adapter, up=up.detach(), weight=weight.detach(), bias=bias.detach())


def zero_shot_accuracy(head: ClassHead, examples: Examples, config: TrainConfig) -> float:
    """Return the share of clips recognised without an adapter."""
    logits = match(examples.frames, head, kinds=config.kinds, eps=config.eps).logits
    return float((logits.argmax(-1) == examples.labels).float().mean())


def accuracy(adapter: Adapter, head: ClassHead, examples: Examples, config: TrainConfig) -> float:
    """Return the share of clips recognised with the adapter."""
    adapted = replace(head, learned=adapter.classes(head.names))
    logits = match(examples.frames, adapted, kinds=config.kinds, eps=config.eps).logits
    return float((logits.argmax(-1) == examples.labels).float().mean())


def select_examples(examples: Examples, chosen: Sequence[int]) -> Examples:
    """Return the examples with the `chosen` indices."""
    return Examples(some_clips(examples.frames, list(chosen)), examples.labels[list(chosen)])
