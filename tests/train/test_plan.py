"""The plan of a run: which clips, when, and on which rank."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ost.train.plan import Draw, Plan

quick = settings(max_examples=60, deadline=None)
plans = st.builds(
    Plan,
    clips=st.integers(1, 70),
    batch=st.integers(1, 40),
    contrastive_batch=st.integers(1, 40),
    chunk=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
worlds = st.integers(1, 5)


def epoch_of(plan, epoch, rank=0, world=1):
    return [plan.step(epoch, number, rank, world) for number in range(plan.steps)]


def drawn(share):
    return [draw for chunk in share.chunks for draw in chunk]


def together(plan, world, epoch=0):
    """For each contrastive batch of an epoch, the draws of all ranks in the order of ranks."""
    ranks = [epoch_of(plan, epoch, rank, world) for rank in range(world)]
    return [
        [[draw for share in shares for draw in drawn(share)] for shares in zip(*steps, strict=True)]
        for steps in zip(*ranks, strict=True)
    ]


@quick
@given(plans, worlds, st.integers(0, 3))
def test_every_clip_comes_once_an_epoch(plan, world, epoch):
    draws = [draw for step in together(plan, world, epoch) for batch in step for draw in batch]
    assert all(draw.epoch == epoch for draw in draws)
    assert sorted(draw.clip for draw in draws) == list(range(plan.clips))


@quick
@given(plans, worlds)
def test_ranks_together_do_what_one_does(plan, world):
    assert together(plan, world) == together(plan, 1)


@quick
@given(plans, st.integers(0, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_the_order_depends_on_seed_and_epoch_alone(plan, epoch, batch, contrastive, chunk):
    other = Plan(plan.clips, batch, contrastive, chunk, plan.seed)
    np.random.seed(batch)
    assert np.array_equal(plan.order(epoch), other.order(epoch))
    one, two = (
        [draw for step in epoch_of(p, epoch) for share in step for draw in drawn(share)]
        for p in (plan, other)
    )
    assert one == two == [Draw(epoch, int(i)) for i in plan.order(epoch)]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(Plan(40, 8, 8, 2, seed).order(epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert all(list(order) != sorted(order) for order in orders)


@quick
@given(plans, worlds)
def test_weights_are_shares_of_the_step_and_the_same_on_every_rank(plan, world):
    ranks = [epoch_of(plan, 0, rank, world) for rank in range(world)]
    for shares, whole in zip(zip(*ranks, strict=True), together(plan, world), strict=True):
        total = sum(len(batch) for batch in whole)
        for rank in shares:
            assert [share.weight for share in rank] == [len(batch) / total for batch in whole]
            assert abs(sum(share.weight for share in rank) - 1) < 1e-12


def equal(sizes):
    return max(sizes) - min(sizes) <= 1


@quick
@given(plans, worlds)
def test_steps_batches_and_shares_are_as_equal_as_can_be_and_within_their_limits(plan, world):
    whole = together(plan, world)
    sizes = [sum(map(len, step)) for step in whole]
    assert equal(sizes)
    assert max(sizes) <= plan.batch
    assert len(sizes) == -(-plan.clips // plan.batch), "no more steps than needed"
    for step, size in zip(whole, sizes, strict=True):
        batches = list(map(len, step))
        assert equal(batches)
        assert max(batches) <= plan.contrastive_batch
        assert len(batches) == -(-size // plan.contrastive_batch), "no more batches than needed"
    ranks = [epoch_of(plan, 0, rank, world) for rank in range(world)]
    for steps in zip(*ranks, strict=True):
        for shares in zip(*steps, strict=True):
            assert equal([len(drawn(share)) for share in shares])


@quick
@given(plans, worlds)
def test_chunks_are_bounded_full_but_the_last_and_never_empty(plan, world):
    for rank in range(world):
        for step in epoch_of(plan, 0, rank, world):
            for share in step:
                sizes = list(map(len, share.chunks))
                assert all(1 <= size <= plan.chunk for size in sizes)
                assert all(size == plan.chunk for size in sizes[:-1])


@quick
@given(plans, worlds, st.integers(1, 3), st.data())
def test_a_run_goes_on_at_any_step_as_if_it_had_not_stopped(plan, world, epochs, data):
    rank = data.draw(st.integers(0, world - 1))
    whole = list(plan.from_step(0, epochs, rank, world))
    assert len(whole) == epochs * plan.steps
    start = data.draw(st.integers(0, len(whole)))
    assert list(plan.from_step(start, epochs, rank, world)) == whole[start:]
