"""Modules that training can add to a CLIP: learned prompts in both towers, and a transformer over time.

Their tensors are stored in the weight file beside the towers, as `prompts.*` and `temporal.*`, and their sizes
are read from the tensors' shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ost.errors import UsageError, WeightsError
from ost.weights.formats import HEAD_WIDTH, Weights, account

PREFIXES = ("prompts.", "temporal.")
PROMPT_STD = 0.02
MOST_PROMPTS = 64  # of the 77 tokens that a text has


class LearnedPrompts(nn.Module):
    """Context vectors in the first layers of both towers, as in ViFi-CLIP's second stage (CVPR 2023).

    Attributes:
        visual: [layers, n, width of the image tower], after the patches.
        text: [layers, n, width of the text tower], after the start token.
    """

    def __init__(self, layers: int, count: int, visual_width: int, text_width: int) -> None:
        super().__init__()
        self.visual = nn.Parameter(torch.empty(layers, count, visual_width))
        self.text = nn.Parameter(torch.empty(layers, count, text_width))

    @property
    def count(self) -> int:
        """Return the number of context vectors a layer."""
        return self.visual.shape[1]

    def attach_visual(self, tower: Any) -> None:
        """Hook the prompts into an image tower: appended before its first layer, replaced before the next ones."""

        def append(_: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (x,) = inputs
            return (torch.cat([x, self.visual[0].to(x.dtype).expand(len(x), -1, -1)], 1),)

        tower.ln_pre.register_forward_pre_hook(append)
        for layer, block in enumerate(tower.transformer.resblocks[1 : len(self.visual)], 1):
            block.register_forward_pre_hook(self._replace_hook(self.visual, layer, None))

    def attach_text(self, tower: Any) -> None:
        """Hook the prompts into a text tower, in place of the tokens that `open_up` inserts after the start token."""
        blocks = tower.transformer.resblocks
        blocks[0].register_forward_pre_hook(self._replace_hook(self.text, 0, tower.positional_embedding))
        for layer, block in enumerate(blocks[1 : len(self.text)], 1):
            block.register_forward_pre_hook(self._replace_hook(self.text, layer, None))

    def _replace_hook(self, vectors: nn.Parameter, layer: int, positions: Tensor | None) -> Any:
        n, behind_start = self.count, vectors is self.text

        def replace(_: object, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            x, *rest = inputs
            new = vectors[layer] if positions is None else vectors[layer] + positions[1 : 1 + n]
            new = new.to(x.dtype).expand(len(x), -1, -1)
            parts = [x[:, :1], new, x[:, 1 + n :]] if behind_start else [x[:, :-n], new]
            return (torch.cat(parts, 1), *rest)

        return replace

    def open_up(self, tokens: Tensor) -> Tensor:
        """Insert placeholders for the context vectors after the start token: [m, L] becomes [m, L + n]."""
        placeholders = tokens.new_ones(len(tokens), self.count)
        return torch.cat([tokens[:, :1], placeholders, tokens[:, 1:]], 1)


class TemporalTransformer(nn.Module):
    """Pre-norm transformer layers over the frame embeddings of a clip, with learned positions and a residual.

    The temporal head of Text4Vis (AAAI 2023, six layers), for fully supervised training.
    """

    def __init__(self, frames: int, width: int, layers: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(frames, width))
        heads = width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else 1
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Map raw frame embeddings [V, T, D] to [V, T, D].

        Raises:
            UsageError: T is not the number of frames it was trained for.
        """
        if frames.shape[1] != len(self.positions):
            raise UsageError(
                f"these weights look at {len(self.positions)} frames a clip, not {frames.shape[1]}",
                f"use {{frames={len(self.positions)}}}",
            )
        x = frames + self.positions
        for block in self.blocks:
            x = block(x)
        return frames + x


def split_extras(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a state into the tensors of the towers and those that training added."""
    added = {name: tensor for name, tensor in state.items() if name.startswith(PREFIXES)}
    return {name: tensor for name, tensor in state.items() if name not in added}, added


def describe_extras(state: Mapping[str, Tensor]) -> str:
    """Describe in words what training added to the towers; empty if nothing."""
    parts: list[str] = []
    if (visual := state.get("prompts.visual")) is not None and visual.ndim == 3:
        parts.append(f"learned prompts, {visual.shape[1]} in {visual.shape[0]} layers")
    if (positions := state.get("temporal.positions")) is not None and positions.ndim == 2:
        layers = len({name.split(".")[2] for name in state if name.startswith("temporal.blocks.")})
        parts.append(f"a transformer over time, {layers} layers for {positions.shape[0]} frames")
    return ", ".join(parts)


def read_prompts(added: Mapping[str, Tensor], towers: Any, where: str) -> LearnedPrompts | None:
    """Build the learned prompts from added tensors; None if there are none.

    Args:
        added: see `split_extras`.
        towers: a CLIP of the sizes that they are for; its tensors may be without data.
        where: the file, for errors.
    """
    state = _with_prefix("prompts.", added)
    if not state:
        return None
    visual, text = state.get("visual"), state.get("text")
    if visual is None or text is None or visual.ndim != 3 or text.ndim != 3 or len(visual) != len(text):
        raise WeightsError(f"{where}: its learned prompts are not [layers, n, width] for both towers")
    if fault := _misfit(visual, towers.visual, "class_embedding") or _misfit(
        text, towers, "positional_embedding"
    ):
        raise WeightsError(f"{where}: its learned prompts {fault}")
    with torch.device("meta"):
        prompts = LearnedPrompts(len(visual), visual.shape[1], visual.shape[2], text.shape[2])
    return _fill_module(prompts, state, where)


def _misfit(vectors: Tensor, tower: Any, name: str) -> str:
    """Return why context vectors [layers, n, width] do not fit a tower; empty if they do."""
    layers, count, width = vectors.shape
    parameter = getattr(tower, name, None)
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    if parameter is None or blocks is None:
        return "are for a plain transformer, which this tower is not"
    if not layers or not count or layers > len(blocks) or count > MOST_PROMPTS:
        return f"are {count} in {layers} layers, for a tower of {len(blocks)}"
    if width != parameter.shape[-1]:
        return f"are {width} wide, for a tower of width {parameter.shape[-1]}"
    return ""


def read_temporal(added: Mapping[str, Tensor], width: int, where: str) -> TemporalTransformer | None:
    """Build the transformer over time from added tensors; None if there is none.

    Args:
        added: see `split_extras`.
        width: D, of the embeddings that it reads.
        where: the file, for errors.
    """
    state = _with_prefix("temporal.", added)
    if not state:
        return None
    positions = state.get("positions")
    if positions is None or positions.ndim != 2 or not len(positions) or positions.shape[1] != width:
        raise WeightsError(f"{where}: its transformer over time has no positions [frames, {width}]")
    layers = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    with torch.device("meta"):
        transformer = TemporalTransformer(len(positions), width, layers)
    return _fill_module(transformer, state, where)


def _with_prefix(prefix: str, added: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in added.items() if name.startswith(prefix)}


def _fill_module(module: Any, state: Mapping[str, Tensor], where: str) -> Any:
    """Fill a module on the meta device with a file's tensors, once names and shapes agree."""
    account(state, module.state_dict(), where)
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return module


def draw_prompts(weights: Weights, layers: int, count: int, seed: int) -> dict[str, Tensor]:
    """Draw new learned prompts for these towers from N(0, 0.02).

    Raises:
        UsageError: the towers are not plain transformers, or have fewer layers.
    """
    widths = [weights.state.get(n) for n in ("visual.class_embedding", "positional_embedding")]
    if None in widths or "visual.ln_pre.weight" not in weights.state:
        raise UsageError("learned prompts need a CLIP of two plain transformers, such as ViT-B-16/openai")
    visual, text = (int(t.shape[-1]) for t in widths if t is not None)
    for tower, prefix in (("image", "visual.transformer.resblocks."), ("text", "transformer.resblocks.")):
        blocks = {name[len(prefix) :].split(".")[0] for name in weights.state if name.startswith(prefix)}
        if layers > len(blocks):
            raise UsageError(f"prompts in {layers} layers do not fit the {len(blocks)} of the {tower} tower")
    generator = torch.Generator().manual_seed(seed)
    prompts = LearnedPrompts(layers, count, visual, text)
    return {
        f"prompts.{name}": PROMPT_STD * torch.randn(p.shape, generator=generator)
        for name, p in prompts.named_parameters()
    }


def draw_temporal(frames: int, width: int, layers: int, seed: int) -> dict[str, Tensor]:
    """Draw a new transformer over time; it changes little at first, so that training starts from CLIP."""
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Tensor] = {}
    for name, tensor in TemporalTransformer(frames, width, layers).state_dict().items():
        if "norm" in name:
            drawn[f"temporal.{name}"] = tensor
        elif name.endswith("bias"):
            drawn[f"temporal.{name}"] = torch.zeros_like(tensor)
        else:
            # As in GPT-2: projections into the residual stream are scaled down with the number of layers.
            std = 0.02 / (2 * layers) ** 0.5 if name.endswith(("out_proj.weight", "linear2.weight")) else 0.02
            drawn[f"temporal.{name}"] = std * torch.randn(tensor.shape, generator=generator)
    return drawn
