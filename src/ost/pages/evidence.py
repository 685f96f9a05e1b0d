"""Prepare the evidence for a class for drawing: pictures of frames, heat maps of plans, curves of similarity."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ost.backbones.spec import CLIP_TEMPLATES, PLAIN_TEMPLATES
from ost.errors import UsageError
from ost.pages.environment import number
from ost.recognition.match import class_index, similarity
from ost.types import Evidence, Kind, Thumbnails

if TYPE_CHECKING:
    from ost.recognition.prediction import ClassScore, Prediction

STEPS = 6  # colours on either side of the uniform plan
LEAST_RANGE = 1.05  # least range of the colours: a plan within 5% of uniform must look nearly uniform
SHEET = 10  # most frames that are shown full above the heat maps; more need a contact sheet


class Picture(NamedTuple):
    """A frame: its JPEG as a data URI, its full label ("3.2 s", "frame 4") and a short one for the axis."""

    uri: str
    label: str
    short: str


class Cell(NamedTuple):
    """A plan's entry divided by the uniform one, and its colour: 0 to 2 * STEPS, uniform in the middle."""

    ratio: float
    level: int


class DescriptorRow(NamedTuple):
    """A descriptor: its text after the common prefix, mean similarity, cells, and index of the largest cell."""

    text: str
    fit: float
    cells: list[Cell]
    peak: int | None


@dataclass(frozen=True)
class KindView:
    """The view of one kind of descriptors of one class.

    Attributes:
        kind: spatial, temporal or name.
        texts: the full prompts.
        prefix: words that all of them begin with, or empty.
        rows: the heat map; empty where there is no plan, or a single descriptor.
        line, rival: the charts' points, x in frames and y from 0 (top) to 100.
        low, high: the least and the largest similarity on `line`.
        mean, weighted: similarity averaged evenly and by the plan; `weighted` is None without a plan.
    """

    kind: Kind
    texts: tuple[str, ...]
    prefix: str
    rows: list[DescriptorRow]
    line: list[tuple[float, float]]
    rival: list[tuple[float, float]]
    low: float
    high: float
    mean: float
    weighted: float | None


@dataclass(frozen=True)
class Panel:
    """The evidence for one class.

    Attributes:
        score: its name, logit and probability.
        rival: the class it is compared with, None if there is no other.
        kinds: one view a kind.
        ticks: the charts' grid: labels and heights from 0 (top) to 100.
        limit: the ratio at the strong end of the colours; its inverse is at the weak end.
        alone: whether it was matched by its name, as it has no descriptors.
    """

    score: ClassScore
    rival: str | None
    kinds: list[KindView]
    ticks: list[tuple[str, float]]
    limit: float
    alone: bool


def style_of(strips: Sequence[Sequence[Picture]], aspect: float) -> dict[str, object]:
    """Return the style sheet's variables for a page with these strips of pictures of that aspect ratio."""
    longest = max(map(len, strips), default=1)
    widest = max((len(picture.short) for strip in strips for picture in strip), default=0)
    return {
        "T": longest,
        "sheet": longest > SHEET,
        "every": 2 if widest > 4 and longest > 2 * SHEET else 1,
        "aspect": aspect,
        "levels": 2 * STEPS + 1,
    }


def thumbnails_of(prediction: Prediction) -> Thumbnails:
    """Return the thumbnails of a prediction, which its page needs.

    Raises:
        UsageError: it has none.
    """
    if prediction.thumbnails is None:
        raise UsageError(
            f"{prediction.path}: has no thumbnails for a page; recognise it with recognize, or with "
            "recognize_all(..., thumbnails=True)"
        )
    return prediction.thumbnails


def central_pictures(prediction: Prediction) -> list[Picture]:
    """Return the frames of the middle clip that are present in the central view."""
    mask, files = prediction.embeddings.mask, thumbnails_of(prediction).files
    present = [True] * len(files) if mask is None else mask[prediction.central_view].tolist()
    start = prediction.sample.clips // 2 * len(files)
    pictures: list[Picture] = []
    for t in (t for t, is_present in enumerate(present) if is_present):
        number = len(pictures) + 1
        seconds = prediction.sample.times[start + t]
        label, short = _clock(seconds) if prediction.sample.timed else (f"frame {number}", str(number))
        uri = "data:image/jpeg;base64," + base64.b64encode(files[t]).decode("ascii")
        pictures.append(Picture(uri, label, short))
    return pictures


def _clock(seconds: float) -> tuple[str, str]:
    """Format seconds for the label and for the axis; from 100 s on the axis shows minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{seconds:.1f} s", f"{seconds:.1f}" if seconds < 99.95 else f"{minutes}:{rest:02d}"


def panel_of(prediction: Prediction, name: str, rival: str) -> Panel:
    """Return the panel of a class compared with another."""
    score = next(score for score in prediction.classes if score.name == name)
    return panel(score, evidence_of(prediction, name), evidence_of(prediction, rival))


def evidence_of(prediction: Prediction, name: str) -> Evidence:
    """Return the central view's evidence; mean-pool matching has similarities but no plan."""
    if prediction.match != "mean":
        return prediction.plan(name)
    a = class_index(prediction.head, name)
    middle = prediction.central_view
    descriptors = prediction.head.kinds["name"]
    values = prediction.embeddings.values[middle : middle + 1]
    sim = similarity(values, descriptors, slice(a, a + 1))[0, 0]
    if prediction.embeddings.mask is not None:
        sim = sim[prediction.embeddings.mask[middle]]
    logit = prediction.head.logit_scale * sim.mean().item()
    return Evidence(name, {"name": descriptors.texts[a]}, {"name": sim}, {}, logit)


def panel(score: ClassScore, own: Evidence, rival: Evidence | None) -> Panel:
    """Return the panel of the evidence for a class, beside that for a rival."""
    both = [own] if rival is None else [own, rival]
    curves = [evidence.similarity[kind].mean(1) for evidence in both for kind in evidence.similarity]
    bottom, top, ticks = _axis(min(c.min().item() for c in curves), max(c.max().item() for c in curves))
    ratios = {kind: plan * plan.numel() for kind, plan in own.plan.items() if plan.shape[1] > 1}
    limit = max([LEAST_RANGE, *(r.max().item() for r in ratios.values())])
    kinds: list[KindView] = []
    for kind, sim in own.similarity.items():
        prefix = _common_start(own.texts[kind])
        curve = sim.mean(1)
        kinds.append(
            KindView(
                kind=kind,
                texts=own.texts[kind],
                prefix=prefix,
                rows=_rows(own, kind, len(prefix), limit) if kind in ratios else [],
                line=_points(curve, bottom, top),
                rival=[] if rival is None else _points(rival.similarity[kind].mean(1), bottom, top),
                low=curve.min().item(),
                high=curve.max().item(),
                mean=sim.mean().item(),
                weighted=(own.plan[kind] * sim).sum().item() if kind in ratios else None,
            )
        )
    return Panel(score, None if rival is None else rival.name, kinds, ticks, limit, _is_matched_by_name(own))


def _rows(evidence: Evidence, kind: Kind, skip: int, limit: float) -> list[DescriptorRow]:
    """Return the heat map of one kind, without the first `skip` characters of its texts."""
    ratios = evidence.plan[kind] * evidence.plan[kind].numel()
    fits: list[float] = evidence.similarity[kind].mean(0).tolist()
    rows: list[DescriptorRow] = []
    for text, fit, column in zip(evidence.texts[kind], fits, ratios.T.tolist(), strict=True):
        cells = [Cell(ratio, _level(ratio, limit)) for ratio in column]
        peak = column.index(max(column)) if max(column) - min(column) > 0.01 else None
        rows.append(DescriptorRow(text[skip:].strip(), fit, cells, peak))
    return rows


def _level(ratio: float, limit: float) -> int:
    """Return the colour of a ratio on a logarithmic scale, so that half and twice are equally far from one."""
    exponent = math.log(max(ratio, 1e-9)) / math.log(limit)
    return STEPS + round(STEPS * max(-1.0, min(1.0, exponent)))


def _is_matched_by_name(evidence: Evidence) -> bool:
    texts = set(evidence.texts.values())
    if len(texts) != 1 or not evidence.plan:
        return False
    names = {t.name.replace("{name}", evidence.name) for t in (CLIP_TEMPLATES, PLAIN_TEMPLATES)}
    prompts = texts.pop()
    return len(prompts) == 1 and (len(evidence.texts) > 1 or prompts[0] in names)


def _common_start(texts: tuple[str, ...]) -> str:
    """Return the words that all texts begin with, if there are three or more and every text continues after them."""
    words = [text.split(" ") for text in texts]
    count = 0
    while len(texts) > 1 and all(len(w) > count + 1 for w in words) and len({w[count] for w in words}) == 1:
        count += 1
    return " ".join(words[0][:count]) if count >= 3 else ""


def _axis(low: float, high: float) -> tuple[float, float, list[tuple[str, float]]]:
    """Return bottom and top of a chart, a little beyond the data, and its grid at round numbers."""
    span = max(high - low, 1e-3)
    bottom, top = low - 0.1 * span, high + 0.1 * span
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= span / 3)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [
        (number(n * step, places), round(100 * (top - n * step) / (top - bottom), 2))
        for n in range(math.ceil(bottom / step), math.floor(top / step) + 1)
    ]
    return bottom, top, ticks


def _points(curve: Tensor, bottom: float, top: float) -> list[tuple[float, float]]:
    heights = (100 * (top - curve) / (top - bottom)).tolist()
    return [(t + 0.5, round(y, 2)) for t, y in enumerate(heights)]
