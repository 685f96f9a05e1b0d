"""What the video tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
CLIPS = Path(__file__).parents[2].parent / "shared" / "clips"


@pytest.fixture(scope="session")
def clips():
    """Some of the real clips, where they are at hand."""
    found = sorted(p for p in CLIPS.glob("*/*/*") if p.suffix in (".avi", ".mp4"))
    if not found:
        pytest.skip("no real clips here")
    return found[:: max(1, len(found) // 8)]
