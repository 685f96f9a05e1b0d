"""The prediction for one video: every class's probability, and the evidence behind each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ost.errors import UsageError
from ost.notebook import Shaded, html_table
from ost.recognition.match import explain
from ost.recognition.settings import Match, Settings
from ost.types import (
    ClassHead,
    Evidence,
    FrameEmbeddings,
    Preprocess,
    Sample,
    Scores,
    Seconds,
    Thumbnails,
)
from ost.video.transform import central_crop

if TYPE_CHECKING:
    from ost.recognition.record import VideoRecord


class ClassScore(NamedTuple):
    """The score of one class.

    Attributes:
        name: readable.
        logit: the mean over views.
        probability: the mean over views of the softmax.
        label: the class as the user wrote it.
    """

    name: str
    logit: float
    probability: float
    label: str

    @property
    def title(self) -> str:
        """Return the label, with the readable name beside it where that differs."""
        return self.label if self.label == self.name else f"{self.label} ({self.name})"


class Model(NamedTuple):
    """The identity of the model that made a prediction.

    Attributes:
        backbone: its name.
        weights_hash: SHA-256 of the weights, hexadecimal.
        fingerprint: SHA-256 of all that its embeddings depend on, hexadecimal.
        precision: dtype of the towers, as in "float32".
        preprocess: the pixels that it takes.
    """

    backbone: str
    weights_hash: str
    fingerprint: str
    precision: str
    preprocess: Preprocess


@dataclass(frozen=True, eq=False)
class Prediction:
    """One recognised video.

    Attributes:
        path: the video as the user named it.
        classes: every class, the likeliest first.
        model: the identity of the model.
        pack_hash: SHA-256 of the pack, hexadecimal.
        settings: how the video was sampled and matched.
        seconds: wall-clock time by stage.
        notices: what the user should know, one sentence each.
        sample: the frames that were sampled.
        thumbnails: pictures of them for the page; None where they were not requested.
        embeddings: [V, T, D], one row a view.
        head: the classes as they were matched.
    """

    path: str
    classes: tuple[ClassScore, ...]
    model: Model
    pack_hash: str
    settings: Settings
    seconds: Seconds
    notices: tuple[str, ...]
    sample: Sample
    thumbnails: Thumbnails | None
    embeddings: FrameEmbeddings
    head: ClassHead

    def __repr__(self) -> str:
        best = self.classes[0]
        return (
            f"Prediction({self.path!r}: {best.label!r} {best.probability:.1%} of {len(self.classes)} classes)"
        )

    @property
    def backbone(self) -> str:
        """Return the name of the backbone."""
        return self.model.backbone

    @property
    def weights_hash(self) -> str:
        """Return the SHA-256 of the weights, hexadecimal."""
        return self.model.weights_hash

    @property
    def match(self) -> Match:
        """Return how frames and descriptors were matched."""
        return self.settings.match

    @property
    def method(self) -> Match:
        """Return the same as `match`, which replaces this name."""
        warnings.warn("method is now called match", DeprecationWarning, stacklevel=2)
        return self.match

    @property
    def eps(self) -> float:
        """Return the entropic weight of the transport."""
        return self.settings.eps

    def top(self, count: int = 5) -> list[ClassScore]:
        """Return the likeliest classes, best first."""
        return list(self.classes[:count])

    def plan(self, name: str | None = None) -> Evidence:
        """Return similarity and transport plan of a class (by default the likeliest) for the central view.

        Args:
            name: the readable name or the label of the class, in any spelling.

        Raises:
            UsageError: there is no such class, or the video was matched by mean-pooling, which has no plan.
        """
        if self.match == "mean":
            raise UsageError("mean-pool matching has no transport plan", "recognise with {match=ot}")
        chosen = name or self.classes[0].name
        return explain(self.embeddings, self.head, chosen, clip=self.central_view, eps=self.eps)

    @property
    def central_view(self) -> int:
        """Return the row of the embeddings with the centre crop, not mirrored, of the middle clip."""
        clips = self.sample.clips
        crops = len(self.embeddings.values) // clips
        return clips // 2 * crops + central_crop(crops)

    def to_dict(self, top: int | None = None) -> VideoRecord:
        """Return the record that `--json` prints, with all classes or the `top` likeliest (`ost.recognition.record`).

        Times are in seconds, None where the file has none.
        """
        from ost.recognition.record import prediction_record

        return prediction_record(self, top)

    def as_dict(self) -> VideoRecord:
        """Return the same as `to_dict`, which replaces this name."""
        warnings.warn("as_dict is now called to_dict", DeprecationWarning, stacklevel=2)
        return self.to_dict()

    def _repr_html_(self) -> str:
        rows = [(score.title, Shaded(score.probability, score.probability)) for score in self.top()]
        return html_table(self.path, ("class", "probability"), rows)

    def save_html(self, path: str | Path) -> None:
        """Write the page with the evidence: one HTML file that needs no network.

        Raises:
            UsageError: the prediction has no thumbnails.
        """
        import ost  # recognition may not import ost.pages, a higher layer; the package exports it

        ost.save_page(self, path)


def rank(scores: Scores, labels: Sequence[str] = ()) -> tuple[ClassScore, ...]:
    """Rank the classes of one video's views, likeliest first: softmax for each view, then the mean."""
    probabilities: list[float] = scores.logits.softmax(-1).mean(0).tolist()
    logits: list[float] = scores.logits.mean(0).tolist()
    class_scores = map(ClassScore, scores.names, logits, probabilities, labels or scores.names)
    # Probabilities of unlikely classes underflow to the same 0; their logits still differ.
    return tuple(sorted(class_scores, key=lambda item: (item.probability, item.logit), reverse=True))
