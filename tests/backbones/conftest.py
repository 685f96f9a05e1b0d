"""What the backbone tests share: a cache of their own, and a tiny CLIP."""

import pytest

from .makers import clip_state


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("OST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def state():
    """A tiny CLIP whose numbers fp16 holds exactly."""
    return clip_state()
