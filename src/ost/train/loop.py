"""Run the training loop: steps, validations, checkpoints; killed anywhere, it resumes to the same weights."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ost.errors import OstError, TransportError
from ost.files import atomic, write_text
from ost.ranks import Ranks
from ost.recognition.settings import Settings
from ost.runs import WEIGHTS
from ost.train.checkpoint import Checkpoints, Progress, State, Which
from ost.train.config import TrainConfig
from ost.train.data import ClipDataset, TowerBatch, chunks, flip_of
from ost.train.folder import TrainingResult, begin_run, check_run
from ost.train.learner import Learner, load_learner
from ost.train.log import Log, Watch
from ost.train.plan import Plan, Step
from ost.train.step import step_gradient
from ost.train.task import TrainingTask
from ost.train.validate import validate
from ost.video.augment import Augmentation


class Interrupted(OstError):
    """Raised when a run has stopped on SIGTERM and saved a checkpoint."""

    exit_code = 143  # 128 + SIGTERM, the convention of shells and Slurm


def train(
    config: TrainConfig,
    task: TrainingTask,
    run: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    ranks: Ranks | None = None,
    watch: Watch = lambda _: None,
) -> TrainingResult:
    """Train the towers of a backbone, or new parameters beside them.

    Args:
        config: every setting.
        task: classes and clips.
        run: folder for config, log, checkpoints and weights.
        device: as for `ost.device.resolve_device`.
        resume: continue from the last checkpoint, if there is one.
        ranks: the processes that train together.
        watch: called with every event, on the first rank.

    Raises:
        UsageError: settings contradict each other, or the folder holds another run.
        Interrupted: SIGTERM arrived; a checkpoint is saved.
        OstError: the loss is not finite (the batch is saved), too many clips are unreadable, or a checkpoint cannot be
            written.
    """
    return _Run(config, task, run, device, ranks or Ranks(), watch, resume).go()


class _Run:
    """A training run and its state between steps."""

    def __init__(
        self,
        config: TrainConfig,
        task: TrainingTask,
        run: Path,
        device: str,
        ranks: Ranks,
        watch: Watch,
        resume: bool,
    ) -> None:
        self.config, self.task, self.run, self.ranks = config, task, run, ranks
        check_run(run, config, task, resume, ranks)
        flip = flip_of(task.pack.names) if config.flip is None else config.flip
        augmentation = Augmentation(
            scales=config.scales,
            flip=flip,
            jitter=config.jitter,
            grayscale=config.grayscale,
            randaugment=config.randaugment,
        )
        notices: list[str] = []
        self.learner = load_learner(config, task.pack, device, augmentation, notices.append)
        self.plan = Plan(len(task.clips), config.batch, config.contrastive_batch, config.chunk, config.seed)
        self.total = config.epochs * self.plan.steps
        self.optimiser = _optimiser(self.learner)
        begin_run(run, config, task, ranks)
        self.checkpoints = Checkpoints(run, ranks)
        self.progress = self._load_last() if resume else Progress()
        self.log = Log(run, self.total, watch, writes=ranks.first, begun=self.progress.step)
        for line in (*notices, *self.learner.notices):
            self.log("notice", self.progress.step, text=line)
        self.dataset = ClipDataset(
            paths=task.clips.paths,
            labels=task.clips.labels,
            frames=config.frames,
            preprocess=self.learner.backbone.preprocess,
            augmentation=augmentation,
            min_decoded=config.min_decoded,
            seed=config.seed,
        )
        self.stop_signals: list[int] = []

    def go(self) -> TrainingResult:
        """Run the remaining steps and write the weight file."""
        with _catch_sigterm() as self.stop_signals:
            try:
                if not self.progress.settled:
                    self._validate_and_save()
                for step, chunk_iterator in self._steps():
                    self._train_step(step, chunk_iterator)
                    self._stop_if_asked()
                    self._validate_and_save()
                return self._finish()
            finally:
                self.log.close()

    def _steps(self) -> Iterator[tuple[Step, Iterator[TowerBatch]]]:
        start, (rank, world) = self.progress.step, (self.ranks.rank, self.ranks.world)
        plan, epochs = self.plan, self.config.epochs
        chunk_iterator = chunks(
            self.dataset,
            plan.from_step(start, epochs, rank, world),
            self.config.workers,
            pin=self.learner.device.type == "cuda",
        )
        for step in plan.from_step(start, epochs, rank, world):
            yield step, chunk_iterator

    def _train_step(self, step: Step, chunk_iterator: Iterator[TowerBatch]) -> None:
        """Take one optimiser step and log it."""
        began = time.perf_counter()
        timed = _TimedChunks(chunk_iterator)
        rate = learning_rate(self.config, self.progress.step, self.plan.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.optimiser.zero_grad(set_to_none=True)
        try:
            loss, chunks_seen = step_gradient(self.learner, step, timed, self.ranks)
        except TransportError:  # raised for an embedding that is not finite
            loss, chunks_seen = math.nan, timed.chunks_seen
        self._record_unreadable(chunks_seen)
        norm = _clip_gradient(self.learner.parameters, self.config.clip_grad)
        if not all(self.ranks.gather(math.isfinite(loss) and math.isfinite(norm))):
            self._raise_not_finite(chunks_seen)
        self.optimiser.step()
        self.learner.clamp_scale()
        self.progress = replace(self.progress, step=self.progress.step + 1, settled=False)
        seconds = time.perf_counter() - began
        numbers = {
            "loss": loss,
            "lr": rate,
            "gradient": norm,
            "scale": self.learner.backbone.logit_scale,
            "epoch": self.progress.step / self.plan.steps,
            "seconds": seconds,
            "waiting": timed.waited / seconds,
        }
        self.log("step", self.progress.step, numbers)

    def _validate_and_save(self) -> None:
        """Validate and save a checkpoint when due."""
        step, config = self.progress.step, self.config
        last = step == self.total
        epoch_ends = step % self.plan.steps == 0
        due = config.validate_every and epoch_ends and (step // self.plan.steps) % config.validate_every == 0
        which: tuple[Which, ...] = ()
        if (due or last) and len(self.task.held_out):
            which = self._validate()
        self.progress = replace(self.progress, settled=True)
        if last or due or (config.save_every and step % config.save_every == 0):
            self._save(("last", *which))

    def _validate(self) -> tuple[Which, ...]:
        """Validate; return ("best",) if these are the best weights so far, else ()."""
        config = self.config
        settings = Settings(
            frames=config.frames, kinds=config.kinds, eps=config.eps, min_decoded=config.min_decoded
        )
        with self.learner.precision():
            validation = validate(
                self.learner.backbone,
                self.task.pack,
                self.task.held_out,
                settings,
                self.ranks,
                lambda: bool(self.stop_signals),
            )
        self._stop_if_asked()
        numbers = {
            "top1": validation.accuracy,
            "top5": validation.top5 / max(1, validation.clips),
            "clips": float(validation.clips),
        }
        self.log("validation", self.progress.step, numbers)
        for path, cause in validation.failures:
            self.log("unreadable", self.progress.step, text=f"{path}: {cause}")
        if not validation.clips:
            raise OstError(
                f"none of the {len(validation.failures)} held-out clips can be read; nothing can be validated"
            )
        if validation.accuracy <= self.progress.best:
            return ()
        self.progress = replace(
            self.progress, best=validation.accuracy, best_step=self.progress.step, clips=validation.clips
        )
        return ("best",)

    def _save(self, which: tuple[Which, ...]) -> None:
        self.checkpoints.save(
            self.learner.weights(), _state(self.learner, self.optimiser), self.progress, which
        )
        self.log("checkpoint", self.progress.step, text=" and ".join(which))

    def _load_last(self) -> Progress:
        folder = self.checkpoints.find("last")
        if folder is None:
            return Progress()
        progress = self.checkpoints.load(folder, _state(self.learner, self.optimiser))
        self.learner.clamp_scale()
        return progress

    def _record_unreadable(self, chunks_seen: list[TowerBatch]) -> None:
        """Log and count the unreadable clips of all ranks; raise OstError if there are too many."""
        unreadable = {f.index: (f.path, f.cause) for chunk in chunks_seen for f in chunk.failures}
        known = dict(self.progress.unreadable)
        new = {
            i: failure
            for part in self.ranks.gather(unreadable)
            for i, failure in part.items()
            if i not in known
        }
        if not new:
            return
        for path, cause in new.values():
            self.log("unreadable", self.progress.step, text=f"{path}: {cause}; another clip takes its turn")
        self.progress = replace(self.progress, unreadable=known | new)
        count, total = len(known | new), len(self.task.clips)
        if count > self.config.max_unreadable * total:
            raise OstError(
                f"{count} of {total} training clips cannot be read, more than the share of "
                f"{self.config.max_unreadable:g} that max_unreadable allows; they are listed in "
                f"{self.run / 'log.jsonl'}"
            )

    def _raise_not_finite(self, chunks_seen: list[TowerBatch]) -> None:
        folder = self.run / "not-finite" / f"rank-{self.ranks.rank}"
        _save_batch(folder, chunks_seen)
        raise OstError(
            f"the loss of step {self.progress.step + 1} is not finite; the batch is in {folder.parent} for "
            "inspection, and the last checkpoint is kept: lower lr, or use precision=fp32"
        )

    def _stop_if_asked(self) -> None:
        if any(self.ranks.gather(bool(self.stop_signals))):
            self._save(("last",))
            raise Interrupted(
                f"stopped as asked after step {self.progress.step} of {self.total}", "go on with {resume}"
            )

    def _finish(self) -> TrainingResult:
        """Copy the best or last weights into the folder of the run."""
        target = self.run / WEIGHTS
        folder = self.checkpoints.find("best") or self.checkpoints.find("last")
        if folder is None:
            raise OstError(f"{self.run}: its checkpoints are gone; train again")
        if self.ranks.first:
            with atomic(target) as temporary:
                temporary.write_bytes((folder / WEIGHTS).read_bytes())
        self.ranks.wait()
        done, unreadable = self.progress, dict(self.progress.unreadable.values())
        if done.best_step < 0:
            return TrainingResult(target, done.step, None, unreadable)
        return TrainingResult(target, done.best_step, done.best, unreadable, done.clips)


class _TimedChunks:
    """An iterator over chunks that keeps them and measures the time spent waiting."""

    def __init__(self, chunks: Iterator[TowerBatch]) -> None:
        self._chunks = chunks
        self.waited = 0.0
        self.chunks_seen: list[TowerBatch] = []

    def __iter__(self) -> _TimedChunks:
        return self

    def __next__(self) -> TowerBatch:
        start = time.perf_counter()
        chunk = next(self._chunks)
        self.waited += time.perf_counter() - start
        self.chunks_seen.append(chunk)
        return chunk


def learning_rate(config: TrainConfig, step: int, steps_an_epoch: int) -> float:
    """Return the learning rate of a step: a linear rise from 0, then a cosine down to `final_lr * lr`."""
    warmup, total = config.warmup_epochs * steps_an_epoch, config.epochs * steps_an_epoch
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1.0, total - warmup)
    return config.lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * done)))


def _optimiser(learner: Learner) -> torch.optim.AdamW:
    config = learner.config
    optimiser = torch.optim.AdamW(
        learner.groups(), lr=config.lr, betas=config.betas, eps=config.adam_eps, fused=True
    )
    # AdamW creates its state at the first step, but loading a checkpoint needs the tensors before.
    for parameter in learner.parameters.values():
        optimiser.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimiser


def _state(learner: Learner, optimiser: torch.optim.AdamW) -> State:
    """Return the tensors of a checkpoint; everything else follows from the step and the seed."""
    moments = {
        f"{name}/{part}": tensor
        for name, parameter in learner.parameters.items()
        for part, tensor in optimiser.state[parameter].items()
    }
    return {"parameters": {n: p.detach() for n, p in learner.parameters.items()}, "moments": moments}


def _clip_gradient(parameters: dict[str, Any], limit: float) -> float:
    """Clip the gradient to the limit in place and return its norm before clipping."""
    return float(torch.nn.utils.clip_grad_norm_(parameters.values(), limit or math.inf))


def _save_batch(folder: Path, chunks_seen: list[TowerBatch]) -> None:
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for i, chunk in enumerate(chunks_seen):
        tensors |= {f"{i}.pixels": chunk.pixels, f"{i}.labels": chunk.labels}
    with atomic(folder / "batch.safetensors") as temporary:
        save_file(tensors, temporary)
    write_text(folder / "batch.json", json.dumps([list(chunk.paths) for chunk in chunks_seen], indent=2))


@contextmanager
def _catch_sigterm() -> Generator[list[int]]:
    """Yield a list that each SIGTERM is appended to; spot instances get one shortly before they are reclaimed."""
    import threading

    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    try:
        yield signals
    finally:
        signal.signal(signal.SIGTERM, before)
