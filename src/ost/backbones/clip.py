"""CLIP and related models from open_clip: two towers, each loaded on first use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import normalize
from torch.overrides import TorchFunctionMode

from ost.activity import activity
from ost.backbones.base import TextEmbeddings, frame_embeddings, prepared
from ost.backbones.extras import read_prompts, read_temporal, split_extras
from ost.backbones.spec import CLIP_TEMPLATES
from ost.backbones.text import batches, fit_to_context
from ost.device import resolve_device, resolve_dtype
from ost.errors import UsageError, WeightsError, first_line
from ost.once import once
from ost.types import FrameEmbeddings, Preprocess, TextContext
from ost.weights.fingerprint import fingerprint
from ost.weights.formats import HEAD_WIDTH, Architecture, Weights, account

if TYPE_CHECKING:
    from torch import nn

    from ost.backbones.resolve import ResolvedModel
    from ost.backbones.spec import Build

# On a CPU larger batches are slower: their activations exceed the memory that the allocator keeps between layers.
FRAMES_AT_ONCE = {"cpu": 4}
TOKENS_AT_ONCE = {"cpu": 1024}
ON_A_GPU = 128
TOKENS_ON_A_GPU = 128 * 77


class ClipBackbone:
    """An open_clip model; see `Backbone`.

    Args:
        name: as the user gave it.
        weights: in open_clip's layout.
        model: the sizes of a CLIP with two transformers, or the name of an open_clip model.
        quick_gelu: the activation, for a model given by its sizes.
        preprocess: the pixels these weights were trained on.
        device, dtype: of the towers; embeddings are returned in fp32 on `device`.

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
        self.device, self.dtype = device, dtype
        self.precision = str(dtype).removeprefix("torch.")
        self.adapter = None
        self._model, self._quick_gelu = model, quick_gelu
        self._name = model if isinstance(model, str) else None
        self._config = open_clip_config(model) if isinstance(model, str) else _config(model, quick_gelu)
        skeleton = self._skeleton()
        expected = skeleton.state_dict()
        towers, added = split_extras(weights.state)
        self._state = _rename_old_tensors(towers, expected)
        account(self._state, expected, name)
        self.logit_scale = float(self._state["logit_scale"].float().exp().reshape(()))
        self._visual_skeleton = skeleton.visual
        self.prompts = self._to_device(read_prompts(added, skeleton, name), dtype)
        # It reads embeddings, which are fp32 whatever the dtype of the towers.
        self.temporal = self._to_device(read_temporal(added, self.width, name), torch.float32)
        self.fingerprint = fingerprint(
            weights=weights.hash,
            architecture=self._config,
            tokenizer=f"open_clip {version('open_clip_torch')} {self._name}",
            precision=self.precision,
            preprocess=preprocess,
            added=added,
        )

    def to(self, device: str) -> ClipBackbone:
        """Return a backbone with a copy of the weights on another device, in the same dtype."""
        weights = self.weights()
        copied = {name: tensor.detach().clone() for name, tensor in weights.state.items()}
        return ClipBackbone(
            self.name,
            replace(weights, state=copied),
            self._model,
            quick_gelu=self._quick_gelu,
            preprocess=self.preprocess,
            device=resolve_device(device),
            dtype=self.dtype,
        )

    def trainable(self) -> ClipBackbone:
        """Return the backbone itself: its towers can be trained."""
        return self

    def embed_frames(self, pixels: Tensor) -> Tensor:
        """Embed pixels [n, 3, size, size] as fp32 [n, D] on the backbone's device, not normalised."""
        with torch.no_grad():
            parts = pixels.split(FRAMES_AT_ONCE.get(self.device.type, ON_A_GPU))
            return torch.cat([self.visual(self.moved(part)).float() for part in parts])

    def embed_clips(self, pixels: Tensor) -> FrameEmbeddings:
        """Embed pixels [V, T, 3, size, size] as [V, T, D], with the transformer over time where there is one."""
        if self.device.type == "cpu":  # clip by clip, so that batching does not change the bits of a clip
            raw = torch.stack([self.embed_frames(clip) for clip in pixels])
        else:
            raw = self.embed_frames(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        with torch.no_grad():
            raw = self.over_time(raw)
            return frame_embeddings(raw)

    def embed_text(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts as fp32 unit vectors [n, D] on the backbone's device, without shift or gain."""
        with torch.no_grad():
            notices: list[str] = []
            tokens = self.tokens(texts, notices.append)
            values = torch.empty(len(tokens), self.width, device=self.device)
            budget = TOKENS_AT_ONCE.get(self.device.type, TOKENS_ON_A_GPU)
            for rows in batches(_lengths(self.text, tokens).tolist(), budget):
                values[rows] = self.encode_tokens(tokens[rows])
            return TextEmbeddings(normalize(values, dim=-1), notices=tuple(notices))

    def moved(self, pixels: Tensor) -> Tensor:
        """Return normalised pixels on the device and in the dtype of the image tower."""
        # uint8 pixels are a quarter of the size of fp32, so they are normalised after the copy to the device.
        return prepared(pixels.to(self.device, non_blocking=True), self.preprocess).to(self.dtype)

    def over_time(self, raw: Tensor) -> Tensor:
        """Apply the transformer over time to raw embeddings [V, T, D], where the weights have one."""
        return raw if self.temporal is None else self.temporal(raw).float()

    def tokens(self, texts: Sequence[str], notify: Callable[[str], None]) -> Tensor:
        """Tokenize texts as [n, L], each cut at a word where it exceeds the context; notices go to `notify`."""
        context = self.text_context
        tokenize, _ = self._tokenizer
        return tokenize(fit_to_context(texts, context, notify), context_length=context.limit)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Embed tokens [m, L] as raw fp32 [m, D], with gradients for parameters that require them."""
        if self.prompts is not None:
            tokens = self.prompts.open_up(tokens)
        return _encode_text(self.text, tokens.to(self.device)).float()

    def weights(self) -> Weights:
        """Return the current weights, also after training; tensors are shared with the towers."""
        state = dict(self._state)
        for tower, prefix in (("visual", "visual."), ("text", "")):
            if tower in vars(self):  # a tower that was never built is unchanged in self._state
                state |= {prefix + name: tensor for name, tensor in vars(self)[tower].state_dict().items()}
        for module, prefix in ((self.prompts, "prompts."), (self.temporal, "temporal.")):
            if module is not None:
                state |= {prefix + name: tensor for name, tensor in module.state_dict().items()}
        quick_gelu = bool(self._config.get("quick_gelu", False))
        return Weights(state, "open_clip", self.weights_hash, self.preprocess, quick_gelu, self._name)

    @property
    def width(self) -> int:
        """Return D, the width of an embedding."""
        return int(self._config["embed_dim"])

    @property
    def text_context(self) -> TextContext:
        """Return the tokens that the text tower reads besides learned prompts, and CLIP's prompt templates."""
        learned = 0 if self.prompts is None else self.prompts.count
        limit = int(self._config["text_cfg"].get("context_length", 77)) - learned
        return TextContext(limit, lambda text: self._tokenizer[1](text), CLIP_TEMPLATES)

    @once
    def visual(self) -> nn.Module:
        """Build the image tower."""
        prefix = "visual."
        state = {k.removeprefix(prefix): v for k, v in self._state.items() if k.startswith(prefix)}
        tower = self._fill_tower(self._visual_skeleton, state)
        if self.prompts is not None:
            self.prompts.attach_visual(tower)
        return tower

    @once
    def text(self) -> Any:
        """Build the text tower, with the logit scale."""
        model = self._skeleton()
        del model.visual
        state = {name: tensor for name, tensor in self._state.items() if not name.startswith("visual.")}
        tower = self._fill_tower(model, state)
        if self.prompts is not None:
            self.prompts.attach_text(tower)
        return tower

    def _to_device(self, module: Any, dtype: torch.dtype) -> Any:
        return module and module.to(self.device, dtype).eval().requires_grad_(False)

    def _fill_tower(self, module: Any, state: Mapping[str, Tensor]) -> Any:
        moved = {
            name: tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in state.items()
        }
        module.load_state_dict(moved, assign=True)
        return module.to(self.device, self.dtype).eval().requires_grad_(False)

    def _skeleton(self) -> Any:
        """Build the model with uninitialised tensors of the right shapes."""
        from open_clip.model import CLIP, CustomTextCLIP

        config = copy.deepcopy(self._config)
        custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
        if "multimodal_cfg" in config:
            raise UsageError(f"backbone {self.name!r} generates captions; OST needs one that only embeds")
        for tower, setting in (("vision_cfg", "timm_model"), ("text_cfg", "hf_model")):
            if f"{setting}_name" in config[tower]:
                config[tower][f"{setting}_pretrained"] = False
        try:
            with _SkipInit():
                return (CustomTextCLIP if custom else CLIP)(**config)
        except (OSError, ImportError, RuntimeError) as error:
            raise WeightsError(f"{self.name}: its towers cannot be built ({first_line(error)})") from error

    @once
    def _tokenizer(self) -> tuple[Callable[..., Tensor], Callable[[str], int]]:
        """Return functions from texts to tokens, and from a text to its number of tokens."""
        return open_clip_tokenizer(self._name, self.name, self._config["text_cfg"].get("vocab_size"))


def build_clip(resolved: ResolvedModel, build: Build) -> ClipBackbone:
    """Build the towers of a resolved model on the device and in the dtype of `build`."""
    device = resolve_device(build.device)
    with activity("preparing the towers"):  # imports open_clip, which takes seconds
        return ClipBackbone(
            resolved.name,
            build.grow(resolved.weights),
            resolved.model,
            quick_gelu=resolved.quick_gelu,
            preprocess=resolved.preprocess,
            device=device,
            dtype=resolve_dtype(build.dtype, device),
        )


def _encode_text(model: Any, tokens: Tensor) -> Tensor:
    """Return raw text embeddings; where attention is causal, skip the padding, which no token attends to."""
    from open_clip.transformer import text_global_pool

    if not _ignores_padding(model) or not len(tokens):
        return model.encode_text(tokens)
    length = int(_lengths(model, tokens).max())
    tokens, mask = tokens[:, :length], model.attn_mask
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=mask[:length, :length]))
    pooled = text_global_pool(x, tokens, "argmax")
    projection = model.text_projection
    return projection(pooled) if isinstance(projection, torch.nn.Module) else pooled @ projection


def _ignores_padding(model: Any) -> bool:
    """Return whether a text tower ignores tokens after the end token: causal attention, pooled at the end token."""
    causal = getattr(model, "attn_mask", None) is not None
    return causal and getattr(model, "text_pool_type", "") == "argmax"


def _lengths(model: Any, tokens: Tensor) -> Tensor:
    """Return the number of tokens that a text tower reads of each text [n, L], as [n]."""
    # The end token has the highest number.
    return tokens.argmax(-1) + 1 if _ignores_padding(model) else torch.full((len(tokens),), tokens.shape[-1])


class _SkipInit(TorchFunctionMode):
    """Skip the initialisation of parameters, which takes most of the time of building a model."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        arguments = kwargs or {}
        first = args[0] if args else arguments.get("tensor")
        name = getattr(func, "__name__", "")
        if isinstance(first, Parameter) and name.endswith("_") and not name.endswith(("__", "grad_")):
            return first
        return func(*args, **arguments)


def open_clip_config(name: str) -> dict[str, Any]:
    """Return open_clip's model configuration of a name.

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
    """Return functions from texts to tokens, and from a text to its number of tokens, start and end included.

    Args:
        model: open_clip's name; None is CLIP's own tokenizer.
        title: the name of the backbone in errors.
        vocabulary: size of the text tower's vocabulary, if its configuration states it.

    Raises:
        UsageError: the tokenizer needs a package that is missing.
        WeightsError: it cannot be downloaded, or has tokens that the text tower does not know.
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


def is_determined_by_shapes(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration holds only what `Architecture` reads from the tensors' shapes."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    return (
        set(config) <= {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
        and set(vision) <= _VISION_SIZES
        and set(text) <= _TEXT_SIZES
        and isinstance(vision["layers"], int)  # a list of them is a ResNet
        and vision.get("head_width", HEAD_WIDTH) == HEAD_WIDTH
        and text["width"] == text["heads"] * HEAD_WIDTH
    )


def _rename_old_tensors(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors of older files under current names, as open_clip itself converts them."""
    from open_clip.model import convert_to_custom_text_state_dict

    adapted = dict(state)
    if "positional_embedding" in state and "text.positional_embedding" in expected:
        adapted = convert_to_custom_text_state_dict(adapted)
    for name in ("logit_scale", "logit_bias"):  # 0-dimensional in some files, shape [1] in others
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
