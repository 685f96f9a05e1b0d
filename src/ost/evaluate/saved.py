"""Save and load the folder of an evaluation: its settings, environment, numbers and all logits.

run/run.json         settings, hashes of weights and packs, environment, numbers, missing and unreadable videos
    missing.csv      the missing and unreadable videos of the lists, with the cause
    scores.parquet   a row for each list and video: list, path, label, labels, and "logit:NAME" for every class
    index.html       the report page
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ost.errors import UsageError, first_line
from ost.evaluate.config import EvaluateConfig, parse_config
from ost.evaluate.metrics import Bools, Floats
from ost.files import atomic, printable, write_text
from ost.runs import EVALUATION, TRAINING, save_missing

if TYPE_CHECKING:
    import pyarrow as pa

    from ost.evaluate.measure import Measured
    from ost.evaluate.run import ListScores

RUN_SCHEMA = 1
MAX_RUN_BYTES = 1 << 30
RUN, SCORES, PAGE = EVALUATION, "scores.parquet", "index.html"
LOGIT = "logit:"
LIBRARIES = ("ost-video", "torch", "open_clip_torch", "av", "numpy")


def save_run(folder: Path, measured: Measured) -> None:
    """Write the scores, the missing videos and the record; each file is written whole or not at all.

    Raises:
        OSError: a file cannot be written.
    """
    # Built before any file is written: it raises if nothing was scored, and then no file is left behind.
    text = printable(json.dumps(record(measured), indent=2, ensure_ascii=False)) + "\n"
    save_scores(folder / SCORES, measured)
    save_missing(folder, measured.missing)
    write_text(folder / RUN, text)


def record(measured: Measured) -> dict[str, Any]:
    """Return the record of an evaluation, as run.json holds it."""
    task, backbone = measured.task, measured.backbone
    return {
        "schema": RUN_SCHEMA,
        "config": task.config.anywhere().model_dump(mode="json"),
        "backbone": backbone.name,
        "weights": backbone.weights_hash,
        "fingerprint": backbone.fingerprint,
        "precision": backbone.precision,
        "packs": {video_list.title: video_list.pack.hash for video_list in task.lists},
        "environment": environment(measured),
        "seconds": round(measured.seconds, 2),
        "videos": task.videos,
        "numbers": {title: summary.as_dict() for title, summary in measured.summaries().items()},
        "trained_on": _trained_on(measured),
        "published": dict(task.protocol.published),
        "classes": {video_list.title: list(video_list.pack.names) for video_list in task.lists},
        "by_class": {answer.title: answer.by_class() for answer in measured.lists if answer.paths},
        "missing": {answer.title: list(answer.missing) for answer in measured.lists},
        "unreadable": {path: cause for answer in measured.lists for path, cause in answer.unreadable.items()},
    }


def _trained_on(measured: Measured) -> dict[str, Any]:
    """Return the number of videos that the weights were trained on, and the numbers without them."""
    if not measured.trained:
        return {"videos": 0}
    others = measured.untrained()
    return {"videos": len(measured.trained), "numbers_without": others and others.as_dict()}


def environment(measured: Measured) -> dict[str, Any]:
    """Return the environment that may affect the numbers: versions, machine, device."""
    import torch

    device = str(measured.backbone.device)
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "ranks": measured.ranks,
    }


def save_scores(path: Path, measured: Measured) -> None:
    """Write the logits of the requested way of matching; null where a list lacks the class.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    config = measured.task.config
    root = config.videos or (config.manifest.parent if config.manifest else Path())
    with atomic(path) as temporary:
        pq.write_table(_table(measured.lists, root), temporary)


def _table(lists: Sequence[ListScores], root: Path) -> pa.Table:
    import pyarrow as pa

    titles = [answer.title for answer in lists for _ in answer.paths]
    paths = [_relative_path(path, root) for answer in lists for path in answer.paths]
    labels = [names for answer in lists for names in _label_names(answer)]
    columns: dict[str, Any] = {
        "list": pa.array(titles, pa.string()),
        "path": pa.array(paths, pa.string()),
        "label": pa.array([names[0] for names in labels], pa.string()),
        "labels": pa.array(labels, pa.list_(pa.string())),
    }
    names = dict.fromkeys(name for answer in lists for name in answer.names)
    for name in names:
        parts = [_column(answer, name) for answer in lists]
        logits = np.concatenate(parts)
        columns[f"{LOGIT}{name}"] = pa.array(logits, pa.float32(), mask=np.isnan(logits))
    return pa.table(columns)


def _label_names(answer: ListScores) -> Iterator[list[str]]:
    for truth, first in zip(answer.truth, answer.labels, strict=True):
        others = [int(a) for a in np.flatnonzero(truth) if a != first]
        yield [answer.names[a] for a in (int(first), *others)]


def _column(answer: ListScores, name: str) -> Floats:
    if name not in answer.names:
        return np.full(len(answer.paths), np.nan, np.float32)
    return answer.logits[:, answer.names.index(name)].astype(np.float32)


def _relative_path(path: str, root: Path) -> str:
    """Return a path relative to the root of the videos, the same on any machine; undecodable bytes are replaced."""
    relative = os.path.relpath(path, root) if Path(path).is_relative_to(root) else path
    return printable(relative.replace(os.sep, "/"))


@dataclass(frozen=True)
class Saved:
    """A saved run.

    Attributes:
        folder: folder of the run.
        config: its settings.
        record: contents of run.json.
        lists, paths: list and video of each row.
        labels: classes of each row.
        logits: fp32 [n, A] over the union of all classes; NaN where a list lacks the class.
        columns: class name -> column of `logits`.
    """

    folder: Path
    config: EvaluateConfig
    record: dict[str, Any]
    lists: list[str]
    paths: list[str]
    labels: list[list[str]]
    logits: Floats
    columns: dict[str, int]

    @cached_property
    def right(self) -> Bools:
        """Return whether the top-1 class is right, [n]; of equal logits the first class of the list counts."""
        columns = {
            title: [self.columns[name] for name in names] for title, names in self.record["classes"].items()
        }
        right: list[bool] = []
        for title, labels, logits in zip(self.lists, self.labels, self.logits, strict=True):
            list_columns = columns[title]
            right.append(
                list_columns[int(logits[list_columns].argmax())] in {self.columns[label] for label in labels}
            )
        return np.array(right, bool)


def load_run(folder: Path) -> Saved:
    """Read a saved run.

    Raises:
        UsageError: the folder holds no run, or one that cannot be read.
    """
    data = read_record(folder)
    config = parse_config(data.get("config"), str(folder / RUN))
    path = folder / SCORES
    try:
        saved = Saved(folder, config, data, *_read_scores(path))
        saved.right  # noqa: B018 - raises if a class of a list has no column
        return saved
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: does not hold the scores of a run ({first_line(error)})") from error


def read_record(folder: Path) -> dict[str, Any]:
    """Return the contents of run.json in a folder.

    Raises:
        UsageError: there is no readable run.json.
    """
    path = folder / RUN
    if (folder / TRAINING).exists() and not path.exists():
        raise UsageError(f"{folder}: holds a training run, not an evaluation")
    try:
        if path.stat().st_size > MAX_RUN_BYTES:
            raise UsageError(f"{path}: larger than {MAX_RUN_BYTES >> 30} GiB, which no record of a run is")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{folder}: holds no run that can be read ({first_line(error)})") from error
    groups = ("config", "packs", "environment", "classes")
    if (
        not isinstance(data, dict)
        or (type(data.get("schema")), data.get("schema")) != (int, RUN_SCHEMA)  # JSON true equals 1
        or not all(isinstance(data.get(group), dict) for group in groups)
    ):
        raise UsageError(f"{path}: is not the record of a run, schema {RUN_SCHEMA}")
    return data


def _read_scores(path: Path) -> tuple[list[str], list[str], list[list[str]], Floats, dict[str, int]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    names = [name for name in table.column_names if name.startswith(LOGIT)]
    columns = {name.removeprefix(LOGIT): i for i, name in enumerate(names)}
    logits = np.stack([table[name].to_numpy().astype(np.float32) for name in names], axis=1)
    lists, paths, labels = (table[name].to_pylist() for name in ("list", "path", "labels"))
    if not all(isinstance(text, str) for text in (*lists, *paths)) or not all(labels):
        raise ValueError("a row lacks its list, its path or its labels")
    if unknown := {label for row in labels for label in row} - columns.keys():
        raise ValueError(f"a video has the class {min(unknown)!r}, which has no column")
    if np.isnan(logits).all(1).any():
        raise ValueError("a video has no logit")
    return lists, paths, labels, logits, columns
