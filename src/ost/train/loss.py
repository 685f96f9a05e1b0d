"""Compute the losses: symmetric KL between the clips and classes of a batch, and cross-entropy over all classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

SHARPNESS = 10.0


def symmetric_kl(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of OST (CVPR 2024, section 3.4): the sum of KL in both directions, each averaged over the batch.

    Targets are q = softmax(10 G) with G_ij = 1 where clips i and j have one label.

    Args:
        logits: [B, B]; rows are clips, columns the classes of these clips.
        labels: [B], class of each clip.
    """
    targets = SHARPNESS * (labels[:, None] == labels[None, :]).float()
    return _kl(logits, targets) + _kl(logits.mT, targets)


def _kl(logits: Tensor, targets: Tensor) -> Tensor:
    predicted, expected = log_softmax(logits.float(), -1), log_softmax(targets, -1)
    return kl_div(predicted, expected, log_target=True, reduction="batchmean")


def over_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of logits [B, A] against labels [B], averaged over the batch."""
    return cross_entropy(logits.float(), labels)
