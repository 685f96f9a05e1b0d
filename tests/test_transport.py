"""Transport against POT, against an fp64 solution of the dual, and against what must hold of any answer."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from ost import transport
from ost.transport import TOLERANCE, score

with warnings.catch_warnings():  # POT's own source holds an invalid escape
    warnings.simplefilter("ignore")
    import ot
    import ot.batch

MANY = settings(max_examples=300, deadline=None, derandomize=True, database=None)
FEW = settings(MANY, max_examples=100)


pytestmark = pytest.mark.usefixtures("one_thread")


def similarities(kind, rng, *shape):
    """fp32 similarities of a kind; `structured` ones are what Sinkhorn alone needs very long for."""
    frames, descriptors = shape[-2:]
    if kind == "spread":
        made = rng.uniform(-1, 1, shape)
    elif kind == "clip":
        made = 0.25 + 0.03 * rng.standard_normal(shape)
    elif kind == "ternary":
        made = rng.integers(-1, 2, shape)
    elif kind == "permutation":
        made = np.eye(descriptors)[rng.integers(0, descriptors, shape[:-1])]
    else:
        cut = rng.uniform(size=2)
        rows, columns = np.arange(frames) < cut[0] * frames, np.arange(descriptors) < cut[1] * descriptors
        made = np.where(rows[:, None] == columns, 1.0, -1.0) + 1e-3 * rng.standard_normal(shape)
    return torch.tensor(np.asarray(made, dtype=np.float32))


@st.composite
def problems(draw, batch=None):
    """(similarities, eps) with eps log-uniform in 0.01 .. 10."""
    kind = draw(st.sampled_from(["spread", "clip", "ternary", "permutation", "structured"]))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 16)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    eps = 10 ** draw(st.floats(-2, 1))
    return similarities(kind, rng, *(() if batch is None else (batch,)), *shape), eps


def by_pot(sim, eps):
    """POT's score in fp64 and what is wrong with its marginals."""
    t, n = sim.shape
    a, b = np.full(t, 1 / t), np.full(n, 1 / n)
    plan = ot.bregman.sinkhorn_log(a, b, 1 - sim, eps, numItermax=2000, stopThr=1e-10, warn=False)
    return (plan * sim).sum(), np.abs(plan.sum(0) - b).sum() + np.abs(plan.sum(1) - a).sum()


def by_dual(sim, eps):
    """The same from scipy's trust-region minimisation of the dual."""
    t, n = sim.shape
    if n == 1:
        return sim.mean(), 0.0

    def plan(v):
        return softmax(sim / eps + np.append(v, 0), axis=1) / t

    def value(v):
        return logsumexp(sim / eps + np.append(v, 0), axis=1).mean() - v.sum() / n

    def hessian(v):
        p = plan(v)
        return (np.diag(p.sum(0)) - t * p.T @ p)[:-1, :-1]

    found = minimize(
        value,
        np.zeros(n - 1),
        jac=lambda v: (plan(v).sum(0) - 1 / n)[:-1],
        hess=hessian,
        method="trust-exact",
        options={"gtol": 1e-12, "maxiter": 2000},
    )
    solution = plan(found.x)
    return (solution * sim).sum(), np.abs(solution.sum(0) - 1 / n).sum()


@MANY
@given(problems())
def test_scores_equal_pots_wherever_pot_converges_and_the_dual_optimum_everywhere(problem):
    sim, eps = problem
    got = score(sim, eps).item()
    expected, error = by_pot(sim.double().numpy(), eps)
    if error < 1e-9:
        assert got == pytest.approx(expected, abs=1e-5)
    wide = sim if sim.shape[0] >= sim.shape[1] else sim.mT
    expected, error = by_dual(wide.double().numpy(), eps)
    assert error < 2e-6
    assert got == pytest.approx(expected, abs=1e-5)


def test_scores_equal_pots_batched_solver():
    sim = similarities("spread", np.random.default_rng(0), 30, 12, 5)
    for eps in (0.1, 1.0, 10.0):
        solved = ot.batch.solve_batch(
            1 - sim.double(), reg=eps, max_iter=5000, tol=1e-12, method="log_sinkhorn", grad="detach"
        )
        expected = (solved.plan * sim).sum((-2, -1))
        torch.testing.assert_close(score(sim, eps).double(), expected, atol=1e-5, rtol=0)


@MANY
@given(problems(batch=3))
def test_plans_have_uniform_marginals(problem):
    sim, eps = problem
    _, plans = score(sim, eps, return_plan=True)
    t, n = sim.shape[-2:]
    exact, near = (plans.sum(-1) * t, plans.sum(-2) * n) if t >= n else (plans.sum(-2) * n, plans.sum(-1) * t)
    assert bool((plans >= 0).all())
    assert (exact - 1).abs().max().item() < 2e-6
    assert ((near - 1).abs().sum(-1) / min(t, n)).max().item() < 10 * TOLERANCE


def test_only_uniform_marginals_at_the_optimum_pass():
    """Perturbing the plan along its marginals lowers the entropic objective."""
    generator = torch.Generator().manual_seed(0)
    sim, eps = similarities("spread", np.random.default_rng(1), 9, 4).double(), 0.2
    _, plan = score(sim, eps, return_plan=True)
    plan = plan.double()

    def objective(p):
        return ((p * (1 - sim)) + eps * p * p.log()).sum()

    best = objective(plan)
    for _ in range(20):
        noise = torch.randn(9, 4, generator=generator, dtype=torch.float64)
        noise = noise - noise.mean(0) - noise.mean(1, keepdim=True) + noise.mean()
        assert objective(plan + 0.1 * plan.min() * noise / noise.abs().max()) > best


@FEW
@given(problems(batch=12), st.integers(0, 2**32))
def test_a_score_does_not_depend_on_its_batch(problem, seed):
    sim, eps = problem
    rng = np.random.default_rng(seed)
    together, plans = score(sim, eps, return_plan=True)
    alone = torch.stack([score(one, eps) for one in sim])
    order = torch.tensor(rng.permutation(len(sim)))
    other = similarities("structured", rng, 5, *sim.shape[1:])
    shuffled, moved = score(torch.cat([other, sim[order]]), eps, return_plan=True)
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)
    torch.testing.assert_close(shuffled[5:], together[order], atol=1e-6, rtol=0)
    torch.testing.assert_close(moved[5:], plans[order], atol=1e-6, rtol=0)


@FEW
@given(problems(batch=6))
def test_every_problem_says_how_it_converged(problem):
    sim, eps = problem
    scores, info = score(sim, eps, return_info=True)
    same, plans = score(sim, eps, return_plan=True)
    assert torch.equal(scores, same)
    assert info.steps.shape == scores.shape and bool((info.error <= 10 * TOLERANCE).all())
    for sums in (plans.double().sum(-1), plans.double().sum(-2)):
        assert bool(((sums - sums.mean(-1, keepdim=True)).abs().sum(-1) <= 3e-5).all())


def test_what_clip_gives_takes_a_few_steps_each_problem_alone():
    rng = np.random.default_rng(0)
    easy, hard = similarities("clip", rng, 50, 32, 4), similarities("spread", rng, 50, 32, 4)
    _, alone = score(easy, 0.1, return_info=True)
    _, together = score(torch.cat([hard, easy]), 0.1, return_info=True)
    assert int(alone.steps.min()) >= 1 and int(alone.steps.max()) <= 6
    assert torch.equal(together.steps[50:], alone.steps)
    assert int(together.steps[:50].max()) > 6 or int(together.steps[:50].min()) == -1
    assert not score(easy, math.inf, return_info=True)[1].steps.any(), "the mean takes none"


@pytest.mark.parametrize("elements", [1, 60, 1000])
def test_how_many_are_solved_at_once_changes_nothing(monkeypatch, elements):
    sim = similarities("ternary", np.random.default_rng(2), 4, 7, 10, 6)
    together = score(sim, 0.03)
    monkeypatch.setattr(transport, "SOLVED_AT_ONCE", elements)
    torch.testing.assert_close(score(sim, 0.03), together, atol=1e-6, rtol=0)


@FEW
@given(problems(), st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32))
def test_masking_equals_cutting_away(problem, more_frames, more_descriptors, seed):
    sim, eps = problem
    rng = np.random.default_rng(seed)
    t, n = sim.shape
    rows = torch.tensor(np.sort(rng.permutation(t + more_frames)[:t]))
    columns = torch.tensor(np.sort(rng.permutation(n + more_descriptors)[:n]))
    junk = torch.tensor(
        rng.choice([math.nan, math.inf, -math.inf, 1e38], (t + more_frames, n + more_descriptors))
    )
    padded = junk.float().index_put((rows[:, None], columns), sim)
    frames = torch.zeros(t + more_frames, dtype=torch.bool).index_fill(0, rows, True)
    descriptors = torch.zeros(n + more_descriptors, dtype=torch.bool).index_fill(0, columns, True)
    for weight in (eps, math.inf):
        expected, plan = score(sim, weight, return_plan=True)
        got, padded_plan = score(
            padded, weight, frame_mask=frames, descriptor_mask=descriptors, return_plan=True
        )
        assert got.item() == pytest.approx(expected.item(), abs=3e-6)
        torch.testing.assert_close(padded_plan[rows][:, columns], plan, atol=3e-6, rtol=0)
        assert not padded_plan[~frames].any()
        assert not padded_plan[:, ~descriptors].any()


def test_masks_of_every_broadcast_form_agree():
    rng = np.random.default_rng(3)
    sim = similarities("spread", rng, 3, 5, 8, 6)
    frames = torch.tensor([True] * 6 + [False] * 2)
    descriptors = torch.tensor([True, False, True, True, True, False])
    expected = score(sim[..., frames, :][..., descriptors], 0.1)
    for lead in ((), (1,), (1, 1), (5,), (3, 1), (3, 5)):
        got = score(
            sim,
            0.1,
            frame_mask=frames.expand(*lead, 8),
            descriptor_mask=descriptors.expand(*lead, 6),
        )
        torch.testing.assert_close(got, expected, atol=2e-6, rtol=0)
    everything = torch.tensor(True)
    torch.testing.assert_close(
        score(sim, 0.1, frame_mask=everything, descriptor_mask=everything), score(sim, 0.1)
    )


def test_every_problem_of_a_batch_has_its_own_masks():
    rng = np.random.default_rng(4)
    sim = similarities("spread", rng, 6, 9, 5)
    lengths, widths = rng.integers(1, 10, 6), rng.integers(1, 6, 6)
    got = score(
        sim,
        0.05,
        frame_mask=torch.arange(9) < torch.tensor(lengths)[:, None],
        descriptor_mask=torch.arange(5) < torch.tensor(widths)[:, None],
    )
    alone = [score(one[:t, :n], 0.05) for one, t, n in zip(sim, lengths, widths, strict=True)]
    torch.testing.assert_close(got, torch.stack(alone), atol=3e-6, rtol=0)


@FEW
@given(problems())
def test_the_score_falls_towards_the_mean_as_eps_grows(problem):
    sim, _ = problem
    mean = sim.double().mean().item()
    scores = [
        score(sim, eps).item() for eps in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 1e3, 1e6, 1e30, math.inf)
    ]
    assert all(a >= b - 3e-6 for a, b in pairwise(scores))
    assert scores[-2] == pytest.approx(mean, abs=1e-6)
    assert scores[-1] == pytest.approx(mean, abs=1e-6)


@FEW
@given(problems(), st.floats(-0.5, 0.5))
def test_a_constant_shifts_the_score_and_transposing_or_permuting_leaves_it(problem, constant):
    sim, eps = problem
    expected = score(sim, eps).item()
    assert score(sim + constant, eps).item() == pytest.approx(expected + constant, abs=5e-6)
    assert score(sim.mT, eps).item() == pytest.approx(expected, abs=5e-6)
    assert score(sim.flip(0, 1), eps).item() == pytest.approx(expected, abs=5e-6)


@FEW
@given(problems(batch=2))
def test_the_gradient_of_the_score_is_the_plan_and_none_flows_through_it(problem):
    sim, eps = problem
    sim = sim.requires_grad_()
    scores, plans = score(sim, eps, return_plan=True)
    assert not plans.requires_grad
    weights = torch.tensor([2.0, -3.0])
    (gradient,) = torch.autograd.grad((weights * scores).sum(), sim)
    torch.testing.assert_close(gradient, weights[:, None, None] * plans, atol=0, rtol=0)


def test_masked_similarities_have_no_gradient_even_if_they_are_nan():
    sim = torch.tensor([[0.1, 0.5, math.nan], [0.3, 0.2, math.inf], [math.nan] * 3], requires_grad=True)
    scores = score(
        sim,
        0.1,
        frame_mask=torch.tensor([True, True, False]),
        descriptor_mask=torch.tensor([True, True, False]),
    )
    (gradient,) = torch.autograd.grad(scores, sim)
    assert gradient[2].tolist() == [0, 0, 0]
    assert gradient[:, 2].tolist() == [0, 0, 0]
    assert gradient.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_dtype_is_computed_in_fp32_and_gets_its_gradient_back(dtype):
    sim = similarities("spread", np.random.default_rng(5), 4, 8, 3).to(dtype).requires_grad_()
    got = score(sim, 0.01)
    assert got.dtype == torch.float32
    assert torch.equal(got, score(sim.detach().float(), 0.01))
    got.sum().backward()
    assert sim.grad is not None
    assert sim.grad.dtype == dtype


def test_known_answers():
    two = torch.eye(2)
    # Plan [[p, 1/2 - p], [1/2 - p, p]] with p = sigmoid(1 / eps) / 2.
    for eps in (0.01, 0.1, 1.0, 10.0):
        assert score(two, eps).item() == pytest.approx(1 / (1 + math.exp(-1 / eps)), abs=1e-6)
    one_descriptor = similarities("spread", np.random.default_rng(6), 7, 1)
    assert score(one_descriptor, 0.01).item() == pytest.approx(one_descriptor.mean().item(), abs=1e-6)
    assert score(one_descriptor.mT, 0.01).item() == pytest.approx(one_descriptor.mean().item(), abs=1e-6)
    assert score(torch.tensor([[0.3]]), 0.01).item() == pytest.approx(0.3, abs=1e-7)
    _, plan = score(torch.full((6, 4), -0.7), 0.01, return_plan=True)
    torch.testing.assert_close(plan, torch.full((6, 4), 1 / 24), atol=1e-7, rtol=0)


def test_what_is_alike_gets_alike_shares():
    sim = similarities("spread", np.random.default_rng(7), 10, 4)
    sim[3], sim[:, 1] = sim[8], sim[:, 2]
    sim[3] = sim[8]
    _, plan = score(sim, 0.02, return_plan=True)
    torch.testing.assert_close(plan[3], plan[8], atol=1e-6, rtol=0)
    torch.testing.assert_close(plan[:, 1], plan[:, 2], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("frames", "descriptors"), [(16, 16), (40, 16), (32, 4), (3, 16)])
def test_a_permutation_at_a_small_eps_is_found(frames, descriptors):
    size = max(frames, descriptors)
    sim = torch.eye(size).repeat(2, 2)[:frames, :descriptors]
    got, plan = score(sim[:, torch.randperm(descriptors)], 0.01, return_plan=True)
    expected, _ = by_dual((sim if frames >= descriptors else sim.mT).double().numpy(), 0.01)
    assert got.item() == pytest.approx(expected, abs=1e-5)
    assert plan.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("eps", [0.02, 0.03, 0.05, 0.06])
def test_two_blocks_that_have_to_share_a_frame_are_solved(eps):
    """The plan is nearly binary on both sides of the optimum, where Newton's Hessian nearly vanishes."""
    rng = np.random.default_rng(10)
    blocks = np.where((np.arange(37) < 18)[:, None] == (np.arange(2) < 1), 1.0, -1.0)
    sim = torch.tensor(blocks + 4e-4 * rng.standard_normal((40, 37, 2)), dtype=torch.float32)
    got, plans = score(sim, eps, return_plan=True)
    assert (plans.sum(-2) - 1 / 2).abs().sum(-1).max().item() < 10 * TOLERANCE
    for value, one in zip(got[:5], sim, strict=False):
        assert value.item() == pytest.approx(by_dual(one.double().numpy(), eps)[0], abs=1e-5)
