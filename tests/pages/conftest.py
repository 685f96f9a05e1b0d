"""Pages of small problems."""

import pytest


@pytest.fixture(autouse=True)
def quiet(own_cache, one_thread):
    """Own cache; problems too small to be shared out."""


@pytest.fixture(scope="module")
def backbone(tiny):
    """Small random towers in fp32."""
    from ost.backbones.load import load_backbone

    return load_backbone(None, tiny, device="cpu", dtype="fp32")
