"""What the video tests share."""

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def clips(real_clips):
    """Some of the real clips, where they are at hand."""
    found = sorted(p for p in real_clips.glob("*/*/*") if p.suffix in (".avi", ".mp4"))
    return found[:: max(1, len(found) // 8)]
