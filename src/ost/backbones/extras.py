"""What training can add to a CLIP: learned prompts in both towers, and a transformer over time.

Their tensors travel in the weight file beside the towers, as `prompts.*` and `temporal.*`, and their sizes
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
        text: [layers, n, width of the text tower], behind the start token.
    """

    def __init__(self, layers: int, count: int, visual_width: int, text_width: int) -> None:
        super().__init__()
        self.visual = nn.Parameter(torch.empty(layers, count, visual_width))
        self.text = nn.Parameter(torch.empty(layers, count, text_width))

    @property
    def count(self) -> int:
        """Context vectors a layer."""
        return self.visual.shape[1]

    def attach_visual(self, tower: Any) -> None:
        """Make an image tower read them: appended before its first layer, exchanged before the next ones."""

        def append(_: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (x,) = inputs
            return (torch.cat([x, self.visual[0].to(x.dtype).expand(len(x), -1, -1)], 1),)

        tower.ln_pre.register_forward_pre_hook(append)
        for layer, block in enumerate(tower.transformer.resblocks[1 : len(self.visual)], 1):
            block.register_forward_pre_hook(self._exchange(self.visual, layer, None))

    def attach_text(self, tower: Any) -> None:
        """Make a text tower read them in place of the tokens that `open_up` put behind the start."""
        blocks = tower.transformer.resblocks
        blocks[0].register_forward_pre_hook(self._exchange(self.text, 0, tower.positional_embedding))
        for layer, block in enumerate(blocks[1 : len(self.text)], 1):
            block.register_forward_pre_hook(self._exchange(self.text, layer, None))

    def _exchange(self, vectors: nn.Parameter, layer: int, positions: Tensor | None) -> Any:
        n, behind_start = self.count, vectors is self.text

        def exchange(_: object, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            x, *rest = inputs
            new = vectors[layer] if positions is None else vectors[layer] + positions[1 : 1 + n]
            new = new.to(x.dtype).expand(len(x), -1, -1)
            parts = [x[:, :1], new, x[:, 1 + n :]] if behind_start else [x[:, :-n], new]
            return (torch.cat(parts, 1), *rest)

        return exchange

    def open_up(self, tokens: Tensor) -> Tensor:
        """Tokens [m, L] with room for the context vectors behind the start, [m, L + n]."""
        room = tokens.new_ones(len(tokens), self.count)
        return torch.cat([tokens[:, :1], room, tokens[:, 1:]], 1)


class TemporalTransformer(nn.Module):
    """Six pre-norm layers over the frame embeddings of a clip, with learned frame positions, residual.

    The temporal head of Text4Vis (AAAI 2023), for fully supervised training.
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
        """Raw frame embeddings [V, T, D] -> [V, T, D].

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
    """(tensors of the towers, tensors of what was added)."""
    added = {name: tensor for name, tensor in state.items() if name.startswith(PREFIXES)}
    return {name: tensor for name, tensor in state.items() if name not in added}, added


def describe_extras(state: Mapping[str, Tensor]) -> str:
    """What training added to the towers, in words; empty if nothing."""
    found: list[str] = []
    if (visual := state.get("prompts.visual")) is not None and visual.ndim == 3:
        found.append(f"learned prompts, {visual.shape[1]} in {visual.shape[0]} layers")
    if (positions := state.get("temporal.positions")) is not None and positions.ndim == 2:
        layers = len({name.split(".")[2] for name in state if name.startswith("temporal.blocks.")})
        found.append(f"a transformer over time, {layers} layers for {positions.shape[0]} frames")
    return ", ".join(found)


def read_prompts(added: Mapping[str, Tensor], towers: Any, where: str) -> LearnedPrompts | None:
    """The learned prompts among added tensors; None if there are none.

    Args:
        added: see `split_extras`.
        towers: a CLIP of the sizes that they are for; its tensors may be without data.
        where: the file, for errors.
    """
    state = _under("prompts.", added)
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
    return _filled(prompts, state, where)


def _misfit(vectors: Tensor, tower: Any, widest: str) -> str:
    """Why context vectors [layers, n, width] do not fit a tower; empty if they do."""
    layers, count, width = vectors.shape
    plain = getattr(tower, widest, None)
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    if plain is None or blocks is None:
        return "are for a plain transformer, which this tower is not"
    if not layers or not count or layers > len(blocks) or count > MOST_PROMPTS:
        return f"are {count} in {layers} layers, for a tower of {len(blocks)}"
    if width != plain.shape[-1]:
        return f"are {width} wide, for a tower of width {plain.shape[-1]}"
    return ""


def read_temporal(added: Mapping[str, Tensor], width: int, where: str) -> TemporalTransformer | None:
    """The transformer over time among added tensors; None if there is none.

    Args:
        added: see `split_extras`.
        width: D, of the embeddings that it reads.
        where: the file, for errors.
    """
    state = _under("temporal.", added)
    if not state:
        return None
    positions = state.get("positions")
    if positions is None or positions.ndim != 2 or not len(positions) or positions.shape[1] != width:
        raise WeightsError(f"{where}: its transformer over time has no positions [frames, {width}]")
    layers = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    with torch.device("meta"):
        transformer = TemporalTransformer(len(positions), width, layers)
    return _filled(transformer, state, where)


def _under(prefix: str, added: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in added.items() if name.startswith(prefix)}


def _filled(module: Any, state: Mapping[str, Tensor], where: str) -> Any:
    """A module without data, given that of a file once names and shapes agree."""
    account(state, module.state_dict(), where)
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return module


def draw_prompts(weights: Weights, layers: int, count: int, seed: int) -> dict[str, Tensor]:
    """Fresh learned prompts for these towers, N(0, 0.02).

    Raises:
        UsageError: the towers are not plain transformers, or have fewer layers.
    """
    widths = [weights.state.get(n) for n in ("visual.class_embedding", "positional_embedding")]
    if None in widths or "visual.ln_pre.weight" not in weights.state:
        raise UsageError("learned prompts need a CLIP of two plain transformers, such as ViT-B-16/openai")
    visual, text = (int(t.shape[-1]) for t in widths if t is not None)
    for tower, prefix in (("image", "visual.transformer.resblocks."), ("text", "transformer.resblocks.")):
        there = {name[len(prefix) :].split(".")[0] for name in weights.state if name.startswith(prefix)}
        if layers > len(there):
            raise UsageError(f"prompts in {layers} layers do not fit the {len(there)} of the {tower} tower")
    generator = torch.Generator().manual_seed(seed)
    prompts = LearnedPrompts(layers, count, visual, text)
    return {
        f"prompts.{name}": PROMPT_STD * torch.randn(p.shape, generator=generator)
        for name, p in prompts.named_parameters()
    }


def draw_temporal(frames: int, width: int, layers: int, seed: int) -> dict[str, Tensor]:
    """A fresh transformer over time; at first it changes little, so that training starts from CLIP."""
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Tensor] = {}
    for name, tensor in TemporalTransformer(frames, width, layers).state_dict().items():
        if "norm" in name:
            drawn[f"temporal.{name}"] = tensor
        elif name.endswith("bias"):
            drawn[f"temporal.{name}"] = torch.zeros_like(tensor)
        else:
            # GPT-2's rule: what ends in the residual stream is the smaller the more layers add to it.
            std = 0.02 / (2 * layers) ** 0.5 if name.endswith(("out_proj.weight", "linear2.weight")) else 0.02
            drawn[f"temporal.{name}"] = std * torch.randn(tensor.shape, generator=generator)
    return drawn
