"""The folder of an evaluation: what was asked, what made the numbers, the numbers, and every logit.

run/run.json         settings, hashes of weights and packs, environment, numbers, videos that were lost
    missing.csv      the videos of the lists that were not there or could not be read, and why
    scores.parquet   a row for each list and video: list, path, label, labels, and "logit:NAME" for every class
    index.html       the page
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
    from ost.evaluate.run import Answer

SCHEMA = 1
MAX_BYTES = 1 << 30
RUN, SCORES, PAGE = EVALUATION, "scores.parquet", "index.html"
LOGIT = "logit:"
LIBRARIES = ("ost-video", "torch", "open_clip_torch", "av", "numpy")


def save_run(folder: Path, measured: Measured) -> None:
    """Write the numbers, then the scores; each whole or not at all.

    Raises:
        OSError: a file cannot be written.
    """
    # Made before anything is written: where nothing was scored there is no record, and nothing is left behind.
    text = printable(json.dumps(record(measured), indent=2, ensure_ascii=False)) + "\n"
    save_scores(folder / SCORES, measured)
    save_missing(folder, measured.missing)
    write_text(folder / RUN, text)


def record(measured: Measured) -> dict[str, Any]:
    """What is kept of an evaluation, for JSON."""
    task, backbone = measured.task, measured.backbone
    return {
        "schema": SCHEMA,
        "config": task.config.anywhere().model_dump(mode="json"),
        "backbone": backbone.name,
        "weights": backbone.weights_hash,
        "fingerprint": backbone.fingerprint,
        "precision": backbone.precision,
        "packs": {question.title: question.pack.hash for question in task.questions},
        "environment": environment(measured),
        "seconds": round(measured.seconds, 2),
        "videos": task.videos,
        "numbers": {what: found.as_dict() for what, found in measured.summaries().items()},
        "trained_on": _trained_on(measured),
        "published": dict(task.protocol.published),
        "classes": {question.title: list(question.pack.names) for question in task.questions},
        "by_class": {found.title: found.by_class() for found in measured.lists if found.paths},
        "missing": {found.title: list(found.missing) for found in measured.lists},
        "unreadable": {path: cause for found in measured.lists for path, cause in found.unreadable.items()},
    }


def _trained_on(measured: Measured) -> dict[str, Any]:
    """How many of the videos the weights learned from, and the numbers without them."""
    if not measured.trained:
        return {"videos": 0}
    others = measured.untrained()
    return {"videos": len(measured.trained), "numbers_without": others and others.as_dict()}


def environment(measured: Measured) -> dict[str, Any]:
    """What else may move a number: versions, machine, device."""
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
    """Write the logits of the way that was asked for; a class that a list does not have is null there.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    config = measured.task.config
    root = config.videos or (config.manifest.parent if config.manifest else Path())
    with atomic(path) as temporary:
        pq.write_table(_table(measured.lists, root), temporary)


def _table(lists: Sequence[Answer], root: Path) -> pa.Table:
    import pyarrow as pa

    titles = [answer.title for answer in lists for _ in answer.paths]
    paths = [_below(path, root) for answer in lists for path in answer.paths]
    labels = [shown for answer in lists for shown in _shown(answer)]
    columns: dict[str, Any] = {
        "list": pa.array(titles, pa.string()),
        "path": pa.array(paths, pa.string()),
        "label": pa.array([shown[0] for shown in labels], pa.string()),
        "labels": pa.array(labels, pa.list_(pa.string())),
    }
    names = dict.fromkeys(name for answer in lists for name in answer.names)
    for name in names:
        parts = [_column(answer, name) for answer in lists]
        logits = np.concatenate(parts)
        columns[f"{LOGIT}{name}"] = pa.array(logits, pa.float32(), mask=np.isnan(logits))
    return pa.table(columns)


def _shown(answer: Answer) -> Iterator[list[str]]:
    for own, first in zip(answer.truth, answer.labels, strict=True):
        others = [int(a) for a in np.flatnonzero(own) if a != first]
        yield [answer.names[a] for a in (int(first), *others)]


def _column(answer: Answer, name: str) -> Floats:
    if name not in answer.names:
        return np.full(len(answer.paths), np.nan, np.float32)
    return answer.logits[:, answer.names.index(name)].astype(np.float32)


def _below(path: str, root: Path) -> str:
    """A path below the root of the videos, so that two machines call it alike; bytes that are no text are replaced."""
    relative = os.path.relpath(path, root) if Path(path).is_relative_to(root) else path
    return printable(relative.replace(os.sep, "/"))


@dataclass(frozen=True)
class Saved:
    """A run as it was saved.

    Attributes:
        folder: where it lies.
        config: what was asked.
        record: all of run.json.
        lists, paths: of each row.
        labels: each row's classes.
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
        """Whether the first class is a class of the video, [n]; of equal logits the first in its list counts."""
        columns = {
            title: [self.columns[name] for name in names] for title, names in self.record["classes"].items()
        }
        found: list[bool] = []
        for title, labels, logits in zip(self.lists, self.labels, self.logits, strict=True):
            own = columns[title]
            found.append(own[int(logits[own].argmax())] in {self.columns[label] for label in labels})
        return np.array(found, bool)


def load_run(folder: Path) -> Saved:
    """Read a saved run.

    Raises:
        UsageError: the folder holds none, or what it holds cannot be read.
    """
    data = read_record(folder)
    config = parse_config(data.get("config"), str(folder / RUN))
    place = folder / SCORES
    try:
        saved = Saved(folder, config, data, *_read_scores(place))
        saved.right  # noqa: B018 - the classes of the lists have their columns
        return saved
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{place}: does not hold the scores of a run ({first_line(error)})") from error


def read_record(folder: Path) -> dict[str, Any]:
    """The run.json of a folder.

    Raises:
        UsageError: there is none that can be read.
    """
    place = folder / RUN
    if (folder / TRAINING).exists() and not place.exists():
        raise UsageError(f"{folder}: holds a training run, not an evaluation")
    try:
        if place.stat().st_size > MAX_BYTES:
            raise UsageError(f"{place}: larger than {MAX_BYTES >> 30} GiB, which no record of a run is")
        data = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{folder}: holds no run that can be read ({first_line(error)})") from error
    groups = ("config", "packs", "environment", "classes")
    if (
        not isinstance(data, dict)
        or (type(data.get("schema")), data.get("schema")) != (int, SCHEMA)  # true is 1 too
        or not all(isinstance(data.get(group), dict) for group in groups)
    ):
        raise UsageError(f"{place}: is not the record of a run, schema {SCHEMA}")
    return data


def _read_scores(place: Path) -> tuple[list[str], list[str], list[list[str]], Floats, dict[str, int]]:
    import pyarrow.parquet as pq

    table = pq.read_table(place)
    names = [name for name in table.column_names if name.startswith(LOGIT)]
    columns = {name.removeprefix(LOGIT): i for i, name in enumerate(names)}
    logits = np.stack([table[name].to_numpy().astype(np.float32) for name in names], axis=1)
    lists, paths, labels = (table[name].to_pylist() for name in ("list", "path", "labels"))
    if not all(isinstance(text, str) for text in (*lists, *paths)) or not all(labels):
        raise ValueError("a row lacks its list, its path or its labels")
    if unknown := {label for own in labels for label in own} - columns.keys():
        raise ValueError(f"a video has the class {min(unknown)!r}, which has no column")
    if np.isnan(logits).all(1).any():
        raise ValueError("a video has no logit")
    return lists, paths, labels, logits, columns
