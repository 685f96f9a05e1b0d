"""Fingerprint a loaded model: the first part of every cache key for something it computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ost.files import text_hash
from ost.types import Preprocess


def fingerprint(
    *,
    weights: str,
    architecture: Mapping[str, Any],
    tokenizer: str,
    precision: str,
    preprocess: Preprocess,
    added: Mapping[str, Tensor] | None = None,
) -> str:
    """Return the SHA-256, hexadecimal, of all that the embeddings of a model depend on.

    Args:
        weights: hash of the file's content; for a blend, of both files and the ratio.
        architecture: the configuration of the towers, with their activation.
        tokenizer: its name and version.
        precision: dtype of the towers.
        preprocess: the pixels the model takes.
        added: current tensors of learned prompts and of a transformer over time.
    """
    return text_hash(
        weights,
        json.dumps(architecture, sort_keys=True, default=str),
        tokenizer,
        precision,
        json.dumps(asdict(preprocess), sort_keys=True),
        *(f"{name} {_content_hash(tensor)}" for name, tensor in sorted((added or {}).items())),
    )


def _content_hash(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {list(tensor.shape)} {hashlib.sha256(data).hexdigest()}"
