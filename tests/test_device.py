import pytest
import torch

from ost.device import cpu_has_fast_bf16, resolve_device, resolve_dtype
from ost.errors import UsageError

CPU = torch.device("cpu")


def test_auto_takes_the_cpu_where_there_is_nothing_else():
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device("auto").type == expected


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "tpu"])
def test_a_device_that_is_not_there_is_an_error_that_names_it(name):
    with pytest.raises(UsageError, match=f"device '{name}' cannot be used"):
        resolve_device(name)


def test_auto_is_bf16_only_where_the_cpu_multiplies_it():
    assert resolve_dtype("auto", CPU) == (torch.bfloat16 if cpu_has_fast_bf16() else torch.float32)


def test_fp16_is_refused_on_a_cpu():
    with pytest.raises(UsageError, match="fp16 is slow on CPUs"):
        resolve_dtype("fp16", CPU)


def test_an_unknown_dtype_is_named():
    with pytest.raises(UsageError, match="'int3'"):
        resolve_dtype("int3", CPU)
