"""An adapter from a few labelled clips: frozen towers, stored embeddings, seconds.

Logits of the descriptors, at a temperature that fits the examples, plus a linear map of the features:

    logits = tau * match(frames, head) + W x + b,    x the mean over a clip's frames of unit features

W is a multinomial logistic regression beside the zero-shot logits (their information is an offset, not a feature),
with an L2 weight chosen by leave-one-shot-out cross-validation on the examples alone. Then a low-rank residual on the
frame embeddings learns, through the matching, what W leaves over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ost.backbones.adapter import Adapter
from ost.backbones.base import Backbone
from ost.recognition.match import match
from ost.recognition.store import rows
from ost.train.config import TrainConfig
from ost.types import ClassHead, FrameEmbeddings

PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
TEMPERATURES = tuple(2.0 ** (k / 2) for k in range(-8, 5))  # 1/16 to 4
RANK, RESIDUAL_STEPS, RESIDUAL_LR, RESIDUAL_DECAY = 16, 30, 3e-3, 0.1


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


def fit_adapter(backbone: Backbone, head: ClassHead, examples: Examples, config: TrainConfig) -> Fitted:
    """Learn an adapter; the same examples give the same adapter, to the bit on one machine.

    Args:
        backbone: frozen.
        head: the classes, with the backbone's own logit scale.
        examples: of these classes; a class may have none.
        config: `kinds`, `eps`, `frames` and `seed` are read.
    """
    frames, labels = examples.frames, examples.labels
    assert frames.features is not None
    unit = normalize(frames.features, dim=-1)
    centre = unit.mean((0, 1))
    pooled = normalize(unit - centre, dim=-1).mean(1)
    zero_shot = match(frames, head, kinds=config.kinds, eps=config.eps).logits
    temperature = _temperature(zero_shot, labels)
    offset = temperature * zero_shot
    penalty, losses = _choose_penalty(offset, pooled, labels)
    weight, bias = _regress(offset, pooled, labels, penalty)
    width, features = frames.values.shape[-1], unit.shape[-1]
    generator = torch.Generator().manual_seed(config.seed)
    down = torch.randn(RANK, features, generator=generator).to(unit) / RANK**0.5
    adapter = Adapter(
        backbone=backbone.name,
        backbone_hash=backbone.weights_hash,
        names=head.names,
        frames=config.frames,
        temperature=temperature,
        centre=centre,
        weight=weight,
        bias=bias,
        down=down,
        up=unit.new_zeros(width, RANK),
    )
    return Fitted(_with_residual(adapter, head, examples, config), penalty, losses)


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
    fold = torch.tensor(turns) % len(folds)
    losses: dict[float, float] = {}
    for penalty in PENALTIES:
        total = 0.0
        for left_out in folds:
            test = fold == left_out
            weight, bias = _regress(offset[~test], pooled[~test], labels[~test], penalty)
            logits = offset[test] + pooled[test] @ weight.T + bias
            total += float(cross_entropy(logits, labels[test], reduction="sum"))
        losses[penalty] = total / len(labels)
    return min(losses, key=losses.__getitem__), losses


def _turns(labels: Sequence[int]) -> list[int]:
    """For each example, the how-manieth of its class it is."""
    seen: dict[int, int] = {}
    turns: list[int] = []
    for label in labels:
        turns.append(seen.get(label, 0))
        seen[label] = turns[-1] + 1
    return turns


def _regress(offset: Tensor, pooled: Tensor, labels: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression beside given logits: weight [A, F] and bias [A].

    Minimises sum of cross-entropies + penalty / 2 * |W|^2, which is convex, in fp64 by L-BFGS.
    """
    x, start = pooled.double(), offset.double()
    weight = x.new_zeros(offset.shape[1], x.shape[1]).requires_grad_()
    bias = x.new_zeros(offset.shape[1]).requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=200,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        fit = cross_entropy(start + x @ weight.T + bias, labels, reduction="sum")
        # A little of the penalty holds the biases, which would run away where classes separate.
        loss = fit + penalty / 2 * weight.square().sum() + 1e-3 * bias.square().sum()
        loss.backward()
        return loss

    solver.step(closure)  # pyright: ignore[reportArgumentType]
    return weight.detach().to(pooled), bias.detach().to(pooled)


def _with_residual(adapter: Adapter, head: ClassHead, examples: Examples, config: TrainConfig) -> Adapter:
    """The adapter with a residual on frame embeddings, trained through the matching."""
    down, up = adapter.down.clone().requires_grad_(), adapter.up.clone().requires_grad_()
    optimiser = torch.optim.AdamW([down, up], lr=RESIDUAL_LR, weight_decay=RESIDUAL_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, RESIDUAL_STEPS)
    shown = replace(
        head,
        logit_scale=head.logit_scale * adapter.temperature,
        learned=adapter.classes(head.names),
    )
    for _ in range(RESIDUAL_STEPS):
        moved = replace(adapter, down=down, up=up).adapted(examples.frames)
        logits = match(moved, shown, kinds=config.kinds, eps=config.eps).logits
        optimiser.zero_grad()
        cross_entropy(logits, examples.labels).backward()
        optimiser.step()
        schedule.step()
    return replace(adapter, down=down.detach(), up=up.detach())


def zero_shot_accuracy(head: ClassHead, examples: Examples, config: TrainConfig) -> float:
    """Share of clips recognised without an adapter."""
    logits = match(examples.frames, head, kinds=config.kinds, eps=config.eps).logits
    return float((logits.argmax(-1) == examples.labels).float().mean())


def accuracy(adapter: Adapter, head: ClassHead, examples: Examples, config: TrainConfig) -> float:
    """Share of clips recognised with the adapter."""
    shown = replace(
        head, logit_scale=head.logit_scale * adapter.temperature, learned=adapter.classes(head.names)
    )
    logits = match(adapter.adapted(examples.frames), shown, kinds=config.kinds, eps=config.eps).logits
    return float((logits.argmax(-1) == examples.labels).float().mean())


def some(examples: Examples, chosen: Sequence[int]) -> Examples:
    """Some of the examples."""
    return Examples(rows(examples.frames, chosen), examples.labels[list(chosen)])
