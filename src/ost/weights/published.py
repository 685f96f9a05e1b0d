"""The catalog of fine-tuned weights published on the Hugging Face hub, and the location of a hub file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ost.catalog import Catalog

STARTED_FROM = "ViT-B-16/openai"  # the backbone of all published weights


@dataclass(frozen=True)
class HubFile:
    """One file on the Hugging Face hub.

    Attributes:
        repo: "owner/name".
        files: file names to try in turn; the first that exists is taken.
        repo_type: "model" or "space".
    """

    repo: str
    files: tuple[str, ...]
    repo_type: Literal["model", "space"] = "model"


@dataclass(frozen=True)
class PublishedWeights:
    """Fine-tuned weights for a backbone of the catalog."""

    weights: HubFile
    backbone: str
    licence: str
    note: str


def open_clip_file(repo: str) -> HubFile:
    """Return the weight file of an open_clip model repository, safetensors first."""
    return HubFile(repo, ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"))


def _ost(path: str, note: str) -> PublishedWeights:
    file = HubFile("tomchen-ctj/OST", (f"checkpoints/{path}.pth",), "space")
    return PublishedWeights(file, STARTED_FROM, "CC BY-NC-SA 4.0", note)


def _few_shot() -> dict[str, PublishedWeights]:
    entries: dict[str, PublishedWeights] = {}
    for data, title in (("hmdb", "HMDB-51"), ("ucf", "UCF-101"), ("ssv2", "Something-Something V2")):
        for shots in (2, 4, 8, 16):
            path = f"few_shot/{data}/k{shots}_few_shot_{data}_OST"
            note = f"{shots} clips a class of {title}"
            entries[f"ost/{data}-{shots}shot"] = _ost(path, f"{note}, from CLIP")
            entries[f"ost/{data}-{shots}shot-k400"] = _ost(
                f"{path}_k400_ft", f"{note}, from the K400 weights"
            )
    return entries


PUBLISHED: Catalog[PublishedWeights] = Catalog(
    "published weight file",
    {
        "ost/k400": _ost("zero_shot/OST_10_epochs_k400_finetuned", "Kinetics-400, for zero-shot recognition"),
        **_few_shot(),
    },
)
