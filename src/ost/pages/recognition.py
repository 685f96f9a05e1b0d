"""Render the page of a prediction: which descriptors matched which frames."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path, PurePath

from ost.files import printable, write_text
from ost.pages.environment import page_environment
from ost.pages.evidence import Panel, central_pictures, evidence_of, panel, style_of, thumbnails_of
from ost.recognition.prediction import Prediction

LISTED = 12  # classes with bars and evidence


def save_page(prediction: Prediction, path: str | Path) -> None:
    """Write the page of a prediction, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(path, render_page(prediction))


def render_page(prediction: Prediction) -> str:
    """Return the page of a prediction: one HTML document without scripts or external addresses."""
    views = len(prediction.embeddings.values)
    clips = prediction.sample.clips
    crops = max(1, views // clips)
    clip, crop = divmod(prediction.central_view, crops)
    pictures = central_pictures(prediction)
    page = (
        page_environment()
        .get_template("recognition.html.j2")
        .render(
            prediction=prediction,
            name=PurePath(prediction.path).name or prediction.path,
            version=version("ost-video"),
            pictures=pictures,
            timed=prediction.sample.timed,
            panels=_panels(prediction),
            **style_of([pictures], thumbnails_of(prediction).aspect),
            view={"count": views, "clips": clips, "crops": crops, "clip": clip, "crop": crop},
        )
    )
    return printable(page)


def _panels(prediction: Prediction) -> list[Panel]:
    """Return evidence for the likeliest classes: the first against the second, the others against the first."""
    scores = prediction.top(LISTED)
    evidence = [evidence_of(prediction, score.name) for score in scores]
    panels: list[Panel] = []
    for i, (score, score_evidence) in enumerate(zip(scores, evidence, strict=True)):
        rival = (1 if i == 0 else 0) if len(scores) > 1 else None
        panels.append(panel(score, score_evidence, None if rival is None else evidence[rival]))
    return panels
