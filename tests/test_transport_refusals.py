"""What transport refuses, each with its place: numbers, weights, masks and shapes that no plan exists for."""

import math

import numpy as np
import pytest
import torch

from ost.errors import TransportError
from ost.transport import score


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_similarity_that_is_not_finite_is_rejected_with_its_place(bad):
    sim = torch.zeros(2, 3, 4, 5)
    sim[1, 2, 0, 3] = bad
    for eps in (0.1, math.inf):
        with pytest.raises(TransportError, match=r"sim: not finite at \[1, 2, 0, 3\]: -?(nan|inf)"):
            score(sim, eps)


@pytest.mark.parametrize("eps", [0, -0.1, math.nan, -math.inf])
def test_an_eps_that_is_not_positive_is_rejected(eps):
    with pytest.raises(TransportError, match="eps: must be positive"):
        score(torch.zeros(2, 2), eps)


def test_an_eps_too_small_for_fp32_is_an_error_and_never_a_nan():
    sim = torch.tensor(np.random.default_rng(8).uniform(-1, 1, (32, 4)).astype(np.float32))
    for eps in (1e-40, 1e-30, 1e-5):
        with pytest.raises(TransportError, match=f"eps={eps} is too small"):
            score(sim, eps)
    with pytest.raises(TransportError, match="too small"):
        score(sim * 1e38, 0.1)


def test_problems_without_frames_or_descriptors_are_rejected_with_their_place():
    sim = torch.zeros(2, 3, 4)
    mask = torch.tensor([[True, True, True], [False, False, False]])
    with pytest.raises(TransportError, match=r"problem at \[1\] has no frame"):
        score(sim, 0.1, frame_mask=mask)
    with pytest.raises(TransportError, match=r"problem at \[0\] has no descriptor"):
        score(sim, 0.1, descriptor_mask=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(TransportError, match="no frame"):
        score(torch.zeros(2, 0, 4), 0.1)
    with pytest.raises(TransportError, match="no descriptor"):
        score(torch.zeros(3, 0), 0.1)


def test_wrong_shapes_are_rejected_by_name():
    with pytest.raises(TransportError, match=r"sim: expected .* got shape \(5,\)"):
        score(torch.zeros(5), 0.1)
    for name in ("frame_mask", "descriptor_mask"):
        with pytest.raises(TransportError, match=rf"{name}: shape \(7,\) does not broadcast"):
            score(torch.zeros(2, 3, 4), 0.1, **{name: torch.ones(7, dtype=torch.bool)})
    with pytest.raises(TransportError, match=r"frame_mask: shape \(9, 2, 3\) does not broadcast"):
        score(torch.zeros(2, 3, 4), 0.1, frame_mask=torch.ones(9, 2, 3, dtype=torch.bool))


def test_a_batch_of_no_problems_has_no_scores():
    scores, plans = score(torch.zeros(0, 3, 4), 0.1, return_plan=True)
    assert scores.shape == (0,)
    assert plans.shape == (0, 3, 4)
