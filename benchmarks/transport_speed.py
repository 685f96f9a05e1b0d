"""How fast is the transport, against the authors' loop, which stops where a batch is near enough on average?

    uv run --group dev benchmarks/transport_speed.py [--problems 3200] [--rounds 30]

Similarities of 32 frames to 4 descriptors with a given spread within a problem, eps = 0.1; those of CLIP spread by 0.02
to 0.05. Times are minima over the rounds, taken in turn. The authors' loop is rebuilt plainly: u = a / K v and
v = b / K' u, until u moves by less than 0.01 on average over the whole batch.
"""

import argparse
import time

import torch
from torch import Tensor

from ost.transport import TOLERANCE, score

EPS, FRAMES, DESCRIPTORS = 0.1, 32, 4


def authors(sim: Tensor) -> tuple[Tensor, int]:
    problems, frames, descriptors = sim.shape
    kernel = torch.exp(-(1 - sim) / EPS)
    a, b = torch.full((problems, frames), 1 / frames), torch.full((problems, descriptors), 1 / descriptors)
    u, v = torch.ones_like(a), torch.ones_like(b)
    steps, moved = 0, 1.0
    while moved >= 1e-2 and steps < 100:
        steps += 1
        before = u
        u = a / torch.matmul(kernel, v[..., None])[..., 0]
        v = b / torch.matmul(kernel.mT.contiguous(), u[..., None])[..., 0]
        moved = (u - before).abs().mean().item()
    return (u[:, :, None] * v[:, None, :] * kernel * sim).sum((1, 2)), steps


def timed(function, sim: Tensor) -> float:
    started = time.perf_counter()
    function(sim)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=3200)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    print(f"{options.problems} problems of {FRAMES} x {DESCRIPTORS}, {torch.get_num_threads()} threads\n")
    print(
        "| spread | authors, ms (steps) | score, ms (most) | score / authors | scores differ by | marginals off |"
    )
    print("|---|---|---|---|---|---|")
    for spread in (0.02, 0.05, 0.2):
        torch.manual_seed(0)
        sim = 0.2 + spread * torch.randn(options.problems, FRAMES, DESCRIPTORS)
        theirs, steps = authors(sim)
        ours, info = score(sim, EPS, return_info=True)
        times = {authors: [], score: []}
        for _ in range(options.rounds):
            times[authors].append(timed(authors, sim))
            times[score].append(timed(lambda sim: score(sim, EPS), sim))
        a, b = (1000 * min(values) for values in times.values())
        most = "Newton" if bool((info.steps < 0).any()) else int(info.steps.max())
        print(
            f"| {spread} | {a:.1f} ({steps}) | {b:.1f} ({most}) | {b / a:.2f} "
            f"| {(theirs - ours).abs().max():.1e} | {info.error.max():.1e} (aim {TOLERANCE:.0e}) |"
        )


if __name__ == "__main__":
    main()
