"""Draw the report on a pack: cosines between classes, the most similar pairs, and accuracy on videos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ost.errors import UsageError
from ost.evaluate.pack import PackReport
from ost.evaluate.run import ListScores
from ost.evaluate.ways import Way
from ost.files import atomic
from ost.types import Kind

COLOURS: dict[str, str] = {
    "name": "#8a8f98",
    "names": "#8a8f98",
    "spatial": "#2a78b8",
    "temporal": "#d97a1f",
    "both": "#3c9a5f",
}
FORMATS = ("svg", "png", "pdf")


def save_picture(
    report: PackReport, path: str | Path, accuracy: Mapping[Way, ListScores] | None = None
) -> None:
    """Draw a report with at least two classes and the accuracy of the pack on labelled videos.

    Raises:
        UsageError: the file's ending names no format that can be drawn, or there is one class.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    kind = picture_format(path)
    if report.separability is None:
        raise UsageError(f"pack {report.pack.name!r} has one class, and there is nothing to compare")
    # Class names come from the user; matplotlib would parse a dollar sign in one as mathematics.
    settings: Any = {"text.parse_math": False, "svg.hashsalt": "ost", "font.size": 9}
    with rc_context(settings):
        figure = Figure(figsize=(11, 5.2), layout="constrained")
        left, right = np.ravel(figure.subfigures(1, 2, width_ratios=(1, 1.25), squeeze=False))
        panes = left.subplots(2 if accuracy else 1, 1, squeeze=False)
        _draw_cosines(panes[0][0], report)
        if accuracy:
            _draw_accuracy(panes[1][0], accuracy)
        _draw_pairs(right.subplots(), report)
        figure.suptitle(f"{report.pack.name}: {len(report.pack)} classes")
        with atomic(path) as temporary:
            figure.savefig(
                temporary, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None
            )


def picture_format(path: str | Path) -> str:
    """Return the picture format of a file name's extension.

    Raises:
        UsageError: it cannot be drawn.
    """
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise UsageError(f"{path}: a picture is .{', .'.join(FORMATS)}")
    return kind


def _draw_cosines(axes: Any, report: PackReport) -> None:
    separability = report.separability
    assert separability is not None
    pairs = tuple(torch.triu_indices(len(report.pack), len(report.pack), 1))
    for kind, title in _TITLES.items():
        values = separability.cosines[kind][pairs].numpy()
        label = f"{title}, mean {separability.mean[kind]:.2f}"
        axes.hist(
            values, bins=60, range=(-0.2, 1), density=True, histtype="step", color=COLOURS[kind], label=label
        )
        axes.axvline(separability.mean[kind], color=COLOURS[kind], linestyle=":")
    axes.set(xlabel="cosine between two classes", ylabel="density of pairs")
    axes.legend(frameon=False)


_TITLES: dict[Kind, str] = {"name": "names alone", "spatial": "spatial", "temporal": "temporal"}


def _draw_accuracy(axes: Any, accuracy: Mapping[Way, ListScores]) -> None:
    first = next(iter(accuracy.values()))
    ways = [way.texts for way in accuracy]
    shares = [100 * float(answer.right(1).mean()) for answer in accuracy.values()]
    bars = axes.barh(ways, shares, color=[COLOURS[way] for way in ways])
    axes.bar_label(bars, fmt="%.1f%%", padding=3)
    axes.axvline(100 / len(first.names), color="black", linestyle=":", label="chance")
    axes.invert_yaxis()
    axes.set(
        xlabel=f"top-1 of {len(first.names)} classes on {len(first.paths)} clips",
        xlim=(0, max(shares) * 1.6 + 1),
    )
    axes.legend(frameon=False, loc="lower right")


def _draw_pairs(axes: Any, report: PackReport) -> None:
    separability = report.separability
    assert separability is not None
    rows = range(len(separability.closest))
    axes.barh(
        rows, [pair.descriptors for pair in separability.closest], color=COLOURS["both"], label="descriptors"
    )
    axes.scatter(
        [pair.names for pair in separability.closest],
        rows,
        color=COLOURS["name"],
        label="names",
        zorder=3,
        s=14,
    )
    titles = [f"{short(pair.first)} | {short(pair.second)}" for pair in separability.closest]
    axes.set_yticks(rows, titles, fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="cosine", title="most confusable pairs", xlim=(0, 1))
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)


def short(name: str, most: int = 34) -> str:
    """Return the name, cut to `most` characters to fit beside an axis."""
    return name if len(name) <= most else name[: most - 1] + "…"
