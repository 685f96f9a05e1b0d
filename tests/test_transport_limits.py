"""What transport may cost: memory, and a GPU's waiting."""

from pathlib import Path

import pytest
import torch

from ost import transport
from ost.transport import score


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_100_000_problems_take_less_than_1_gib(start, tmp_path):
    (tmp_path / "main.py").write_text("""
import re, torch
from ost.transport import score
def read(key): return int(re.search(key + r':\\s+(\\d+)', open('/proc/self/status').read()).group(1)) / 1024
torch.set_num_threads(1)
score(torch.rand(2, 32, 4), 0.1)
sim = torch.rand(100_000, 32, 4) * 2 - 1
held = read("VmRSS")
assert score(sim, 0.1).shape == (100_000,)
print(read("VmHWM") - held)
""")
    code, out, err = start(tmp_path / "main.py").finish()
    assert code == 0, err
    assert 0 < float(out) < 1024


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_not_made_to_wait_inside_the_loops():
    sim = torch.rand(50, 16, 6, generator=torch.Generator().manual_seed(9)).round().cuda()
    expected = score(sim.cpu(), 0.02)
    kernel = sim.mT.contiguous() / 0.02
    frames, descriptors = torch.full((50, 16), 1 / 16).cuda(), torch.full((50, 6), 1 / 6).cuda()
    transport._newton(kernel, frames, descriptors, torch.zeros_like(descriptors))
    torch.cuda.set_sync_debug_mode("error")
    try:
        dual, _ = transport._sinkhorn(kernel, frames, descriptors, descriptors > 0)
        transport._newton(kernel, frames, descriptors, dual)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(score(sim, 0.02).cpu(), expected, atol=1e-5, rtol=0)
