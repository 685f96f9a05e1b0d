import importlib
import subprocess
import sys

import pytest

import ost

HEAVY = {"torch", "torchvision", "open_clip", "timm", "transformers", "av", "PIL", "numpy", "huggingface_hub"}


def modules_after(code: str) -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\nimport sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {name.split(".")[0] for name in shown.stdout.split()}


@pytest.mark.parametrize("code", ["import ost", "import ost.cli", "import ost; ost.pack('everyday')"])
def test_importing_and_reading_packs_loads_no_large_library(code):
    assert not modules_after(code) & HEAVY


def test_listing_protocols_does_not_wait_for_torch():
    assert "torch" not in modules_after("import ost.evaluate.protocols")


def test_every_public_name_can_be_had():
    assert all(getattr(ost, name) is not None for name in ost.__all__)
    assert set(ost.__all__) <= set(dir(ost))


HOMES = {
    "ost.descriptors.pack": ["Pack"],
    "ost.errors": ["OstError", "PackError", "TransportError", "UsageError", "VideoError", "WeightsError"],
    "ost.recognition.match": ["match"],
    "ost.recognition.prediction": ["Prediction"],
    "ost.recognition.recognizer": ["Recognizer"],
    "ost.recognition.settings": ["Settings"],
    "ost.transport": ["score"],
    "ost.types": ["ClassHead", "Evidence", "FrameEmbeddings", "Frames", "Scores"],
    "ost.video.decode": ["decode"],
    "ost.knowledge": ["describe"],
    "ost.descriptors.write.run": ["Written"],
    "ost.recipes": ["Sources", "prepare"],
    "ost.train.start": ["start"],
}


@pytest.mark.parametrize("module", HOMES)
def test_what_programs_import_by_its_full_path_stays_where_it_is(module):
    home = importlib.import_module(module)
    for name in HOMES[module]:
        assert getattr(home, name) is getattr(ost, name, getattr(home, name))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'recognise'"):
        _ = ost.recognise
