"""A program in a process forked from a server that has done the large imports. Run by the fixture `start`.

`JOB` holds what a shell would give it: argv as after `python`, environment, folder, files for stdout and stderr, and
for a rank of several its number, their count, and the file that they meet in.
"""

import os
import runpy
import signal
import sys
from functools import partial


def run(job):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # the server's workers inherit it blocked
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if job["world"] > 1:
        _meet(**{key: job[key] for key in ("rank", "world", "meeting")})
    first, *rest = job["argv"]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def _meet(rank, world, meeting):
    """As under torchrun, except that the ranks find one another by a file: no port has to be free."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    dist.init_process_group = partial(
        dist.init_process_group, init_method=f"file://{meeting}", rank=rank, world_size=world
    )


run(JOB)  # noqa: F821 - given by the fixture
