"""Entropic optimal transport between frames and descriptors: similarity -> plan -> score.

For one problem with similarity S [T, N], cost C = 1 - S and uniform marginals a = 1/T, b = 1/N:

    P = argmin <P, C> + eps * sum P log P    over P >= 0 with row sums a and column sums b,
    score = <P, S>.                                               (OST, CVPR 2024, section 3.3)

A few log-domain Sinkhorn steps (Cuturi 2013) solve what CLIP gives at eps = 0.1. What they do not solve
goes on in fp64 with Newton's method on the dual of the descriptor side (Brauer et al. 2017), whose N x N
systems are tiny. Writing v for the dual variables over eps, P = a * softmax(S/eps + v, rows) has exact row
sums and the dual's gradient is b - column sums; a step of length log(1 + d)/d, d the range of the Newton
direction, always ascends because the dual is self-concordant in that range (Sun & Tran-Dinh 2019), so no line
search is needed. Each problem stops alone, when its own column sums are within `TOLERANCE` (L1) of b.
"""

from __future__ import annotations

import math
from typing import Literal, overload

import torch
from torch import Tensor

from ost.errors import TransportError

TOLERANCE = 3e-6
SINKHORN_STEPS = 12
NEWTON_STEPS = 8  # a round; then the problems that are done are left out
NEWTON_ROUNDS = 12
CHUNK_ELEMENTS = 1 << 22  # similarities solved at once; the working set is about ten times 4 bytes each


@overload
def score(
    sim: Tensor,
    eps: float,
    *,
    frame_mask: Tensor | None = None,
    descriptor_mask: Tensor | None = None,
    return_plan: Literal[False] = False,
) -> Tensor: ...
@overload
def score(
    sim: Tensor,
    eps: float,
    *,
    frame_mask: Tensor | None = None,
    descriptor_mask: Tensor | None = None,
    return_plan: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def score(
    sim: Tensor,
    eps: float,
    *,
    frame_mask: Tensor | None = None,
    descriptor_mask: Tensor | None = None,
    return_plan: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Transport score <P, sim> of every problem; at eps = inf the mean of its similarities.

    The gradient flows through `sim` and not through the plan.

    Args:
        sim: similarities [..., T, N]; computed in fp32 whatever their dtype.
        eps: entropic weight, > 0, in units of similarity; inf gives the uniform plan.
        frame_mask: bool, broadcastable to [..., T]; False rows take no part.
        descriptor_mask: bool, broadcastable to [..., N]; False columns take no part.
        return_plan: also return the plans, [..., T, N].

    Returns:
        Scores [...] in fp32, or (scores, plans).

    Raises:
        TransportError: eps is not positive, a similarity that takes part is not finite, a problem has no
            frame or no descriptor, or a plan did not converge.
    """
    sim = sim.float()
    frames, descriptors = _masks(sim, frame_mask, descriptor_mask)
    valid = frames[..., :, None] & descriptors[..., None, :]
    _check(sim, eps, frames, descriptors, valid)
    # A masked similarity may be anything, nan included; zero keeps it out of sums and gradients.
    sim = torch.where(valid, sim, 0.0)
    with torch.no_grad():
        plans = _uniform(valid) if math.isinf(eps) else _plans(sim.detach(), eps, frames, descriptors)
    scores = (plans * sim).sum((-2, -1))
    return (scores, plans) if return_plan else scores


def _masks(sim: Tensor, frame_mask: Tensor | None, descriptor_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    if sim.ndim < 2:
        raise TransportError(f"sim: expected [..., frames, descriptors], got shape {tuple(sim.shape)}")
    expanded: list[Tensor] = []
    for name, mask, shape in (
        ("frame_mask", frame_mask, sim.shape[:-1]),
        ("descriptor_mask", descriptor_mask, sim.shape[:-2] + sim.shape[-1:]),
    ):
        if mask is None:
            mask = torch.ones((), dtype=torch.bool, device=sim.device)
        try:
            expanded.append(mask.to(sim.device, torch.bool).expand(shape))
        except RuntimeError as error:
            raise TransportError(
                f"{name}: shape {tuple(mask.shape)} does not broadcast to {tuple(shape)}"
            ) from error
    return expanded[0], expanded[1]


def _check(sim: Tensor, eps: float, frames: Tensor, descriptors: Tensor, valid: Tensor) -> None:
    if not eps > 0:
        raise TransportError(f"eps: must be positive, got {eps}")
    for name, mask in (("frame", frames), ("descriptor", descriptors)):
        empty = ~mask.any(-1)
        if mask.shape[-1] == 0 or bool(empty.any()):
            where = empty.nonzero().tolist()[0] if empty.numel() else []
            raise TransportError(f"sim: the problem at {where} has no {name}")
    bad = ~torch.isfinite(sim) & valid
    if bool(bad.any()):
        where = bad.nonzero()[0].tolist()
        raise TransportError(f"sim: not finite at {where}: {sim[tuple(where)].item()}")


def _uniform(valid: Tensor) -> Tensor:
    return valid / valid.sum((-2, -1), keepdim=True)


def _plans(sim: Tensor, eps: float, frames: Tensor, descriptors: Tensor) -> Tensor:
    """Plans of all problems, solved a bounded number at a time."""
    shape = sim.shape
    if shape[-1] > shape[-2]:  # the dual lives on the smaller side
        return _plans(sim.mT, eps, descriptors, frames).mT
    # [P, N, T]: the softmax over N, where the time goes, is several times faster across a contiguous T.
    sim = sim.reshape(-1, *shape[-2:]).mT.contiguous()
    frames, descriptors = frames.reshape(-1, shape[-2]), descriptors.reshape(-1, shape[-1])
    plans = torch.empty_like(sim)
    step = max(1, CHUNK_ELEMENTS // max(1, shape[-1] * shape[-2]))
    for start in range(0, len(sim), step):
        part = slice(start, start + step)
        plans[part] = _solve(sim[part], eps, frames[part], descriptors[part])
    return plans.mT.reshape(shape)


def _solve(sim: Tensor, eps: float, frames: Tensor, descriptors: Tensor) -> Tensor:
    """Plans [P, N, T] of P problems; no problem's answer depends on another."""
    a = frames / frames.sum(-1, keepdim=True)
    b = descriptors / descriptors.sum(-1, keepdim=True)
    kernel = _kernel(sim, eps, descriptors)
    dual, error = _sinkhorn(kernel, a, b, descriptors)
    plans = _rows(kernel, a, dual)
    # One look between rounds, never inside one: a GPU is not made to wait for every step.
    # Asked as "not within", so that a nan, where sim / eps overflows, is left over too.
    left = (~(error <= TOLERANCE)).nonzero()[:, 0]
    if len(left):
        plans[left] = _solve_hard(sim[left], eps, a[left], b[left], descriptors[left], dual[left])
    return plans


def _solve_hard(sim: Tensor, eps: float, a: Tensor, b: Tensor, descriptors: Tensor, dual: Tensor) -> Tensor:
    """Plans [P, N, T] of problems that Sinkhorn leaves over, in fp64 where the device has it.

    Nearly binary plans are what cancels out between sim / eps and the dual, both hundreds of times as large;
    in fp32 what is left depends in its sixth digit on how many problems are solved at once.
    """
    wide = torch.float32 if sim.device.type == "mps" else torch.float64
    kernel = _kernel(sim.to(wide), eps, descriptors)
    a, b, dual = a.to(wide), b.to(wide), dual.to(wide)
    error = torch.full_like(dual[:, 0], math.inf)
    for _ in range(NEWTON_ROUNDS):
        left = (~(error <= TOLERANCE)).nonzero()[:, 0]
        if not len(left):
            break
        dual[left], error[left] = _newton(kernel[left], a[left], b[left], dual[left])
    if not bool((error <= 10 * TOLERANCE).all()):
        worst = int(error.argmax())
        raise TransportError(
            f"sim: eps={eps} is too small for fp32 similarities of up to "
            f"{sim[worst].abs().max().item():.3g} (marginals off by {error[worst]:.1e})"
        )
    return _rows(kernel, a, dual).float()


def _kernel(sim: Tensor, eps: float, descriptors: Tensor) -> Tensor:
    return torch.where(descriptors[..., None], sim / eps, -math.inf)


def _rows(kernel: Tensor, a: Tensor, dual: Tensor) -> Tensor:
    """The plan with exact row sums that a dual stands for."""
    return torch.softmax(kernel + dual[..., None], 1) * a[:, None, :]


def _sinkhorn(kernel: Tensor, a: Tensor, b: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor]:
    """Log-domain Sinkhorn: duals [P, N] and what is wrong with their column sums [P]."""
    log_a, log_b = a.log()[:, None, :], b.log()
    dual = torch.zeros_like(b)
    error = torch.full_like(b[:, 0], math.inf)
    for _ in range(SINKHORN_STEPS):
        log_columns = torch.logsumexp(torch.log_softmax(kernel + dual[..., None], 1) + log_a, -1)
        error = (log_columns.exp() - b).abs().sum(-1)
        step = torch.where(descriptors, log_b - log_columns, 0.0)
        # A problem that is done stands still, so its answer does not depend on how long others take.
        dual = torch.where((error > TOLERANCE)[:, None], dual + step, dual)
    return dual, error


def _newton(kernel: Tensor, a: Tensor, b: Tensor, dual: Tensor) -> tuple[Tensor, Tensor]:
    """Damped Newton ascent on the dual: duals [P, N] and what is wrong with their column sums [P]."""
    inverse_a = torch.where(a > 0, 1 / a, 0.0)[:, None, :]
    # The dual is flat along (1, ..., 1); b b^T fills that direction, the ridge those of masked columns.
    eye = torch.eye(b.shape[-1], device=b.device, dtype=b.dtype)
    fill = b[:, :, None] * b[:, None, :] + 1e-7 * eye
    error = torch.full_like(b[:, 0], math.inf)
    moving = torch.ones_like(error, dtype=torch.bool)
    for _ in range(NEWTON_STEPS):
        plan = _rows(kernel, a, dual)
        columns = plan.sum(-1)
        gradient = b - columns
        error = gradient.abs().sum(-1)
        # The Hessian is the Laplacian of these weights. Its diagonal as their sum, not as what the column
        # leaves over, keeps it positive where a nearly binary plan makes both almost equal.
        weights = (plan * inverse_a) @ plan.mT * (1 - eye)
        hessian = torch.diag_embed(weights.sum(-1)) - weights + fill
        direction = torch.linalg.solve_ex(hessian, gradient[..., None])[0][..., 0]
        spread = (direction.amax(-1) - direction.amin(-1)).clamp_min(1e-6)
        step = direction * (torch.log1p(spread) / spread)[:, None]
        dual = torch.where(moving[:, None], dual + step, dual)
        # One step more once it is near enough: rounding decides when that is, and the step, which squares
        # what is left, takes the answer from the tolerance down to rounding itself.
        moving &= ~(error <= TOLERANCE)
    return dual, error
