"""CLIP and its kin over open_clip: the two towers, each loaded when it is first needed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ost.backbones.base import TextEmbeddings
from ost.backbones.catalog import CLIP_TEMPLATES
from ost.backbones.text import fit_to_context
from ost.backbones.weights import Architecture, Weights, account
from ost.errors import UsageError, WeightsError
from ost.types import Preprocess

if TYPE_CHECKING:
    from torch import nn

FRAMES_AT_ONCE = 64
TEXTS_AT_ONCE = 64
HEAD_WIDTH = 64  # of every CLIP with two transformers


class ClipBackbone:
    """An open_clip model; see `Backbone`.

    Args:
        name: as the user asked for it.
        weights: in open_clip's layout.
        model: the sizes of a CLIP with two transformers, or the name of an open_clip model.
        quick_gelu: the activation, for a model given by its sizes.
        preprocess: the pixels these weights were trained on.
        device, dtype: where and in what the towers run; embeddings come out in fp32 on `device`.

    Raises:
        WeightsError: a tensor is missing, left over, or of another shape.
    """

    def __init__(
        self,
        name: str,
        weights: Weights,
        model: Architecture | str,
        *,
        quick_gelu: bool,
        preprocess: Preprocess,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.name = name
        self.weights_hash = weights.hash
        self.preprocess = preprocess
        self.templates = CLIP_TEMPLATES
        self.notices: list[str] = []
        self.device, self.dtype = device, dtype
        self.precision = str(dtype).removeprefix("torch.")
        self._state = weights.state
        self._name = model if isinstance(model, str) else None
        self._config = open_clip_config(model) if isinstance(model, str) else _config(model, quick_gelu)
        skeleton = self._skeleton()
        account(weights.state, skeleton.state_dict(), name)
        self.logit_scale = float(weights.state["logit_scale"].float().exp().reshape(()))
        self._visual_skeleton = skeleton.visual

    def embed_frames(self, pixels: Tensor) -> Tensor:
        """fp32 [n, 3, size, size] -> fp32 [n, D] on the backbone's device, not normalised."""
        parts: list[Tensor] = []
        with torch.inference_mode():
            for part in pixels.split(FRAMES_AT_ONCE):
                parts.append(self._visual(part.to(self.device, self.dtype, non_blocking=True)).float())
        return torch.cat(parts)

    def embed_text(self, texts: Sequence[str]) -> TextEmbeddings:
        """Unit embeddings [n, D], fp32, on the backbone's device; no text needs shift or gain."""
        tokenize, count = self._tokenizer
        limit = self.context_length
        tokens = tokenize(fit_to_context(texts, count, limit, self.notices.append), context_length=limit)
        parts: list[Tensor] = []
        with torch.inference_mode():
            for part in tokens.split(TEXTS_AT_ONCE):
                parts.append(self._text.encode_text(part.to(self.device)).float())
        return TextEmbeddings(normalize(torch.cat(parts), dim=-1))

    @property
    def context_length(self) -> int:
        """Tokens the text tower reads, start and end included."""
        return int(self._config["text_cfg"].get("context_length", 77))

    @cached_property
    def _visual(self) -> nn.Module:
        prefix = "visual."
        state = {k.removeprefix(prefix): v for k, v in self._state.items() if k.startswith(prefix)}
        return self._filled(self._visual_skeleton, state)

    @cached_property
    def _text(self) -> Any:
        model = self._skeleton()
        del model.visual
        state = {name: tensor for name, tensor in self._state.items() if not name.startswith("visual.")}
        if getattr(model, "attn_mask", None) is not None:  # built on meta, and not in the file
            length = self.context_length
            model.attn_mask = torch.full((length, length), -torch.inf).triu(1)
        return self._filled(model, state)

    def _filled(self, module: Any, state: Mapping[str, Tensor]) -> Any:
        module.load_state_dict({k: v.to(self.device, self.dtype) for k, v in state.items()}, assign=True)
        return module.to(self.device, self.dtype).eval().requires_grad_(False)

    def _skeleton(self) -> Any:
        """The model with the right tensors and no values in them."""
        from open_clip.model import CLIP, CustomTextCLIP

        config = copy.deepcopy(self._config)
        custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
        if "multimodal_cfg" in config:
            raise UsageError(f"backbone {self.name!r} generates captions; OST needs one that only embeds")
        if "timm_model_name" in config["vision_cfg"]:
            config["vision_cfg"]["timm_model_pretrained"] = False
        # On meta nothing is allocated or drawn at random. timm's towers keep tables that are not in the file
        # and would stay empty there, so those are built in earnest.
        two_transformers = not custom and "timm_model_name" not in config["vision_cfg"]
        with torch.device("meta" if two_transformers else "cpu"):
            return (CustomTextCLIP if custom else CLIP)(**config)

    @cached_property
    def _tokenizer(self) -> tuple[Callable[..., Tensor], Callable[[str], int]]:
        """texts -> tokens, and text -> number of tokens."""
        from open_clip import get_tokenizer
        from open_clip.tokenizer import SimpleTokenizer

        try:
            tokenizer: Any = get_tokenizer(self._name) if self._name else SimpleTokenizer()
        except OSError as error:
            reason = (str(error).splitlines() or ["no reason given"])[0][:120]
            raise WeightsError(
                f"{self.name}: its tokenizer cannot be fetched from the hub ({reason})"
            ) from error
        if isinstance(tokenizer, SimpleTokenizer):
            return tokenizer, lambda text: len(tokenizer.encode(text)) + 2
        return tokenizer, lambda text: len(tokenizer.tokenizer(text).input_ids)


def open_clip_config(name: str) -> dict[str, Any]:
    """open_clip's model configuration of that name.

    Raises:
        UsageError: open_clip has no such model.
    """
    from open_clip import get_model_config, list_models

    from ost.catalog import did_you_mean

    config = get_model_config(name)
    if config is None:
        raise UsageError(f"open_clip has no model {name!r}{did_you_mean(name, list_models())}")
    return config


def _config(sizes: Architecture, quick_gelu: bool) -> dict[str, Any]:
    return {
        "embed_dim": sizes.embed_dim,
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            "image_size": sizes.image_size,
            "layers": sizes.vision_layers,
            "width": sizes.vision_width,
            "patch_size": sizes.patch_size,
            "head_width": HEAD_WIDTH,
        },
        "text_cfg": {
            "context_length": sizes.context_length,
            "vocab_size": sizes.vocab_size,
            "width": sizes.text_width,
            "heads": sizes.text_width // HEAD_WIDTH,
            "layers": sizes.text_layers,
        },
    }
