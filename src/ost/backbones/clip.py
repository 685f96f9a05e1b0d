"""CLIP and its kin over open_clip: the two towers, each loaded when it is first needed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import normalize
from torch.overrides import TorchFunctionMode

from ost.backbones.base import TextEmbeddings
from ost.backbones.catalog import CLIP_TEMPLATES
from ost.backbones.text import fit_to_context
from ost.backbones.weights import HEAD_WIDTH, Architecture, Weights, account
from ost.errors import UsageError, WeightsError, first_line
from ost.types import Preprocess

if TYPE_CHECKING:
    from torch import nn

# On a CPU larger batches are slower: their activations outgrow what the allocator keeps between layers.
FRAMES_AT_ONCE = {"cpu": 4}
TEXTS_AT_ONCE = {"cpu": 16}
ON_A_GPU = 128


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
        self._name = model if isinstance(model, str) else None
        self._config = open_clip_config(model) if isinstance(model, str) else _config(model, quick_gelu)
        skeleton = self._skeleton()
        expected = skeleton.state_dict()
        self._state = _adapted(weights.state, expected)
        account(self._state, expected, name)
        self.logit_scale = float(self._state["logit_scale"].float().exp().reshape(()))
        self._visual_skeleton = skeleton.visual

    def embed_frames(self, pixels: Tensor) -> Tensor:
        """fp32 [n, 3, size, size] -> fp32 [n, D] on the backbone's device, not normalised."""
        parts: list[Tensor] = []
        with torch.inference_mode():
            for part in pixels.split(FRAMES_AT_ONCE.get(self.device.type, ON_A_GPU)):
                parts.append(self._visual(part.to(self.device, self.dtype, non_blocking=True)).float())
        return torch.cat(parts)

    def embed_text(self, texts: Sequence[str]) -> TextEmbeddings:
        """Unit embeddings [n, D], fp32, on the backbone's device; no text needs shift or gain."""
        tokenize, count = self._tokenizer
        limit = self.context_length
        tokens = tokenize(fit_to_context(texts, count, limit, self.notices.append), context_length=limit)
        parts: list[Tensor] = []
        with torch.inference_mode():
            for part in tokens.split(TEXTS_AT_ONCE.get(self.device.type, ON_A_GPU)):
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
        return self._filled(model, state)

    def _filled(self, module: Any, state: Mapping[str, Tensor]) -> Any:
        moved = {
            name: tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in state.items()
        }
        module.load_state_dict(moved, assign=True)
        return module.to(self.device, self.dtype).eval().requires_grad_(False)

    def _skeleton(self) -> Any:
        """The model with the right tensors and no values in them."""
        from open_clip.model import CLIP, CustomTextCLIP

        config = copy.deepcopy(self._config)
        custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
        if "multimodal_cfg" in config:
            raise UsageError(f"backbone {self.name!r} generates captions; OST needs one that only embeds")
        for tower, setting in (("vision_cfg", "timm_model"), ("text_cfg", "hf_model")):
            if f"{setting}_name" in config[tower]:
                config[tower][f"{setting}_pretrained"] = False
        try:
            with _Undrawn():
                return (CustomTextCLIP if custom else CLIP)(**config)
        except (OSError, ImportError, RuntimeError) as error:
            raise WeightsError(f"{self.name}: its towers cannot be built ({first_line(error)})") from error

    @cached_property
    def _tokenizer(self) -> tuple[Callable[..., Tensor], Callable[[str], int]]:
        """texts -> tokens, and text -> number of tokens."""
        return open_clip_tokenizer(self._name, self.name, self._config["text_cfg"].get("vocab_size"))


class _Undrawn(TorchFunctionMode):
    """Leaves parameters as they were allocated: filling them takes most of the time that building does."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        first = args[0] if args else given.get("tensor")
        name = getattr(func, "__name__", "")
        if isinstance(first, Parameter) and name.endswith("_") and not name.endswith(("__", "grad_")):
            return first
        return func(*args, **given)


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


def open_clip_tokenizer(
    model: str | None, title: str, vocabulary: int | None
) -> tuple[Callable[..., Tensor], Callable[[str], int]]:
    """texts -> tokens, and text -> number of tokens, start and end included.

    Args:
        model: open_clip's name; None is CLIP's own tokenizer.
        title: what errors call the backbone.
        vocabulary: tokens its text tower knows, if its configuration says.

    Raises:
        UsageError: the tokenizer needs a package that is missing.
        WeightsError: it cannot be fetched, or has tokens that the text tower does not know.
    """
    from open_clip import get_tokenizer
    from open_clip.tokenizer import SimpleTokenizer

    try:
        tokenizer: Any = get_tokenizer(model) if model else SimpleTokenizer()
    except ImportError as error:
        raise UsageError(f"{title}: its tokenizer needs the package transformers; install it") from error
    except OSError as error:
        raise WeightsError(
            f"{title}: its tokenizer cannot be fetched from the hub ({first_line(error)})"
        ) from error
    if isinstance(tokenizer, SimpleTokenizer):
        if vocabulary is not None and vocabulary < tokenizer.vocab_size:
            raise WeightsError(
                f"{title}: its text tower knows {vocabulary} tokens, its tokenizer {tokenizer.vocab_size}"
            )
        return tokenizer, lambda text: len(tokenizer.encode(text)) + 2
    return tokenizer, lambda text: len(tokenizer.tokenizer(text).input_ids)


_VISION_SIZES = {"image_size", "layers", "width", "patch_size", "head_width"}
_TEXT_SIZES = {"context_length", "vocab_size", "width", "heads", "layers"}


def told_by_shapes(config: Mapping[str, Any]) -> bool:
    """Whether a configuration says nothing beyond what `Architecture` reads from the tensors."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    return (
        set(config) <= {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
        and set(vision) <= _VISION_SIZES
        and set(text) <= _TEXT_SIZES
        and isinstance(vision["layers"], int)  # a list of them is a ResNet
        and vision.get("head_width", HEAD_WIDTH) == HEAD_WIDTH
        and text["width"] == text["heads"] * HEAD_WIDTH
    )


def _adapted(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors of older files under today's names, as open_clip itself reads them."""
    from open_clip.model import convert_to_custom_text_state_dict

    adapted = dict(state)
    if "positional_embedding" in state and "text.positional_embedding" in expected:
        adapted = convert_to_custom_text_state_dict(adapted)
    for name in ("logit_scale", "logit_bias"):  # a number in some files, one of one in others
        if name in adapted and name in expected and adapted[name].numel() == 1:
            adapted[name] = adapted[name].reshape(expected[name].shape)
    return adapted


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
