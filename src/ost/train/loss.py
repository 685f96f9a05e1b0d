"""The losses: symmetric KL between a batch's clips and its own classes, and cross-entropy over all classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

SHARPNESS = 10.0


def symmetric_kl(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of OST (CVPR 2024, section 3.4): KL of both directions, each averaged over the batch, added.

    Targets are q = softmax(10 G) with G_ij = 1 where clips i and j have one label.

    Args:
        logits: [B, B], clips by the classes of the batch's clips.
        labels: [B].
    """
    targets = SHARPNESS * (labels[:, None] == labels[None, :]).float()
    return _kl(logits, targets) + _kl(logits.mT, targets)


def _kl(logits: Tensor, targets: Tensor) -> Tensor:
    predicted, wanted = log_softmax(logits.float(), -1), log_softmax(targets, -1)
    return kl_div(predicted, wanted, log_target=True, reduction="batchmean")


def over_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy [B, A] against labels [B], averaged over the batch."""
    return cross_entropy(logits.float(), labels)
