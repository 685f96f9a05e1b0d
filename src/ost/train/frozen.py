"""Train an adapter: embed every clip once, fit, save the weights, and score the held-out clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ost.backbones.adapter import save_adapter
from ost.backbones.base import Backbone
from ost.backbones.load import load_backbone
from ost.errors import OstError, VideoError
from ost.ranks import Ranks
from ost.recognition.embed import class_head
from ost.recognition.settings import Settings
from ost.recognition.store import concatenate, stored_embeddings
from ost.runs import WEIGHTS
from ost.train.adapter import Examples, accuracy, fit_adapter, zero_shot_accuracy
from ost.train.config import TrainConfig
from ost.train.folder import TrainingResult, begin_run, check_run
from ost.train.log import Log, Watch
from ost.train.task import TrainingTask
from ost.train.validate import Labelled
from ost.types import FrameEmbeddings


def train_adapter(
    config: TrainConfig,
    task: TrainingTask,
    run: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    watch: Watch = lambda _: None,
) -> TrainingResult:
    """Train an adapter over a frozen backbone.

    Args:
        config: `frames`, `kinds`, `eps`, `min_decoded`, `max_unreadable` and `seed` are read.
        task: classes and clips.
        run: folder for config, log and weights.
        device: as for `ost.device.resolve_device`.
        resume: train again in the same folder; embeddings come from the cache.
        watch: called with every event.

    Raises:
        UsageError: the folder holds another run.
        OstError: too many training clips are unreadable.
    """
    check_run(run, config, task, resume, Ranks())
    clips = len(task.clips) + len(task.held_out)
    notices: list[str] = []
    backbone = load_backbone(config.named_backbone, config.weights, device=device, notify=notices.append)
    begin_run(run, config, task, Ranks())
    log = Log(run, clips, watch, writes=True, begun=0)
    try:
        for line in notices:
            log("notice", 0, text=line)
        examples = _embed_clips(backbone, task.clips, config, log, 0)
        unreadable = dict(examples.unreadable)
        if len(unreadable) > config.max_unreadable * len(task.clips):
            raise OstError(
                f"{len(unreadable)} of {len(task.clips)} training clips cannot be read, more than the share of "
                f"{config.max_unreadable:g} that max_unreadable allows; they are listed in {run / 'log.jsonl'}"
            )
        head = class_head(backbone, task.pack, config.kinds)
        for line in head.notices:
            log("notice", len(task.clips), text=line)
        adapter = fit_adapter(backbone, head, examples.concatenate(), config).adapter
        target = run / WEIGHTS
        save_adapter(adapter, target)
        held_out = _embed_clips(backbone, task.held_out, config, log, len(task.clips))
        if not held_out.frames:
            return TrainingResult(target, clips, None, unreadable)
        scored = held_out.concatenate()
        before, after = zero_shot_accuracy(head, scored, config), accuracy(adapter, head, scored, config)
        log("validation", clips, {"top1": after, "before": before, "clips": float(len(held_out.frames))})
        return TrainingResult(
            target, clips, after, unreadable | held_out.unreadable, len(held_out.frames), before
        )
    finally:
        log.close()


@dataclass
class _EmbeddedClips:
    """The embeddings and labels of readable clips, and path -> cause of unreadable ones."""

    frames: list[FrameEmbeddings] = field(default_factory=list[FrameEmbeddings])
    labels: list[int] = field(default_factory=list[int])
    unreadable: dict[str, str] = field(default_factory=dict[str, str])

    def concatenate(self) -> Examples:
        frames = concatenate(self.frames)
        return Examples(frames, torch.tensor(self.labels, device=frames.values.device))


def _embed_clips(
    backbone: Backbone, clips: Labelled, config: TrainConfig, log: Log, done: int
) -> _EmbeddedClips:
    results = stored_embeddings(
        backbone, clips.paths, Settings(config.frames, min_decoded=config.min_decoded)
    )
    embedded = _EmbeddedClips()
    for i, (result, label) in enumerate(zip(results, clips.labels, strict=True), done + 1):
        if isinstance(result, VideoError):
            embedded.unreadable[result.path] = result.cause
            log("unreadable", i, text=str(result))
            continue
        embedded.frames.append(result)
        embedded.labels.append(label)
        log("clip", i)
    return embedded
