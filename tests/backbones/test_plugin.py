"""A backbone of another distribution, built and installed here, works wherever a backbone is named."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

MODULE = """
from dataclasses import dataclass

from ost.types import Preprocess, TextContext, Templates

PIXELS = Preprocess(8, 8, "bilinear", False, (0.0,) * 3, (1.0,) * 3)
TEMPLATES = Templates("{descriptor}", "{descriptor}", "{name}")


@dataclass(frozen=True)
class Spec:
    preprocess: Preprocess = PIXELS
    context_length: int = 99
    licence: str = "CC0"
    note: str = "mean colours"

    def check(self, device, dtype):
        if dtype == "bf16":
            from ost.errors import UsageError

            raise UsageError("colours are fp32", "leave {dtype} out")

    def build(self, build):
        import torch
        from torch.nn.functional import normalize

        from ost.backbones.base import TextEmbeddings, frame_embeddings, prepared

        class Colours:
            name, weights_hash, fingerprint, precision = build.name, "c", "colours 1", "float32"
            preprocess, logit_scale, adapter = PIXELS, 10.0, None
            text_context = TextContext(20, lambda text: len(text.split()), TEMPLATES)
            device, width = torch.device("cpu"), 3

            def trainable(self):
                return None

            def embed_frames(self, pixels):
                return prepared(pixels, PIXELS).mean((-1, -2)) + 0.01

            def embed_clips(self, pixels):
                return frame_embeddings(self.embed_frames(pixels))

            def embed_text(self, texts):
                axes = ["red", "green", "blue"]
                rows = [[float(axis in text) + 0.1 for axis in axes] for text in texts]
                return TextEmbeddings(normalize(torch.tensor(rows), dim=-1))

        return Colours()

    def text_context(self, name):
        return TextContext(self.context_length, lambda text: len(text.split()), TEMPLATES)


SPEC = Spec()
"""
NAMES = "[ost.backbones]\ncolours = ost_test_colours:SPEC\nbroken = ost_test_gone:SPEC\n"
METADATA = "Metadata-Version: 2.1\nName: ost-test-colours\nVersion: 1.0\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of installed distributions: a wheel as pip unpacks it."""
    folder = tmp_path_factory.mktemp("site")
    info = "ost_test_colours-1.0.dist-info"
    with zipfile.ZipFile(wheel := folder / "ost_test_colours-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("ost_test_colours.py", MODULE)
        archive.writestr(f"{info}/METADATA", METADATA)
        archive.writestr(f"{info}/entry_points.txt", NAMES)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
def ost(site, tmp_path):
    """Run the command where that distribution is installed."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OST_CACHE": str(tmp_path / "cache")}

    def run(*arguments):
        command = [sys.executable, "-m", "ost", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    return run


def test_it_recognises_and_its_embeddings_are_kept(ost, tiny_videos):
    arguments = (
        "recognize",
        *tiny_videos,
        "--classes",
        "red,green,blue",
        "--backbone",
        "colours",
        "--frames",
        2,
    )
    first, second = (ost(*arguments, "--json") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    results = [[json.loads(line) for line in done.stdout.splitlines()] for done in (first, second)]
    for found in results:
        assert [one["classes"][0]["name"] for one in found] == ["red", "green", "blue"]
        assert {one["backbone"] for one in found} == {"colours"}
    assert results[1][0]["seconds"]["towers"] == 0 < results[0][0]["seconds"]["towers"]


def test_it_is_listed_and_a_broken_one_is_named_and_loses_nobody(ost):
    done = ost("weights", "list")
    assert done.returncode == 0
    assert "mean colours" in done.stdout and "ViT-B-16/openai" in done.stdout and "ost/k400" in done.stdout
    assert "the backbone 'broken' of ost-test-colours cannot be loaded (No module named" in done.stderr


def test_it_is_evaluated(ost, tiny_videos, tmp_path):
    (tmp_path / "list.csv").write_text(
        "path,label\n"
        + "".join(
            f"{video},{name}\n" for video, name in zip(tiny_videos, ["red", "green", "blue"], strict=True)
        )
    )
    done = ost(
        "evaluate", "own", "--manifest", "list.csv", "--backbone", "colours", "--frames", 2, "-o", "run"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["backbone"] == "colours"


def test_it_says_itself_what_it_cannot_do(ost, tiny_videos):
    arguments = ("recognize", *tiny_videos, "--classes", "red,green", "--backbone", "colours")
    done = ost(*arguments, "--dtype", "bf16")
    assert (done.returncode, done.stderr) == (2, "ost: colours are fp32; leave --dtype out\n")
    done = ost(*arguments, "--weights", "ost/k400")
    assert done.returncode == 2 and "the backbone colours carries its own weights" in done.stderr
    done = ost(*arguments[:-1], "broken")
    assert done.returncode == 2 and "cannot be loaded" in done.stderr
