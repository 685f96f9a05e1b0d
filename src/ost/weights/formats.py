"""Read the weight files of CLIP and its fine-tuned variants, account for every tensor, and save as safetensors.

In memory, every CLIP has the layout of open_clip (`visual.*`, `transformer.*`, ...), which is OpenAI's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from torch import Tensor

from ost.errors import WeightsError, first_line
from ost.files import atomic, file_hash
from ost.types import Preprocess
from ost.weights.archive import read_archive
from ost.weights.pixels import clip_preprocess, ost_preprocess

Origin = Literal["openai", "open_clip", "ost"]

HEAD_WIDTH = 64  # of every CLIP with two transformers whose architecture is read from shapes alone

# Buffers that were not learned: sizes that OpenAI wrote into its archives, the causal mask, the embedded prompts that
# ViFi-CLIP stores.
_BUFFERS = {"input_resolution", "context_length", "vocab_size", "attn_mask"}
_PROMPT_BUFFERS = {"token_prefix", "token_suffix", "complete_text_embeddings", "tokenized_prompts"}


@dataclass(frozen=True)
class Architecture:
    """The sizes of a CLIP with two transformers, read from the shapes of its tensors."""

    embed_dim: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    context_length: int
    vocab_size: int
    text_width: int
    text_layers: int

    def __str__(self) -> str:
        return (
            f"ViT/{self.patch_size} {self.vision_width}x{self.vision_layers} at {self.image_size} px, "
            f"text {self.text_width}x{self.text_layers} with {self.context_length} tokens, "
            f"embedding {self.embed_dim}"
        )


@dataclass(frozen=True)
class Weights:
    """A state dict in open_clip's layout, with its metadata.

    Attributes:
        state: name -> tensor.
        origin: the project whose layout the file has.
        hash: SHA-256 of the file, hexadecimal; of both files and the ratio for a blend.
        preprocess: the pixels these weights were trained on; None where the file does not state it.
        quick_gelu: whether they use QuickGELU; None where the file does not state it.
        model: open_clip's name of the architecture; None where it is read from the shapes alone.
        left_out: names of buffers that were left out, as they were not learned.
        training: a checkpoint's record of its training (epoch, accuracy, settings).
    """

    state: Mapping[str, Tensor]
    origin: Origin
    hash: str
    preprocess: Preprocess | None
    quick_gelu: bool | None
    model: str | None = None
    left_out: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        count = sum(tensor.numel() for tensor in self.state.values())
        return (
            f"Weights({self.origin}, {len(self.state)} tensors, {count / 1e6:.1f}M numbers, {self.hash[:12]})"
        )


def read_weights(path: str | Path) -> Weights:
    """Read an OpenAI, open_clip, OST, ViFi-CLIP or MAXI file, or a safetensors file.

    Raises:
        WeightsError: the file is missing, damaged, refused, or holds no CLIP.
    """
    file = Path(path)
    try:
        if not file.is_file():
            fault = "is a folder, not a weight file" if file.is_dir() else "there is no such weight file"
            raise WeightsError(f"{file}: {fault}")
        digest = file_hash(file)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror})") from error
    if _is_safetensors(file):
        state, metadata = _read_safetensors(file)
        return _from_metadata(state, metadata, digest, str(file))
    content = read_archive(file)
    if not isinstance(content, dict):
        raise WeightsError(f"{file}: holds a {type(content).__name__}, not weights")
    entries = cast(dict[str, Any], content)
    nested = next((key for key in ("model", "state_dict") if isinstance(entries.get(key), dict)), None)
    keys = ("epoch", "max_accuracy", "config") if nested else ()
    training = {name: _plain(entries[name]) for name in keys if name in entries}
    state = cast(dict[str, Any], entries[nested]) if nested else entries
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{file}: holds no tensors; is it a weight file?")
    return _to_open_clip(tensors, digest, training, str(file))


def _plain(value: object) -> object:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def _is_safetensors(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: is a damaged safetensors file ({first_line(error)})") from error


def _to_open_clip(
    tensors: dict[str, Tensor], digest: str, training: Mapping[str, Any], where: str
) -> Weights:
    """Detect the layout by its tensor names and convert it to open_clip's."""
    names: dict[str, str] = {}
    for name in tensors:
        bare = name.removeprefix("module.")
        if bare in names:
            raise WeightsError(f"{where}: holds both {names[bare]} and {name}, of which one is meant")
        names[bare] = name
    if any(name.startswith("image_encoder.") for name in names):
        origin: Origin = "ost"
    else:
        origin = "openai" if "input_resolution" in names else "open_clip"
    state: dict[str, Tensor] = {}
    left_out: list[str] = []
    for name, original in names.items():
        if _is_buffer(name):
            left_out.append(name)
            continue
        renamed = name
        if origin == "ost":
            renamed = name.replace("image_encoder.", "visual.", 1).replace("text_encoder.", "", 1)
        if renamed in state:
            raise WeightsError(f"{where}: holds {renamed} twice")
        state[renamed] = tensors[original]
    weights = Weights(state, origin, digest, None, None, None, tuple(left_out), training)
    if origin == "open_clip":
        return weights
    if origin == "ost":
        preprocess = ost_preprocess(architecture(weights, where).image_size)
    else:
        preprocess = clip_preprocess(_resolution(tensors[names["input_resolution"]], where))
    return replace(weights, preprocess=preprocess, quick_gelu=True)


def _resolution(resolution: Tensor, where: str) -> int:
    if resolution.numel() != 1 or not 1 <= (size := int(resolution.item())) <= 4096:
        raise WeightsError(f"{where}: its input_resolution is not a number of pixels")
    return size


def _is_buffer(name: str) -> bool:
    parts = name.split(".")
    return parts[-1] in _BUFFERS or ("prompt_learner" in parts and parts[-1] in _PROMPT_BUFFERS)


def architecture(weights: Weights, where: str = "the weights") -> Architecture:
    """Return the sizes read from the shapes of the tensors.

    Raises:
        WeightsError: they are not those of a CLIP with two transformers.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.state.items()}
    try:
        width, _, patch, _ = shapes["visual.conv1.weight"]
        side = math.isqrt(shapes["visual.positional_embedding"][0] - 1)
        sizes = Architecture(
            embed_dim=shapes["text_projection"][1],
            image_size=patch * side,
            patch_size=patch,
            vision_width=width,
            vision_layers=_layers(shapes, "visual.transformer.resblocks."),
            context_length=shapes["positional_embedding"][0],
            vocab_size=shapes["token_embedding.weight"][0],
            text_width=shapes["ln_final.weight"][0],
            text_layers=_layers(shapes, "transformer.resblocks."),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(
            f"{where}: its tensors are not those of a CLIP with two transformers (looking for {error})",
            "name another architecture with {backbone}",
        ) from error
    if sizes.vision_width % HEAD_WIDTH or sizes.text_width % HEAD_WIDTH:
        raise WeightsError(
            f"{where}: {sizes} does not divide into attention heads of {HEAD_WIDTH}",
            "name its architecture with {backbone}",
        )
    return sizes


def _layers(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    numbers = {name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)}
    return len(numbers)


def account(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Check that every tensor is present, none is left over, and every shape fits.

    Raises:
        WeightsError: lists what is missing, what is left over and what has another shape.
    """
    faults: list[str] = []
    if missing := sorted(set(expected) - set(state)):
        faults.append(f"missing {_shortened(missing)}")
    if extra := sorted(set(state) - set(expected)):
        faults.append(f"left over {_shortened(extra)}")
    both = set(state) & set(expected)
    if wrong := sorted(name for name in both if state[name].shape != expected[name].shape):
        name = wrong[0]
        shapes = f"{name} is {list(state[name].shape)}, not {list(expected[name].shape)}"
        faults.append(f"another shape for {_shortened(wrong)} ({shapes})")
    if faults:
        raise WeightsError(f"{where}: does not fit the architecture: {'; '.join(faults)}")


def _shortened(names: list[str], most: int = 6) -> str:
    return f"{len(names)}: {', '.join(names[:most])}" + (", ..." if len(names) > most else "")


def save_weights(weights: Weights, path: str | Path) -> None:
    """Write weights as safetensors, atomically, with origin, pixels and activation in the metadata."""
    from safetensors.torch import save_file

    metadata = {
        "origin": weights.origin,
        "quick_gelu": weights.quick_gelu,
        "model": weights.model,
        "preprocess": asdict(weights.preprocess) if weights.preprocess else None,
    }
    with atomic(path) as temporary:
        tensors = {name: tensor.contiguous().clone() for name, tensor in weights.state.items()}
        save_file(tensors, temporary, metadata={"ost": json.dumps(metadata)})


def _from_metadata(state: dict[str, Tensor], metadata: Mapping[str, str], digest: str, where: str) -> Weights:
    if "ost" not in metadata:
        return _to_open_clip(state, digest, {}, where)
    try:
        saved = json.loads(metadata["ost"])
        pixels, quick_gelu = saved["preprocess"], saved["quick_gelu"]
        preprocess = _preprocess(**pixels) if pixels else None
        model = saved.get("model")
        if saved["origin"] not in get_args(Origin) or quick_gelu not in (True, False, None):
            raise ValueError("origin or activation")
        return Weights(state, saved["origin"], digest, preprocess, quick_gelu, model and str(model))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{where}: its metadata cannot be read ({error}); convert it again") from error


def _preprocess(
    size: int, resize: int | None, interpolation: str, antialias: bool, mean: list[float], std: list[float]
) -> Preprocess:
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolation {interpolation}")
    (a, b, c), (d, e, f) = map(float, mean), map(float, std)
    short = None if resize is None else int(resize)
    return Preprocess(int(size), short, interpolation, bool(antialias), (a, b, c), (d, e, f))
