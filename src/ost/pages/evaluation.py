"""The page of an evaluation: its numbers, what is taken for what, and videos where descriptors won or lost.

Like the page of a recognition it is one file without script or foreign address, and what strangers wrote reaches it
through jinja2's escaping, or as text of an SVG that is shown as an image.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from ost.errors import VideoError
from ost.evaluate.config import OWN
from ost.evaluate.confusion import Confused, confusion, worst_pairs
from ost.evaluate.examples import Example, Outcome, examples
from ost.evaluate.measure import Measured
from ost.evaluate.metrics import Ints
from ost.evaluate.picture import short
from ost.evaluate.run import Answer
from ost.evaluate.saved import record
from ost.evaluate.table import table_of
from ost.files import printable, write_text
from ost.pages.environment import page_environment
from ost.pages.evidence import Panel, Picture, central_pictures, panel_of, style_of, thumbnails_of
from ost.recognition.recognizer import Recognizer

EXAMPLES = 3  # of wins, and of losses
PAIRS = 12
GROUPS = 3  # lists of classes of their own that are drawn
CLASSES = 12  # that gained most, and as many that lost most, where there are too many for all
ALL_CLASSES = 40
LABELLED = 110  # classes whose names fit beside the confusion matrix
LOST = 50
# Light to dark; the page's own colours.
SHADES = ("#fbfaf6", "#d5e6e3", "#9dc4c3", "#5797a8", "#2c6b86", "#12365f")


class ClassRow(NamedTuple):
    """A class: its videos, and the shares got right as asked and by the baseline (None without one)."""

    name: str
    videos: int
    own: float
    baseline: float | None


class Group(NamedTuple):
    """Lists of the same classes, each video once."""

    titles: str
    videos: int
    matrix: str
    pairs: list[Confused]
    classes: list[ClassRow]


@dataclass(frozen=True)
class Shown:
    """An example with its evidence.

    Attributes:
        example: which video.
        name: its file's name.
        pictures: its frames.
        aspect: their width over their height.
        panels: evidence for the right class against the wrong one, and for the wrong one; with what the rival is.
    """

    example: Example
    name: str
    pictures: list[Picture]
    aspect: float
    panels: list[tuple[Panel, str]]


def save_page(path: str | Path, measured: Measured) -> None:
    """Write the page, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(path, render_page(measured))


def render_page(measured: Measured) -> str:
    """The page of an evaluation: one HTML document."""
    told = record(measured)
    shown = {outcome: _shown(measured, outcome) for outcome in ("win", "loss")}
    every = [one for some in shown.values() for one in some]
    environment = page_environment()
    environment.filters["share"] = lambda share: f"{share:.1%}"
    page = environment.get_template("evaluation.html.j2").render(
        name=measured.task.config.protocol,
        own=measured.task.config.protocol == OWN,
        note=measured.task.protocol.note,
        table=table_of(measured),
        asked=str(measured.asked),
        groups=_groups(measured),
        groups_left=max(0, len(_grouped(measured.lists)) - GROUPS),
        shown=shown,
        lost=measured.lost,
        lost_shown=LOST,
        all_classes=ALL_CLASSES,
        ends=CLASSES,
        settings={key: value for key, value in told["config"].items() if value not in (None, "", False)},
        record=told,
        version=version("ost-video"),
        **style_of([one.pictures for one in every], every[0].aspect if every else 1.0),
    )
    return printable(page)


def _grouped(lists: Sequence[Answer]) -> list[list[int]]:
    """Numbers of the lists that have videos, those of the same classes together."""
    by_names: dict[tuple[str, ...], list[int]] = {}
    for number, answer in enumerate(lists):
        if answer.paths:
            by_names.setdefault(answer.names, []).append(number)
    return list(by_names.values())


def _groups(measured: Measured) -> list[Group]:
    groups: list[Group] = []
    for numbers in _grouped(measured.lists)[:GROUPS]:
        own = _merged([measured.lists[i] for i in numbers])
        other = _merged([measured.baseline[i] for i in numbers]) if measured.baseline else None
        matrix = confusion(own)
        groups.append(
            Group(
                own.title,
                len(own.paths),
                draw_matrix(matrix, own.names),
                worst_pairs(matrix, own.names, PAIRS),
                _classes(own, other),
            )
        )
    return groups


def _merged(lists: Sequence[Answer]) -> Answer:
    """Lists of the same classes as one, each video once."""
    place: dict[str, tuple[int, int]] = {}
    for number, answer in enumerate(lists):
        for row, path in enumerate(answer.paths):
            place.setdefault(path, (number, row))
    return replace(
        lists[0],
        title=", ".join(answer.title for answer in lists),
        paths=tuple(place),
        logits=np.stack([lists[number].logits[row] for number, row in place.values()]),
        truth=np.stack([lists[number].truth[row] for number, row in place.values()]),
    )


def _classes(own: Answer, baseline: Answer | None) -> list[ClassRow]:
    """Every class that some video shows: those that gained most over the baseline first, or those most often right."""
    shares, others = own.by_class(), baseline.by_class() if baseline else {}
    shown = own.truth.sum(0)
    rows = [
        ClassRow(name, int(shown[own.names.index(name)]), share, others.get(name, 0.0) if baseline else None)
        for name, share in shares.items()
    ]
    return sorted(rows, key=lambda row: (-(row.own - (row.baseline or 0.0)), -row.own, row.name))


def _shown(measured: Measured, outcome: Outcome) -> list[Shown]:
    """Examples with their evidence; a video that cannot be read a second time is left out."""
    if measured.baseline is None:
        return []
    found: list[Shown] = []
    settings = measured.task.config.settings
    recognizer = Recognizer(measured.backbone, settings)
    for example in examples(measured.lists, measured.baseline, outcome, EXAMPLES):
        pack = measured.task.questions[example.question].pack
        (prediction,) = recognizer.recognize_all([example.path], pack, thumbnails=True)
        if isinstance(prediction, VideoError):
            continue
        wrong, what = (
            (example.baseline, "what the baseline says")
            if outcome == "win"
            else (example.said, "what was said")
        )
        panels = [
            (panel_of(prediction, example.truth, wrong), what),
            (panel_of(prediction, wrong, example.truth), "what it shows"),
        ]
        name = PurePath(example.path).name or example.path
        aspect = thumbnails_of(prediction).aspect
        found.append(Shown(example, name, central_pictures(prediction), aspect, panels))
    return found


def draw_matrix(matrix: Ints, names: tuple[str, ...]) -> str:
    """A confusion matrix as a data URI of an SVG; rows are shares of a class's videos."""
    from matplotlib import rc_context
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    labelled = len(names) <= LABELLED
    side = max(5.0, min(13.0, 0.16 * len(names))) if labelled else 9.0
    settings: Any = {"text.parse_math": False, "svg.hashsalt": "ost", "svg.fonttype": "none", "font.size": 8}
    buffer = io.BytesIO()
    with rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of scripts that matplotlib's font lacks: the reader's has them
        figure = Figure(figsize=(side + 2, side + 1), layout="constrained", facecolor=SHADES[0])
        axes = figure.subplots()
        picture = axes.imshow(
            shares,
            cmap=LinearSegmentedColormap.from_list("ost", SHADES),
            vmin=0,
            vmax=1,
            interpolation="none",
        )
        places = range(len(names)) if labelled else []
        axes.set_xticks(places, [short(names[i]) for i in places], rotation=90, fontsize=6.5)
        axes.set_yticks(places, [short(names[i]) for i in places], fontsize=6.5)
        axes.set(xlabel="taken for", ylabel="shown")
        axes.tick_params(length=0)
        axes.spines[:].set_color("#dcd8cc")
        bar = figure.colorbar(picture, ax=axes, shrink=0.4, aspect=30)
        bar.set_label("share of the class's videos")
        bar.outline.set_visible(False)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
