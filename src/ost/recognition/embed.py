"""Embed a pack as a class head, once per weights and prompts, and cache it on disk."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ost.activity import activity
from ost.backbones.base import Backbone, TextEmbeddings
from ost.cache import Room, kind_folder, touch
from ost.descriptors.pack import Pack
from ost.descriptors.prompts import prompts
from ost.files import atomic, text_hash
from ost.types import ClassHead, Descriptors, Kind

Prompts = dict[Kind, tuple[tuple[str, ...], ...]]

TEXTS_A_STEP = 256


def class_head(backbone: Backbone, pack: Pack, kinds: Sequence[Kind], *, cache: bool = True) -> ClassHead:
    """Embed the pack's classes for `match`, reading the cached head where present.

    Args:
        backbone: its text tower embeds the prompts; it is not loaded if the head is in the cache.
        pack: A classes.
        kinds: which prompts to embed.
        cache: read and write the heads on disk.
    """
    texts: Prompts = {
        kind: tuple(prompts(item, kind, backbone.text_context.templates) for item in pack.classes)
        for kind in kinds
    }
    key = _key(backbone, pack, texts)
    path = kind_folder("heads") / f"{key}.safetensors"
    head = _read(path, pack, texts, backbone, key) if cache else None
    if head is None:
        kinds_embedded, notices = _embed(backbone, texts)
        head = ClassHead(pack.names, kinds_embedded, backbone.logit_scale, key, notices=notices)
        if cache:
            _write(path, head)
    head = replace(head, labels=pack.labels)
    if (adapter := backbone.adapter) is None:
        return head
    return replace(head, hash=text_hash(head.hash, adapter.hash), learned=adapter.classes(pack.names))


def _key(backbone: Backbone, pack: Pack, texts: Prompts) -> str:
    content = json.dumps([list(pack.names), texts], sort_keys=True)
    return text_hash(backbone.fingerprint, content)


def _embed(backbone: Backbone, texts: Prompts) -> tuple[dict[Kind, Descriptors], tuple[str, ...]]:
    """Embed every prompt once; return the descriptors [A, N] of each kind, and the notices.

    Kinds are embedded one after the other, because rounding depends on the batch: so the embeddings of a kind do not
    depend on the other kinds, unless they share a prompt.
    """
    parts: list[TextEmbeddings] = []
    row_of: dict[str, int] = {}
    with activity("embedding texts", _count(texts)) as embedding:
        for rows in texts.values():
            new = {text for row in rows for text in row} - row_of.keys()
            ordered = sorted(new, key=lambda text: (len(text), text))
            row_of |= {text: len(row_of) + i for i, text in enumerate(ordered)}
            for start in range(0, len(ordered), TEXTS_A_STEP):
                step = ordered[start : start + TEXTS_A_STEP]
                parts.append(backbone.embed_text(step))
                embedding.advance(len(step))
    embedded = _concatenate(parts)
    kinds: dict[Kind, Descriptors] = {}
    for kind, rows in texts.items():
        most = max(map(len, rows))
        mask = torch.tensor([[n < len(row) for n in range(most)] for row in rows])
        mask = mask.to(embedded.values.device)
        order = torch.tensor([row_of[text] for row in rows for text in row], device=mask.device)
        values, shift, gain = (None if flat is None else _scatter(flat[order], mask) for flat in embedded[:3])
        kinds[kind] = Descriptors(values=cast(Tensor, values), mask=mask, texts=rows, shift=shift, gain=gain)
    return kinds, embedded.notices


def _count(texts: Prompts) -> int:
    return len({text for rows in texts.values() for row in rows for text in row})


def _concatenate(parts: Sequence[TextEmbeddings]) -> TextEmbeddings:
    shifts = [part.shift for part in parts if part.shift is not None]
    gains = [part.gain for part in parts if part.gain is not None]
    return TextEmbeddings(
        torch.cat([part.values for part in parts]),
        torch.cat(shifts) if shifts else None,
        torch.cat(gains) if gains else None,
        tuple(dict.fromkeys(line for part in parts for line in part.notices)),
    )


def _scatter(flat: Tensor, mask: Tensor) -> Tensor:
    out = flat.new_zeros(*mask.shape, *flat.shape[1:])
    out[mask] = flat
    return out


def _write(path: Path, head: ClassHead) -> None:
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for kind, d in head.kinds.items():
        named = {"values": d.values, "mask": d.mask, "shift": d.shift, "gain": d.gain}
        tensors |= {f"{kind}.{name}": t.contiguous().cpu() for name, t in named.items() if t is not None}
    data = save(tensors, metadata={"notices": json.dumps(head.notices)})
    if not Room().take(len(data)):
        return
    # Without a writable cache the prompts are embedded again next time.
    with contextlib.suppress(OSError), atomic(path) as temporary:
        temporary.write_bytes(data)


def _read(path: Path, pack: Pack, texts: Prompts, backbone: Backbone, key: str) -> ClassHead | None:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(backbone.device) for name in file.keys()}  # noqa: SIM118
            notices = tuple(map(str, json.loads((file.metadata() or {})["notices"])))
        kinds: dict[Kind, Descriptors] = {
            kind: Descriptors(
                values=tensors[f"{kind}.values"],
                mask=tensors[f"{kind}.mask"],
                texts=rows,
                shift=tensors.get(f"{kind}.shift"),
                gain=tensors.get(f"{kind}.gain"),
            )
            for kind, rows in texts.items()
        }
    except (SafetensorError, KeyError, ValueError, OSError):  # damaged: embed again
        return None
    touch(path)
    return ClassHead(pack.names, kinds, backbone.logit_scale, key, notices=notices)
