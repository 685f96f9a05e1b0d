"""An adapter from a few labelled clips: frozen towers, stored embeddings, seconds.

Logits of the descriptors, at a temperature that fits the examples, plus a linear map of the features:

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
    """Labelled clips as a frozen backbone sees them.

    Attributes:
        frames: embeddings and raw features of n clips.
        labels: int64 [n], rows of the head.
    """

    frames: FrameEmbeddings
    labels: Tensor


@dataclass(frozen=True)
class Fitted:
    """An adapter, and how its settings were found.

    Attributes:
        adapter: what was learned.
        penalty: the L2 weight that cross-validation chose.
        losses: penalty -> cross-validated loss, nats a clip; empty where a class has but one example.
    """

    adapter: Adapter
    penalty: float
    losses: dict[float, float]


class Linear(NamedTuple):
    """Weight [A, F] and bias [A] of the classes."""

    weight: Tensor
    bias: Tensor


def fit_adapter(backbone: Backbone, head: ClassHead, examples: Examples, config: TrainConfig) -> Fitted:
    """Learn an adapter; the same examples give the same adapter, to the bit on one machine.

    Args:
        backbone: frozen.
        head: the classes, with the backbone's own logit scale.
        examples: of these classes; those of which there is none are left as they are.
        config: `kinds`, `eps` and `frames` are read.
    """
    frames = examples.frames
    shown, labels = torch.unique(examples.labels, return_inverse=True)
    head = _some_classes(head, shown)
    unit = frames.unit_features
    centre = unit.mean((0, 1))
    pooled = normalize(unit - centre, dim=-1).mean(1)
    zero_shot = match(frames, head, kinds=config.kinds, eps=config.eps).logits
    temperature = _temperature(zero_shot, labels)
    offset = temperature * zero_shot
    # The regression's weights lie in the span of the examples: as many numbers a class as there are clips.
    _, sizes, basis = torch.linalg.svd(pooled.double(), full_matrices=False)
    short = pooled.double() @ basis.T
    penalty, losses = _choose_penalty(offset, short, labels)
    weight, bias = _regress(offset, short, labels, penalty)
    adapter = Adapter(
        backbone=backbone.name,
        backbone_hash=backbone.weights_hash,
        names=head.names,
        frames=config.frames,
        temperature=temperature,
        centre=centre,
        weight=(weight @ basis).to(pooled),
        bias=bias.to(pooled),
        down=basis[: min(RANK, len(sizes))].to(pooled).contiguous(),
        up=pooled.new_zeros(frames.values.shape[-1], min(RANK, len(sizes))),
    )
    return Fitted(_with_residual(adapter, head, Examples(frames, labels), penalty, config), penalty, losses)


def _some_classes(head: ClassHead, chosen: Tensor) -> ClassHead:
    """The head of some of the classes."""
    index: list[int] = chosen.tolist()

    def some_rows(d: Descriptors) -> Descriptors:
        shift, gain = (None if t is None else t[chosen] for t in (d.shift, d.gain))
        return Descriptors(d.values[chosen], d.mask[chosen], tuple(d.texts[a] for a in index), shift, gain)

    kinds: dict[Kind, Descriptors] = {kind: some_rows(d) for kind, d in head.kinds.items()}
    return replace(head, names=tuple(head.names[a] for a in index), kinds=kinds, hash="")


def _temperature(logits: Tensor, labels: Tensor) -> float:
    """What to multiply zero-shot logits with so that their probabilities fit the examples best."""
    losses = [float(cross_entropy(t * logits, labels)) for t in TEMPERATURES]
    return TEMPERATURES[losses.index(min(losses))]


def _choose_penalty(offset: Tensor, pooled: Tensor, labels: Tensor) -> tuple[float, dict[float, float]]:
    """The L2 weight with the least loss on left-out shots; a middle one where there is but one shot."""
    turns = _turns(labels.tolist())
    folds = range(min(5, max(turns) + 1))
    if len(folds) < 2:
        return PENALTIES[len(PENALTIES) // 2], {}
    fold = torch.tensor(turns, device=labels.device) % len(folds)
    losses = dict.fromkeys(PENALTIES, 0.0)
    for left_out in folds:
        test = fold == left_out
        fitted = None
        for penalty in PENALTIES:  # from strong to weak, each from the one before
            fitted = _regress(offset[~test], pooled[~test], labels[~test], penalty, fitted)
            logits = offset[test] + pooled[test] @ fitted.weight.T + fitted.bias
            losses[penalty] += float(cross_entropy(logits, labels[test], reduction="sum")) / len(labels)
    return min(losses, key=losses.__getitem__), losses


def _turns(labels: Sequence[int]) -> list[int]:
    """For each example, the how-manieth of its class it is."""
    seen: dict[int, int] = {}
    turns: list[int] = []
    for label in labels:
        turns.append(seen.get(label, 0))
        seen[label] = turns[-1] + 1
    return turns


def _regress(
    offset: Tensor, pooled: Tensor, labels: Tensor, penalty: float, start: Linear | None = None
) -> Linear:
    """Multinomial logistic regression beside given logits, fp64.

    Minimises sum of cross-entropies + penalty / 2 * |W|^2, which is convex, by L-BFGS.
    """
    x, given = pooled.double(), offset.double()
    weight, bias = start or Linear(x.new_zeros(given.shape[1], x.shape[1]), x.new_zeros(given.shape[1]))
    weight, bias = (t.clone().requires_grad_() for t in (weight, bias))

    def objective() -> Tensor:
        fit = cross_entropy(given + x @ weight.T + bias, labels, reduction="sum")
        return fit + penalty / 2 * weight.square().sum() + BIAS_PENALTY * bias.square().sum()

    _minimise(objective, [weight, bias], 200)
    return Linear(weight.detach(), bias.detach())


def _minimise(objective: Callable[[], Tensor], parameters: list[Tensor], steps: int) -> None:
    """L-BFGS in place."""
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
    """The adapter with a residual on frame embeddings, learned with W and b through the matching."""
    up, weight, bias = (t.clone().requires_grad_() for t in (adapter.up, adapter.weight, adapter.bias))
    scale = head.logit_scale * adapter.temperature

    def objective() -> Tensor:
        learned = LearnedClasses(weight, bias, adapter.temperature, adapter.centre, adapter.down, up)
        shown = replace(head, learned=learned)
        logits = match(examples.frames, shown, kinds=config.kinds, eps=config.eps).logits
        size = weight.square().sum() + (scale * up).square().sum()
        fit = cross_entropy(logits, examples.labels, reduction="sum")
        return fit + penalty / 2 * size + BIAS_PENALTY * bias.square().sum()

    _minimise(objective, [up, weight, bias], RESIDUAL_STEPS)
    return replace(adapter, up=up.detach(), weight=weight.detach(), bias=bias.detach())


def zero_shot_accuracy(head: ClassHead, examples: Examples, config: TrainConfig) -> float:
    """Share of clips recognised without an adapter."""
    logits = match(examples.frames, head, kinds=config.kinds, eps=config.eps).logits
    return float((logits.argmax(-1) == examples.labels).float().mean())


def accuracy(adapter: Adapter, head: ClassHead, examples: Examples, config: TrainConfig) -> float:
    """Share of clips recognised with the adapter."""
    shown = replace(head, learned=adapter.classes(head.names))
    logits = match(examples.frames, shown, kinds=config.kinds, eps=config.eps).logits
    return float((logits.argmax(-1) == examples.labels).float().mean())


def some(examples: Examples, chosen: Sequence[int]) -> Examples:
    """Some of the examples."""
    return Examples(some_clips(examples.frames, list(chosen)), examples.labels[list(chosen)])
