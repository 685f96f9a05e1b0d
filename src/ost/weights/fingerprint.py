"""What identifies a loaded model: the beginning of every key under which something computed by it is kept."""

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
    """SHA-256, hexadecimal, of all that the embeddings of a model depend on.

    Args:
        weights: hash of the file's content; of a blend, of both contents and the share.
        architecture: the configuration of the towers, with their activation.
        tokenizer: which, and its version.
        precision: dtype of the towers.
        preprocess: the pixels.
        added: tensors of learned prompts and of a transformer over time, as they are now.
    """
    return text_hash(
        weights,
        json.dumps(architecture, sort_keys=True, default=str),
        tokenizer,
        precision,
        json.dumps(asdict(preprocess), sort_keys=True),
        *(f"{name} {_content(tensor)}" for name, tensor in sorted((added or {}).items())),
    )


def _content(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {list(tensor.shape)} {hashlib.sha256(data).hexdigest()}"
