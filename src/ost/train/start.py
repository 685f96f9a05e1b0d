"""Start training, whatever the regime."""

from __future__ import annotations

from pathlib import Path

from ost.errors import UsageError
from ost.ranks import Ranks
from ost.train.config import TrainConfig
from ost.train.folder import TrainingResult
from ost.train.log import Watch
from ost.train.task import TrainingTask


def start(
    config: TrainConfig,
    task: TrainingTask,
    run: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    ranks: Ranks | None = None,
    watch: Watch = lambda _: None,
) -> TrainingResult:
    """Train what a config selects: towers, new parameters beside them, or an adapter over them.

    Args:
        config: every setting.
        task: classes and clips.
        run: folder of the run, see `ost.train.folder`.
        device: as for `ost.device.resolve_device`.
        resume: continue the run in the folder.
        ranks: the processes that train together.
        watch: called with every event, on the first rank.

    Raises:
        UsageError: settings contradict each other, or the folder holds another run.
        Interrupted: SIGTERM arrived; a checkpoint is saved.
        OstError: see `ost.train.loop.train` and `ost.train.frozen.train_adapter`.
    """
    if config.tune != "adapter":
        from ost.train.loop import train

        return train(config, task, run, device=device, resume=resume, ranks=ranks, watch=watch)
    if ranks is not None and ranks.world > 1:
        raise UsageError("an adapter takes seconds on one device; start it without torchrun")
    from ost.train.frozen import train_adapter

    return train_adapter(config, task, run, device=device, resume=resume, watch=watch)
