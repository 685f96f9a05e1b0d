"""The prediction for one video: every class's probability, and the evidence behind each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ost.errors import UsageError
from ost.recognition.match import explain
from ost.recognition.settings import Method
from ost.types import ClassHead, Evidence, FrameEmbeddings, Sample, Scores, Seconds, Thumbnails
from ost.video.transform import central_crop


class ClassScore(NamedTuple):
    """One class's logit (mean over views) and probability (mean over views of the softmax)."""

    name: str
    logit: float
    probability: float


@dataclass(frozen=True)
class Prediction:
    """One recognised video.

    Attributes:
        path: the video as the user named it.
        classes: every class, the likeliest first.
        backbone: its name.
        weights_hash, pack_hash: SHA-256 of the weights and of the pack, hexadecimal.
        method, eps: how frames and descriptors were matched.
        seconds: wall-clock time by stage.
        notices: what the user should know, one sentence each.
        sample: the frames that were sampled.
        thumbnails: pictures of them for the page; None where they were not requested.
        embeddings: [V, T, D], one row a view.
        head: the classes as they were matched.
    """

    path: str
    classes: tuple[ClassScore, ...]
    backbone: str
    weights_hash: str
    pack_hash: str
    method: Method
    eps: float
    seconds: Seconds
    notices: tuple[str, ...]
    sample: Sample
    thumbnails: Thumbnails | None
    embeddings: FrameEmbeddings
    head: ClassHead

    def __repr__(self) -> str:
        best = self.classes[0]
        return (
            f"Prediction({self.path!r}: {best.name!r} {best.probability:.1%} of {len(self.classes)} classes)"
        )

    def top(self, count: int = 5) -> list[ClassScore]:
        """Return the likeliest classes, best first."""
        return list(self.classes[:count])

    def plan(self, name: str | None = None) -> Evidence:
        """Return similarity and transport plan of a class (by default the likeliest) for the central view.

        Raises:
            UsageError: there is no such class, or the video was matched by mean-pooling, which has no plan.
        """
        if self.method == "mean":
            raise UsageError("mean-pool matching has no transport plan; recognise with the method ot")
        chosen = name or self.classes[0].name
        return explain(self.embeddings, self.head, chosen, clip=self.central_view, eps=self.eps)

    @property
    def central_view(self) -> int:
        """Return the row of the embeddings with the centre crop, not mirrored, of the middle clip."""
        clips = self.sample.clips
        crops = len(self.embeddings.values) // clips
        return clips // 2 * crops + central_crop(crops)

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints; times are in seconds, None where the file has none."""
        return {
            "path": self.path,
            "backbone": self.backbone,
            "weights": self.weights_hash,
            "pack": self.pack_hash,
            "times": [None if math.isnan(t) else t for t in self.sample.times],
            "classes": [score._asdict() for score in self.classes],
            "seconds": self.seconds.as_dict(),
            "notices": list(self.notices),
        }

    def save_html(self, path: str | Path) -> None:
        """Write the page with the evidence: one HTML file that needs no network.

        Raises:
            UsageError: the prediction has no thumbnails.
        """
        import ost  # recognition may not import ost.pages, a higher layer; the package exports it

        ost.save_page(self, path)


def rank(scores: Scores) -> tuple[ClassScore, ...]:
    """Rank the classes of one video's views, likeliest first: softmax for each view, then the mean."""
    probabilities: list[float] = scores.logits.softmax(-1).mean(0).tolist()
    logits: list[float] = scores.logits.mean(0).tolist()
    class_scores = map(ClassScore, scores.names, logits, probabilities)
    # Probabilities of unlikely classes underflow to the same 0; their logits still differ.
    return tuple(sorted(class_scores, key=lambda item: (item.probability, item.logit), reverse=True))
