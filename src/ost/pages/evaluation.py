"""Render the page of an evaluation: its numbers, confused classes, and videos where descriptors won or lost.

Like the page of a prediction it is one file without scripts or external addresses. Untrusted text reaches it only
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
from ost.evaluate.examples import Example, ExampleKind, examples
from ost.evaluate.measure import Measured
from ost.evaluate.metrics import Ints
from ost.evaluate.picture import short
from ost.evaluate.run import ListScores
from ost.evaluate.saved import record
from ost.evaluate.table import table_of
from ost.files import printable, write_text
from ost.pages.environment import page_environment
from ost.pages.evidence import Panel, Picture, central_pictures, panel_of, style_of, thumbnails_of
from ost.recognition.recognizer import Recognizer

EXAMPLES = 3  # each of wins and of losses
PAIRS = 12
GROUPS = 3  # groups of lists with the same classes that are drawn
CLASSES = 12  # that gained most and as many that lost most, where there are more than ALL_CLASSES
ALL_CLASSES = 40
LABELLED = 110  # classes whose names fit beside the confusion matrix
LOST = 50
# Light to dark; the page's own colours.
SHADES = ("#fbfaf6", "#d5e6e3", "#9dc4c3", "#5797a8", "#2c6b86", "#12365f")


class ClassRow(NamedTuple):
    """A class: its videos, and its accuracies with the requested matching and the baseline (None without one)."""

    name: str
    videos: int
    own: float
    baseline: float | None


class Group(NamedTuple):
    """Lists with the same classes, each video once."""

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
        panels: evidence for the right class against the wrong one, and the reverse; each with a caption of the rival.
    """

    example: Example
    name: str
    pictures: list[Picture]
    aspect: float
    panels: list[tuple[Panel, str]]


def save_evaluation(path: str | Path, measured: Measured) -> None:
    """Write the page of an evaluation, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(path, render_evaluation(measured))


def render_evaluation(measured: Measured) -> str:
    """Return the page of an evaluation: one HTML document."""
    run_record = record(measured)
    shown = {outcome: _shown_examples(measured, outcome) for outcome in ("win", "loss")}
    all_shown = [example for outcomes in shown.values() for example in outcomes]
    environment = page_environment()
    environment.filters["share"] = lambda share: f"{share:.1%}"
    page = environment.get_template("evaluation.html.j2").render(
        name=measured.task.config.protocol,
        own=measured.task.config.protocol == OWN,
        note=measured.task.protocol.note,
        table=table_of(measured),
        asked=str(measured.requested),
        groups=_groups(measured),
        groups_left=max(0, len(_group_by_classes(measured.lists)) - GROUPS),
        shown=shown,
        lost=measured.lost,
        lost_shown=LOST,
        all_classes=ALL_CLASSES,
        ends=CLASSES,
        settings={
            key: value for key, value in run_record["config"].items() if value not in (None, "", False)
        },
        record=run_record,
        version=version("ost-video"),
        **style_of([example.pictures for example in all_shown], all_shown[0].aspect if all_shown else 1.0),
    )
    return printable(page)


def _group_by_classes(lists: Sequence[ListScores]) -> list[list[int]]:
    """Group the indices of the lists that have videos by their classes."""
    by_names: dict[tuple[str, ...], list[int]] = {}
    for number, answer in enumerate(lists):
        if answer.paths:
            by_names.setdefault(answer.names, []).append(number)
    return list(by_names.values())


def _groups(measured: Measured) -> list[Group]:
    groups: list[Group] = []
    for numbers in _group_by_classes(measured.lists)[:GROUPS]:
        merged = _merge([measured.lists[i] for i in numbers])
        baseline = _merge([measured.baseline[i] for i in numbers]) if measured.baseline else None
        matrix = confusion(merged)
        groups.append(
            Group(
                merged.title,
                len(merged.paths),
                draw_matrix(matrix, merged.names),
                worst_pairs(matrix, merged.names, PAIRS),
                _classes(merged, baseline),
            )
        )
    return groups


def _merge(lists: Sequence[ListScores]) -> ListScores:
    """Merge lists of the same classes into one, with each video once."""
    positions: dict[str, tuple[int, int]] = {}
    for number, answer in enumerate(lists):
        for row, path in enumerate(answer.paths):
            positions.setdefault(path, (number, row))
    return replace(
        lists[0],
        title=", ".join(answer.title for answer in lists),
        paths=tuple(positions),
        logits=np.stack([lists[number].logits[row] for number, row in positions.values()]),
        truth=np.stack([lists[number].truth[row] for number, row in positions.values()]),
    )


def _classes(answer: ListScores, baseline: ListScores | None) -> list[ClassRow]:
    """Return every class with videos, by gain over the baseline, or by accuracy without one."""
    shares, baseline_shares = answer.by_class(), baseline.by_class() if baseline else {}
    shown = answer.truth.sum(0)
    rows = [
        ClassRow(
            name,
            int(shown[answer.names.index(name)]),
            share,
            baseline_shares.get(name, 0.0) if baseline else None,
        )
        for name, share in shares.items()
    ]
    return sorted(rows, key=lambda row: (-(row.own - (row.baseline or 0.0)), -row.own, row.name))


def _shown_examples(measured: Measured, outcome: ExampleKind) -> list[Shown]:
    """Return examples with their evidence, without videos that can no longer be read."""
    if measured.baseline is None:
        return []
    shown: list[Shown] = []
    settings = measured.task.config.settings
    recognizer = Recognizer(measured.backbone, settings)
    for example in examples(measured.lists, measured.baseline, outcome, EXAMPLES):
        pack = measured.task.lists[example.list_index].pack
        (prediction,) = recognizer.recognize_all([example.path], pack, thumbnails=True)
        if isinstance(prediction, VideoError):
            continue
        wrong, what = (
            (example.baseline, "what the baseline says")
            if outcome == "win"
            else (example.predicted, "what was said")
        )
        panels = [
            (panel_of(prediction, example.truth, wrong), what),
            (panel_of(prediction, wrong, example.truth), "what it shows"),
        ]
        name = PurePath(example.path).name or example.path
        aspect = thumbnails_of(prediction).aspect
        shown.append(Shown(example, name, central_pictures(prediction), aspect, panels))
    return shown


def draw_matrix(matrix: Ints, names: tuple[str, ...]) -> str:
    """Draw a confusion matrix as a data URI of an SVG; rows are shares of a class's videos."""
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
        )  # missing glyphs of matplotlib's font: the SVG is shown with the reader's fonts
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
