"""Daemon threads: order, cancellation, and the end of the program."""

import subprocess
import sys
from concurrent.futures import CancelledError
from threading import Event

import pytest

from ost.threads import DaemonPool


def test_calls_start_in_order_and_raise_where_the_result_is_read():
    pool = DaemonPool(1, "test")
    seen = []
    futures = [pool.submit(seen.append, i) for i in range(5)] + [pool.submit(int, "no number")]
    with pytest.raises(ValueError, match="no number"):
        futures[-1].result()
    assert seen == list(range(5))
    pool.close()
    pool.join(10)


def test_closing_cancels_what_has_not_started():
    pool, going, may_end = DaemonPool(1, "test"), Event(), Event()
    first = pool.submit(lambda: (going.set(), may_end.wait())[1])
    going.wait()
    second = pool.submit(int)
    pool.close()
    may_end.set()
    assert first.result() is True
    with pytest.raises(CancelledError):
        second.result()


def run(call):
    program = (
        f"import time\nfrom ost.threads import DaemonPool\nDaemonPool(1, 'x').submit({call})\ntime.sleep(0.1)"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_a_program_waits_at_its_end_for_a_call_that_is_about_to_end():
    assert run("lambda: (time.sleep(0.4), print('ended'))").stdout == "ended\n"


def test_a_call_that_hangs_does_not_keep_a_program_from_its_end():
    assert run("lambda: (time.sleep(3600), print('ended'))").stdout == ""
