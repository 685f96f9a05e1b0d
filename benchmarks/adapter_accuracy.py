"""What does an adapter learn from a few real clips? Top-1 on the clips left over, mean over random draws.

    uv run --group dev benchmarks/adapter_accuracy.py CLIPS/manifest.csv --dataset jhmdb21 [--shots 2 4] [--draws 6]

The embedded backbone, 32 frames. Beside it: the same clips without training, and scikit-learn's logistic regression
on the same features (mean over frames, standardised, its default C). Nothing is chosen by looking at the clips
left over. The last line times the whole command for one draw, once the embeddings are in the store.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ost.backbones.load import load_backbone
from ost.datasets.manifest import LabelledVideo, manifest_text, read_manifest
from ost.descriptors.spec import resolve
from ost.errors import VideoError
from ost.recipes import adapter
from ost.recognition.embed import class_head
from ost.recognition.settings import Settings
from ost.recognition.store import concatenate, stored_embeddings
from ost.train.adapter import Examples, accuracy, fit_adapter, select_examples, zero_shot_accuracy
from ost.train.task import make_task


def logistic(examples: Examples, held_out: Examples) -> float:
    pooled = [part.frames.features.mean(1).numpy() for part in (examples, held_out)]
    scaler = StandardScaler().fit(pooled[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(max_iter=1000).fit(scaler.transform(pooled[0]), examples.labels.numpy())
    return float(model.score(scaler.transform(pooled[1]), held_out.labels.numpy()))


def timed_command(clips: list[LabelledVideo], shots: int, classes: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder, "clips.csv")
        manifest.write_text(manifest_text(clips), encoding="utf-8")
        command = [
            "train",
            "adapter",
            "--manifest",
            str(manifest),
            "--shots",
            str(shots),
            "--classes",
            classes,
        ]
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "ost", *command, "-o", f"{folder}/run"], check=True, capture_output=True
        )
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--dataset", default="jhmdb21")
    parser.add_argument("--classes", default="hmdb51")
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--draws", type=int, default=6)
    options = parser.parse_args()

    clips = read_manifest(options.manifest, options.dataset)
    labels = sorted({clip.label for clip in clips})
    pack = resolve(options.classes).select(labels)
    backbone, config = load_backbone("lite"), adapter()
    everything = list(stored_embeddings(backbone, [clip.path for clip in clips], Settings(config.frames)))
    if broken := [found for found in everything if isinstance(found, VideoError)]:
        raise broken[0]
    rows = {str(clip.path): i for i, clip in enumerate(clips)}
    frames, head = concatenate(everything), class_head(backbone, pack, config.kinds)

    def examples(labelled) -> Examples:
        whole = Examples(frames, torch.zeros(len(clips), dtype=torch.long))
        chosen = select_examples(whole, [rows[path] for path in labelled.paths])
        return Examples(chosen.frames, torch.tensor(labelled.labels))

    print(f"{len(clips)} clips, {len(labels)} classes, chance {1 / len(labels):.1%}, {options.draws} draws\n")
    print("| shots | before training | logistic regression | adapter | its draws | s a fit |")
    print("|---|---|---|---|---|---|")
    for shots in options.shots:
        found = {"before": [], "logistic": [], "adapter": [], "seconds": []}
        for seed in range(options.draws):
            task = make_task(clips, (), pack, shots, seed)
            shown, held_out = examples(task.clips), examples(task.held_out)
            started = time.perf_counter()
            fitted = fit_adapter(backbone, head, shown, config)
            found["seconds"].append(time.perf_counter() - started)
            found["before"].append(zero_shot_accuracy(head, held_out, config))
            found["logistic"].append(logistic(shown, held_out))
            found["adapter"].append(accuracy(fitted.adapter, head, held_out, config))
        means = [f"{statistics.mean(found[key]):.1%}" for key in ("before", "logistic", "adapter")]
        draws = " ".join(f"{value:.1%}" for value in found["adapter"])
        print(
            "|", *(f"{cell} |" for cell in (shots, *means, draws, f"{max(found['seconds']):.1f}")), flush=True
        )
    print(
        f"\nthe command, embeddings in the store: {timed_command(clips, max(options.shots), options.classes):.0f} s"
    )


if __name__ == "__main__":
    main()
