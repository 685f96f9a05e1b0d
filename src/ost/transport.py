"""Entropic optimal transport between frames and descriptors: similarity -> plan -> score.

For one problem with similarity S [T, N], cost C = 1 - S and uniform marginals a = 1/T, b = 1/N:

    P = argmin <P, C> + eps * sum P log P    over P >= 0 with row sums a and column sums b,
    score = <P, S>.                                               (OST, CVPR 2024, section 3.3)

A few Sinkhorn steps (Cuturi 2013) on exp(S/eps) solve what CLIP gives at eps = 0.1, in batches of thousands of
problems. Problems whose similarities span too much for fp32 exponentials take these steps in the log domain.
Problems that are still unsolved continue in fp64 with Newton's method on the dual of the descriptor side (Brauer et
al. 2017), whose N x N systems are tiny. Writing v for the dual variables over eps, P = a * softmax(S/eps + v, rows)
has exact row sums and the dual's gradient is b - column sums; a step of length log(1 + d)/d, d the range of the
Newton direction, always ascends because the dual is self-concordant in that range (Sun & Tran-Dinh 2019), so no
line search is needed. Each problem stops alone, when its own column sums are within `TOLERANCE` (L1) of b.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from ost.errors import TransportError

TOLERANCE = 3e-6
SINKHORN_STEPS = 12
MORE_STEPS = 48  # for the problems that the first steps leave unsolved, in a batch of their own
MOST_SPAN = (
    40.0  # of S / eps within a frame, for which every product of the plain iteration stays within fp32
)
NEWTON_STEPS = 8  # per round; then solved problems leave the batch
NEWTON_ROUNDS = 12
SOLVED_AT_ONCE = 1 << 22  # similarities solved at once; the working set is about ten times 4 bytes each


class Convergence(NamedTuple):
    """How each problem converged.

    Attributes:
        steps: int64 [...], Sinkhorn steps until the column sums were within the tolerance; -1 where Newton's method
            took over.
        error: fp32 [...], final distance of the column sums from b (L1); the row sums are exact.
    """

    steps: Tensor
    error: Tensor


@overload
def score(
    sim: Tensor,
    eps: float,
    *,
    frame_mask: Tensor | None = None,
    descriptor_mask: Tensor | None = None,
) -> Tensor: ...
@overload
def score(
    sim: Tensor,
    eps: float,
    *,
    frame_mask: Tensor | None = None,
    descriptor_mask: Tensor | None = None,
    return_plan: Literal[True],
    return_info: Literal[False] = False,
) -> tuple[Tensor, Tensor]: ...
@overload
def score(
    sim: Tensor,
    eps: float,
    *,
    frame_mask: Tensor | None = None,
    descriptor_mask: Tensor | None = None,
    return_plan: Literal[False] = False,
    return_info: Literal[True],
) -> tuple[Tensor, Convergence]: ...
def score(
    sim: Tensor,
    eps: float,
    *,
    frame_mask: Tensor | None = None,
    descriptor_mask: Tensor | None = None,
    return_plan: bool = False,
    return_info: bool = False,
) -> Tensor | tuple[Tensor, Tensor] | tuple[Tensor, Convergence]:
    """Return the transport score <P, sim> of every problem; at eps = inf, its mean similarity.

    The gradient flows through `sim` and not through the plan.

    Args:
        sim: similarities [..., T, N]; computed in fp32 whatever their dtype.
        eps: entropic weight, > 0, in units of similarity; inf gives the uniform plan.
        frame_mask: bool, broadcastable to [..., T]; False rows take no part.
        descriptor_mask: bool, broadcastable to [..., N]; False columns take no part.
        return_plan: also return the plans, [..., T, N].
        return_info: also return how each problem converged, instead of the plans.

    Returns:
        Scores [...] in fp32, or (scores, plans), or (scores, convergence).

    Raises:
        TransportError: eps is not positive, a similarity that takes part is not finite, a problem has no
            frame or no descriptor, or a plan did not converge.
    """
    if not eps > 0:
        raise TransportError(f"eps: must be positive, got {eps}")
    sim = sim.float()
    frames, descriptors = _masks(sim, frame_mask, descriptor_mask)
    if frames is not None or descriptors is not None or sim.numel() == 0:
        frames, descriptors, valid = _check_masks(sim, frames, descriptors)
        # A masked similarity may be anything, nan included; zero keeps it out of sums and gradients.
        sim = torch.where(valid, sim, 0.0)
    elif not bool(torch.isfinite(sim.detach().sum())):  # one pass; the elements are checked only if it fails
        _check_finite(sim)
    if math.isinf(eps):
        return _mean(sim, frames, descriptors, return_plan, return_info)
    problems = _problems(sim, frames, descriptors)
    with torch.no_grad():
        solved = _solve_all(problems, eps)
    scores = (solved.plan * problems.sim).sum((0, 1))
    shape = sim.shape[:-2]
    if return_info:
        return scores.view(shape), Convergence(solved.steps.view(shape), solved.error.view(shape))
    if return_plan:
        plan = solved.plan.transpose(0, 1) if problems.transposed else solved.plan
        return scores.view(shape), plan.permute(2, 0, 1).reshape(sim.shape)
    return scores.view(shape)


class _Problems(NamedTuple):
    """A batch of P problems, the contiguous dimension, so that every sum over T or N is a vector operation.

    Attributes:
        sim: [T, N, P], with T >= N.
        a: [T, P] or [T, 1], the required row sums.
        b: [N, P] or [N, 1], the required column sums.
        mask: bool [N, P], True for the columns that take part; None if all do.
        transposed: whether rows are descriptors; the dual lives on the smaller side.
    """

    sim: Tensor
    a: Tensor
    b: Tensor
    mask: Tensor | None
    transposed: bool

    def select(self, chosen: slice | Tensor) -> _Problems:
        """Return the chosen problems."""
        a, b = (m if m.shape[1] == 1 else m[:, chosen] for m in (self.a, self.b))
        mask = None if self.mask is None else self.mask[:, chosen]
        return self._replace(sim=self.sim[:, :, chosen], a=a, b=b, mask=mask)


class _Solved(NamedTuple):
    """Plans [T, N, P], and steps and error of each problem, [P], as in `Convergence`."""

    plan: Tensor
    steps: Tensor
    error: Tensor


def _masks(
    sim: Tensor, frame_mask: Tensor | None, descriptor_mask: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    if sim.ndim < 2:
        raise TransportError(f"sim: expected [..., frames, descriptors], got shape {tuple(sim.shape)}")
    expanded: list[Tensor | None] = []
    for name, mask, shape in (
        ("frame_mask", frame_mask, sim.shape[:-1]),
        ("descriptor_mask", descriptor_mask, sim.shape[:-2] + sim.shape[-1:]),
    ):
        try:
            expanded.append(None if mask is None else mask.to(sim.device, torch.bool).expand(shape))
        except RuntimeError as error:
            shapes = f"{tuple(mask.shape if mask is not None else ())} does not broadcast to {tuple(shape)}"
            raise TransportError(f"{name}: shape {shapes}") from error
    return expanded[0], expanded[1]


def _check_masks(
    sim: Tensor, frames: Tensor | None, descriptors: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return both masks expanded, and their product; raise for a problem without frames or descriptors."""
    everything = torch.ones((), dtype=torch.bool, device=sim.device)
    frames = everything.expand(sim.shape[:-1]) if frames is None else frames
    descriptors = everything.expand(sim.shape[:-2] + sim.shape[-1:]) if descriptors is None else descriptors
    for name, mask in (("frame", frames), ("descriptor", descriptors)):
        empty = ~mask.any(-1)
        if mask.shape[-1] == 0 or bool(empty.any()):
            where = empty.nonzero().tolist()[0] if empty.numel() else []
            raise TransportError(f"sim: the problem at {where} has no {name}")
    valid = frames[..., :, None] & descriptors[..., None, :]
    _check_finite(torch.where(valid, sim, 0.0))
    return frames, descriptors, valid


def _check_finite(sim: Tensor) -> None:
    """Raise for the first similarity that is not finite."""
    bad = ~torch.isfinite(sim)
    if bool(bad.any()):
        where = bad.nonzero()[0].tolist()
        raise TransportError(f"sim: not finite at {where}: {sim[tuple(where)].item()}")


def _mean(
    sim: Tensor, frames: Tensor | None, descriptors: Tensor | None, return_plan: bool, return_info: bool
) -> Any:
    """Return what `score` returns at infinite eps."""
    if frames is None or descriptors is None:
        plan = torch.full_like(sim, 1 / (sim.shape[-1] * sim.shape[-2]))
    else:
        valid = frames[..., :, None] & descriptors[..., None, :]
        plan = valid / valid.sum((-2, -1), keepdim=True)
    scores = (plan * sim).sum((-2, -1))
    if return_info:
        return scores, Convergence(torch.zeros_like(scores, dtype=torch.long), torch.zeros_like(scores))
    return (scores, plan) if return_plan else scores


def _problems(sim: Tensor, frames: Tensor | None, descriptors: Tensor | None) -> _Problems:
    """Return all problems as a batch, with the larger side as rows."""
    transposed = sim.shape[-1] > sim.shape[-2]
    if transposed:
        sim, frames, descriptors = sim.mT, descriptors, frames
    rows, columns = sim.shape[-2:]
    stacked = sim.reshape(-1, rows, columns).permute(1, 2, 0).contiguous()
    column_mask = None if descriptors is None else descriptors.reshape(-1, columns).T.contiguous()
    a, b = (
        sim.new_full((size, 1), 1 / size) if mask is None else _marginal(mask.reshape(-1, size).T)
        for size, mask in ((rows, frames), (columns, descriptors))
    )
    return _Problems(stacked, a, b, column_mask, transposed)


def _marginal(mask: Tensor) -> Tensor:
    return (mask / mask.sum(0)).contiguous()


def _solve_all(problems: _Problems, eps: float) -> _Solved:
    """Solve a bounded number of problems at a time, which bounds the memory."""
    rows, columns, count = problems.sim.shape
    step = max(1, SOLVED_AT_ONCE // (rows * columns))
    if count <= step:
        return _solve(problems, eps)
    parts = [_solve(problems.select(slice(start, start + step)), eps) for start in range(0, count, step)]
    return _Solved(*(torch.cat(column, -1) for column in zip(*parts, strict=True)))


def _solve(problems: _Problems, eps: float) -> _Solved:
    """Solve a batch of problems; no problem's answer depends on another."""
    log_kernel = problems.sim / eps
    if problems.mask is not None:
        log_kernel = torch.where(problems.mask, log_kernel, -math.inf)
    # The largest of a row becomes 1: the kernel then spans no more than the similarities of one frame.
    kernel = log_kernel.sub_(log_kernel.amax(1, keepdim=True)).exp_()
    scaling = torch.ones_like(kernel[0])
    plan, scaling, steps, error = _sinkhorn(kernel, problems, scaling, SINKHORN_STEPS)
    smallest = kernel if problems.mask is None else torch.where(problems.mask, kernel, 1.0)
    # Below, "not within" also selects nan, where sim / eps overflows.
    in_range = smallest.amin((0, 1)) >= math.exp(-MOST_SPAN)
    # Checked only between rounds: inside one, a GPU would have to synchronise at every step.
    rest = (~((error <= TOLERANCE) & in_range)).nonzero()[:, 0]
    if len(rest):
        solution = _solve_remaining(
            problems.select(rest), kernel[:, :, rest], scaling[:, rest], in_range[rest], eps
        )
        plan[:, :, rest], steps[rest], error[rest] = solution
    return _Solved(plan, steps, error)


def _solve_remaining(
    problems: _Problems, kernel: Tensor, scaling: Tensor, in_range: Tensor, eps: float
) -> _Solved:
    """Solve the problems that the first steps have not solved: more steps, then Newton's method."""
    plan, scaling, steps, error = _sinkhorn(kernel, problems, scaling, MORE_STEPS)
    steps += SINKHORN_STEPS
    rest = (~((error <= TOLERANCE) & in_range)).nonzero()[:, 0]
    if len(rest):
        hard = problems.select(rest)
        sim = hard.sim.permute(2, 1, 0).contiguous()
        a, b = (m.T.expand(len(rest), -1).contiguous() for m in (hard.a, hard.b))
        mask = torch.ones_like(b, dtype=torch.bool) if hard.mask is None else hard.mask.T.contiguous()
        log_kernel = _kernel(sim, eps, mask)
        dual, log_error = _log_sinkhorn(log_kernel, a, b, mask)
        plans = _rows(log_kernel, a, dual)
        newton = (~(log_error <= TOLERANCE)).nonzero()[:, 0]
        if len(newton):
            plans[newton], log_error[newton] = _solve_hard(
                sim[newton], eps, a[newton], b[newton], mask[newton], dual[newton]
            )
        plan[:, :, rest], steps[rest], error[rest] = plans.permute(2, 1, 0), -1, log_error
    return _Solved(plan, steps, error)


def _sinkhorn(
    kernel: Tensor, problems: _Problems, scaling: Tensor, most: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Iterate Sinkhorn on exp(S / eps) [T, N, P]; return plans, column scalings [N, P], steps and errors [P]."""
    a, b = problems.a, problems.b
    steps = torch.zeros_like(kernel[0, 0], dtype=torch.long)
    error = torch.full_like(kernel[0, 0], math.inf)
    stops_early = kernel.device.type == "cpu"
    work = torch.empty_like(kernel)  # reused by all steps: allocating it in each costs more than the products
    for _ in range(most):
        rows = a / torch.mul(kernel, scaling, out=work).sum(1)
        columns = torch.mul(kernel, rows[:, None], out=work).sum(0) * scaling
        error = (columns - b).abs_().sum(0)
        moving = ~(error <= TOLERANCE)
        if stops_early and not bool(moving.any()):
            break
        # A solved problem stays fixed, so its answer does not depend on how long others take.
        step = b / columns if problems.mask is None else torch.where(problems.mask, b / columns, 1.0)
        scaling = torch.where(moving, scaling * step, scaling)
        steps += moving
    rows = a / torch.mul(kernel, scaling, out=work).sum(1)
    plan = work.copy_(kernel).mul_(scaling).mul_(rows[:, None])
    return plan, scaling, steps, error


def _solve_hard(
    sim: Tensor, eps: float, a: Tensor, b: Tensor, descriptors: Tensor, dual: Tensor
) -> tuple[Tensor, Tensor]:
    """Return plans [P, N, T] and errors [P] of problems that Sinkhorn leaves unsolved, in fp64 where available.

    Nearly binary plans are what remains when sim / eps and the dual, both hundreds of times as large, cancel;
    in fp32 the sixth digit of that remainder depends on how many problems are solved at once.
    """
    dtype = torch.float32 if sim.device.type == "mps" else torch.float64
    kernel = _kernel(sim.to(dtype), eps, descriptors)
    a, b, dual = a.to(dtype), b.to(dtype), dual.to(dtype)
    error = torch.full_like(dual[:, 0], math.inf)
    for _ in range(NEWTON_ROUNDS):
        rest = (~(error <= TOLERANCE)).nonzero()[:, 0]
        if not len(rest):
            break
        dual[rest], error[rest] = _newton(kernel[rest], a[rest], b[rest], dual[rest])
    if not bool((error <= 10 * TOLERANCE).all()):
        worst = int(error.argmax())
        raise TransportError(
            f"sim: eps={eps} is too small for fp32 similarities of up to "
            f"{sim[worst].abs().max().item():.3g} (marginals off by {error[worst]:.1e})"
        )
    return _rows(kernel, a, dual).float(), error.float()


def _kernel(sim: Tensor, eps: float, descriptors: Tensor) -> Tensor:
    return torch.where(descriptors[..., None], sim / eps, -math.inf)


def _rows(kernel: Tensor, a: Tensor, dual: Tensor) -> Tensor:
    """Return the plan with exact row sums that a dual gives."""
    return torch.softmax(kernel + dual[..., None], 1) * a[:, None, :]


def _log_sinkhorn(kernel: Tensor, a: Tensor, b: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor]:
    """Iterate Sinkhorn in the log domain; return duals [P, N] and the errors of their column sums [P]."""
    log_a, log_b = a.log()[:, None, :], b.log()
    dual = torch.zeros_like(b)
    error = torch.full_like(b[:, 0], math.inf)
    for _ in range(SINKHORN_STEPS):
        log_columns = torch.logsumexp(torch.log_softmax(kernel + dual[..., None], 1) + log_a, -1)
        error = (log_columns.exp() - b).abs().sum(-1)
        step = torch.where(descriptors, log_b - log_columns, 0.0)
        # A solved problem stays fixed, so its answer does not depend on how long others take.
        dual = torch.where((error > TOLERANCE)[:, None], dual + step, dual)
    return dual, error


def _newton(kernel: Tensor, a: Tensor, b: Tensor, dual: Tensor) -> tuple[Tensor, Tensor]:
    """Ascend the dual by damped Newton steps; return duals [P, N] and the errors of their column sums [P]."""
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
        # The Hessian is the Laplacian of these weights. Its diagonal as their sum, not as the rest of the
        # column, keeps it positive where a nearly binary plan makes both almost equal.
        weights = (plan * inverse_a) @ plan.mT * (1 - eye)
        hessian = torch.diag_embed(weights.sum(-1)) - weights + fill
        direction = torch.linalg.solve_ex(hessian, gradient[..., None])[0][..., 0]
        spread = (direction.amax(-1) - direction.amin(-1)).clamp_min(1e-6)
        step = direction * (torch.log1p(spread) / spread)[:, None]
        dual = torch.where(moving[:, None], dual + step, dual)
        # One more step once within the tolerance: rounding decides when that is, and the step, which squares
        # the error, takes it from the tolerance down to rounding.
        moving &= ~(error <= TOLERANCE)
    return dual, error
