"""What learns: the parameters of a backbone that a regime trains, and embeddings that gradients flow through."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ost.backbones.clip import ClipBackbone
from ost.backbones.extras import draw_prompts, draw_temporal
from ost.backbones.load import load_backbone
from ost.descriptors.pack import Pack
from ost.descriptors.prompts import prompts
from ost.device import cpu_has_fast_bf16
from ost.errors import UsageError, WeightsError
from ost.train.config import TrainConfig
from ost.train.data import Chunk
from ost.types import ClassHead, Descriptors, Kind
from ost.video.augment import Augmentation, recolour
from ost.weights.formats import Weights
from ost.weights.hub import LITE_REMEDIES

# What starts from nothing learns at the full rate, what comes from the weights at `tower_lr` of it.
NEW = ("prompts.", "temporal.", "lora.")


def grown(config: TrainConfig) -> Any:
    """What training adds to the weights, as `load_backbone` wants it."""

    def grow(weights: Weights) -> Weights:
        state = dict(weights.state)
        if config.prompt_count and "prompts.visual" not in state:
            state |= draw_prompts(weights, config.prompt_layers, config.prompt_count, config.seed)
        if config.temporal_layers and "temporal.positions" not in state:
            width = _width(weights)
            state |= draw_temporal(config.frames, width, config.temporal_layers, config.seed)
        return replace(weights, state=state)

    return grow


def _width(weights: Weights) -> int:
    projection = weights.state.get("text_projection", weights.state.get("text.text_projection"))
    if projection is None or projection.ndim != 2:
        raise UsageError(
            "a transformer over time needs a CLIP with a plain text projection, such as ViT-B-16"
        )
    return int(projection.shape[1])


def load_learner(
    config: TrainConfig, pack: Pack, device: str, augmentation: Augmentation, tell: Any
) -> Learner:
    """The backbone of a config, with the parameters that its regime trains.

    Raises:
        UsageError: the backbone has no towers that can be trained.
    """
    try:
        backbone = load_backbone(
            config.named_backbone, config.weights, device=device, dtype="fp32", tell=tell, grow=grown(config)
        )
    except WeightsError as error:  # lite is no way out: its towers cannot be trained
        others = [remedy for remedy in error.remedies if remedy not in LITE_REMEDIES]
        raise WeightsError(error.fault, *others) from error
    if (towers := backbone.trainable()) is None:
        raise UsageError(
            f"the towers of {backbone.name} cannot be trained",
            "train an adapter over them: ost train adapter",
        )
    return Learner(towers, config, pack, augmentation)


@dataclass(frozen=True)
class Prompted:
    """The prompts of one kind as tokens.

    Attributes:
        tokens: int64 [A, N, L], padded rows zero.
        mask: bool [A, N].
    """

    tokens: Tensor
    mask: Tensor


class Learner:
    """A backbone in training.

    The towers stay in evaluation mode: nothing is dropped, so computing a chunk twice gives the same twice, and
    no running statistic depends on a batch.

    Args:
        backbone: fp32; its towers are trained in place.
        config: which of them.
        pack: the classes.
        augmentation: whose colours are applied on the device.
    """

    def __init__(
        self, backbone: ClipBackbone, config: TrainConfig, pack: Pack, augmentation: Augmentation
    ) -> None:
        self.backbone, self.config, self.pack = backbone, config, pack
        self.augmentation = augmentation
        self.trains_image = config.tune in ("both", "image", "prompts", "lora")
        self.trains_text = config.tune in ("both", "text", "prompts", "lora")
        self.autocasts = _autocasts(config, backbone.device)
        if config.tune == "lora":
            from ost.train.lora import inject

            inject(backbone, config.lora_rank, config.seed)
        self.parameters = dict(self._chosen())
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        if config.checkpointing:
            for tower in (backbone.visual, backbone.text.transformer):
                _checkpoint(tower, backbone.name)
        self._visual: Any = torch.compile(backbone.visual) if config.compile else backbone.visual
        self._table: dict[Kind, Tensor] | None = None
        notices: list[str] = []
        self.prompted = {kind: self._tokens(kind, notices.append) for kind in config.kinds}
        self.notices = tuple(dict.fromkeys(notices))

    @property
    def device(self) -> torch.device:
        """Where everything is."""
        return self.backbone.device

    @property
    def width(self) -> int:
        """D."""
        return self.backbone.width

    @property
    def log_scale(self) -> Tensor:
        """The logarithm of the logit scale, a parameter."""
        return self.backbone.text.logit_scale

    @property
    def scale(self) -> Tensor:
        """s, as the logits are multiplied with it."""
        return self.log_scale.exp()

    def clamp_scale(self) -> None:
        """Keep the scale within its limit, and the backbone's own number with it."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(self.config.max_scale))
        self.backbone.logit_scale = float(self.scale.detach())

    def precision(self) -> AbstractContextManager[Any]:
        """The precision that towers run in; the weights themselves stay fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocasts)

    def embed_chunk(self, chunk: Chunk) -> Tensor:
        """Raw embeddings [c, T, D] of a chunk, fp32."""
        with self.precision():
            pixels = torch.cat([self._pixels(clip, colour) for clip, colour in _clips(chunk)])
            raw = self._visual(self.backbone.moved(pixels)).float()
            return self.backbone.over_time(raw.unflatten(0, chunk.pixels.shape[:2]))

    def _pixels(self, clip: Tensor, colour: Any) -> Tensor:
        moved = clip.to(self.device, non_blocking=True)
        return self.backbone.preprocess.normalised(recolour(moved, colour, self.augmentation))

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Raw embeddings [m, D] of tokens [m, L], fp32."""
        with self.precision():
            return self.backbone.encode_tokens(tokens)

    def text_rows(self, kind: Kind, classes: Sequence[int]) -> Tensor:
        """The prompts of some classes as tokens [m, L], class by class."""
        prompted = self.prompted[kind]
        rows = list(classes)
        return prompted.tokens[rows][prompted.mask[rows]]

    def head(self, classes: Sequence[int], raw: dict[Kind, Tensor]) -> ClassHead:
        """A class head with scale 1 out of raw text embeddings, class by class as `text_rows` gives them."""
        rows = list(classes)
        kinds: dict[Kind, Descriptors] = {}
        for kind, flat in raw.items():
            mask = self.prompted[kind].mask[rows].to(flat.device)
            values = flat.new_zeros(*mask.shape, flat.shape[-1])
            values = values.masked_scatter(mask[..., None], normalize(flat, dim=-1))
            kinds[kind] = Descriptors(values, mask, tuple(() for _ in rows))
        return ClassHead(tuple(self.pack.names[a] for a in rows), kinds, 1.0)

    def frozen_texts(self, classes: Sequence[int]) -> dict[Kind, Tensor]:
        """Raw text embeddings of some classes where the text tower stands still: computed once for all."""
        if self._table is None:
            everyone = range(len(self.pack))
            with torch.no_grad():
                self._table = {
                    kind: torch.cat(
                        [self.embed_tokens(part) for part in self.text_rows(kind, everyone).split(16)]
                    )
                    for kind in self.config.kinds
                }
        rows: dict[Kind, Tensor] = {}
        for kind, flat in self._table.items():
            counts = self.prompted[kind].mask.sum(1).tolist()
            parts = flat.split(counts)
            rows[kind] = torch.cat([parts[a] for a in classes])
        return rows

    def weights(self) -> Weights:
        """The backbone as it is now, as a weight file holds it."""
        if self.config.tune == "lora":
            from ost.train.lora import merged

            return merged(self.backbone)
        return self.backbone.weights()

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups for AdamW: what decays and what does not, what is new and what is tuned."""
        groups: list[dict[str, Any]] = []
        for new in (True, False):
            for decays in (True, False):
                chosen = [
                    (name, p)
                    for name, p in self.parameters.items()
                    if name.startswith(NEW) == new and _decays(name, p) == decays
                ]
                if chosen:
                    decay = self.config.weight_decay if decays else 0.0
                    share = 1.0 if new else self.config.tower_lr
                    groups.append({"params": [p for _, p in chosen], "weight_decay": decay, "share": share})
        return groups

    def _chosen(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that the regime trains, by the names that a weight file gives them."""
        backbone, tune = self.backbone, self.config.tune
        if backbone.prompts is not None and tune in ("both", "prompts"):
            yield from _named(backbone.prompts, "prompts.")
        if backbone.temporal is not None and tune in ("both", "image"):
            yield from _named(backbone.temporal, "temporal.")
        if tune == "lora":
            from ost.train.lora import is_update

            for tower, prefix in ((backbone.visual, "lora.visual."), (backbone.text, "lora.")):
                yield from ((n, p) for n, p in _named(tower, prefix) if is_update(n))
        if tune in ("both", "image"):
            yield from _named(backbone.visual, "visual.")
        if tune in ("both", "text"):
            yield from ((n, p) for n, p in _named(backbone.text, "") if not n.startswith("logit_"))
        if tune in ("both", "image", "text"):
            yield "logit_scale", backbone.text.logit_scale

    def _tokens(self, kind: Kind, tell: Callable[[str], None]) -> Prompted:
        texts = [prompts(item, kind, self.backbone.templates) for item in self.pack.classes]
        mask = torch.tensor([[n < len(row) for n in range(max(map(len, texts)))] for row in texts])
        flat = self.backbone.tokens([text for row in texts for text in row], tell)
        tokens = flat.new_zeros(*mask.shape, flat.shape[-1])
        tokens[mask] = flat
        return Prompted(tokens, mask)


def _clips(chunk: Chunk) -> Iterator[tuple[Tensor, Any]]:
    return zip(chunk.pixels, chunk.colours, strict=True)


def _named(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Parameter]]:
    return ((prefix + name, parameter) for name, parameter in module.named_parameters())


def _decays(name: str, parameter: Tensor) -> bool:
    """Matrices decay; biases, norms, the scale, and single vectors do not."""
    return parameter.ndim > 1 and not name.endswith("bias")


def _autocasts(config: TrainConfig, device: torch.device) -> bool:
    if config.precision != "auto":
        return config.precision == "bf16"
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_has_fast_bf16()


def _checkpoint(tower: Any, name: str) -> None:
    if hasattr(tower, "set_grad_checkpointing"):
        tower.set_grad_checkpointing(True)
    elif hasattr(tower, "grad_checkpointing"):
        tower.grad_checkpointing = True
    else:
        raise UsageError(f"a tower of {name} cannot recompute its activations; leave checkpointing out")
