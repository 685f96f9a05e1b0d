"""A run that trains an adapter: embed every clip once, fit, score the held-out ones, write the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ost.backbones.adapter import save_adapter
from ost.backbones.base import Backbone
from ost.errors import OstError, VideoError
from ost.files import write_text
from ost.recognition.embed import class_head
from ost.recognition.match import match
from ost.recognition.store import stacked, stored_embeddings
from ost.train.adapter import Examples, accuracy, fit_adapter
from ost.train.config import TrainConfig
from ost.train.task import Task
from ost.train.validate import Labelled
from ost.types import FrameEmbeddings


@dataclass(frozen=True)
class Adapted:
    """A finished run.

    Attributes:
        weights: the file that `--weights` takes.
        accuracy, before: share of the held-out clips recognised with the adapter and without; None if none is held out.
        penalty: the L2 weight that cross-validation on the shots chose.
        unreadable: path -> cause of clips that could not be read.
    """

    weights: Path
    accuracy: float | None
    before: float | None
    penalty: float
    unreadable: dict[str, str]


def train_adapter(
    config: TrainConfig, task: Task, run: Path, backbone: Backbone, advance: Callable[[], None] = lambda: None
) -> Adapted:
    """Train an adapter over a frozen backbone.

    Args:
        config: `frames`, `kinds`, `eps`, `min_decoded`, `max_unreadable` and `seed` are read.
        task: classes and clips.
        run: folder for the weight file and the config.
        backbone: frozen.
        advance: is called after each clip.

    Raises:
        OstError: too many training clips are unreadable.
    """
    torch.manual_seed(config.seed)
    write_text(run / "config.json", config.as_json())
    unreadable: dict[str, str] = {}
    examples = _embedded(backbone, task.clips, config, unreadable, advance)
    if examples is None or len(unreadable) > config.max_unreadable * len(task.clips):
        raise OstError(
            f"{len(unreadable)} of {len(task.clips)} training clips cannot be read, more than the share of "
            f"{config.max_unreadable:g} that max_unreadable allows; the first: "
            + "; ".join(f"{path}: {cause}" for path, cause in [*unreadable.items()][:3])
        )
    held_out = _embedded(backbone, task.held_out, config, unreadable, advance)
    head = class_head(backbone, task.pack, config.kinds)
    fitted = fit_adapter(backbone, head, examples, config)
    target = run / "weights.safetensors"
    save_adapter(fitted.adapter, target)
    if held_out is None:
        return Adapted(target, None, None, fitted.penalty, unreadable)
    zero_shot = match(held_out.frames, head, kinds=config.kinds, eps=config.eps).logits
    before = float((zero_shot.argmax(-1) == held_out.labels).float().mean())
    after = accuracy(fitted.adapter, head, held_out, config)
    return Adapted(target, after, before, fitted.penalty, unreadable)


def _embedded(
    backbone: Backbone,
    clips: Labelled,
    config: TrainConfig,
    unreadable: dict[str, str],
    advance: Callable[[], None],
) -> Examples | None:
    """The clips that can be read; None if there is none."""
    results = stored_embeddings(backbone, clips.paths, frames=config.frames, min_decoded=config.min_decoded)
    parts: list[FrameEmbeddings] = []
    labels: list[int] = []
    for result, label in zip(results, clips.labels, strict=True):
        advance()
        if isinstance(result, VideoError):
            unreadable[result.path] = result.cause
            continue
        parts.append(result)
        labels.append(label)
    if not parts:
        return None
    frames = stacked(parts)
    return Examples(frames, torch.tensor(labels, device=frames.values.device))
