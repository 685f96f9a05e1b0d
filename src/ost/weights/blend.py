"""Blend original and fine-tuned weights (WiSE-FT, CVPR 2022)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ost.errors import WeightsError
from ost.files import text_hash
from ost.weights.formats import Weights, account


def blend(original: Weights, tuned: Weights, ratio: float) -> Weights:
    """Return ratio * original + (1 - ratio) * tuned, tensor by tensor in fp32 (WiSE-FT, CVPR 2022).

    The blend keeps the pixels of the tuned weights.

    Raises:
        WeightsError: the ratio is outside 0..1 or the two differ in names or shapes.
    """
    if not 0 <= ratio <= 1:
        raise WeightsError(f"blend is a share between 0 and 1, not {ratio}")
    account(original.state, tuned.state, "blend: the original")
    if None not in (activations := {original.quick_gelu, tuned.quick_gelu}) and len(activations) > 1:
        raise WeightsError("blend: one of the two uses QuickGELU and the other does not")
    state = {name: _interpolate(tensor, original.state[name], ratio) for name, tensor in tuned.state.items()}
    return replace(tuned, state=state, hash=text_hash(original.hash, tuned.hash, repr(float(ratio))))


def _interpolate(tuned: Tensor, original: Tensor, ratio: float) -> Tensor:
    return torch.lerp(tuned.float(), original.float(), ratio) if tuned.is_floating_point() else tuned
