"""Read torch archives without running them: return tensors and plain values, or refuse what would run code.

A `.pth` is a pickle, and a pickle is a program. Here it may only use a closed list of names: those that rebuild
tensors, plain containers, numbers, and a yacs `CfgNode`, which becomes a dict. Zip archives (torch >= 1.6 and
TorchScript) are mapped, so a checkpoint's optimiser state is never read from disk; the older format, a series
of pickles followed by the storages, is read whole.
"""

from __future__ import annotations

import pickle
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from ost.errors import WeightsError, first_line

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
_NUMPY_NUMBERS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


class _Settings(dict[str, Any]):
    """Placeholder for a yacs CfgNode, argparse.Namespace and the like: keeps the entries, not the code."""

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.update(
                    (k, v) for k, v in cast(dict[str, Any], part).items() if not str(k).startswith("__")
                )


class _Module:
    """Placeholder for a TorchScript module: keeps its attributes."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(cast(dict[str, Any], state))


class _Ignored:
    """Placeholder for values that are not needed: devices, arrays in training statistics, numpy dtypes."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        pass


def _number(kind: _Ignored, data: bytes = b"", *_: object) -> object:
    """Return a numpy scalar as a Python number; None for other types."""
    return np.frombuffer(data, str(kind.code))[0].item() if kind.code in _NUMPY_NUMBERS else None


def _latin1(text: str, *_: object) -> bytes:
    return str.encode(text, "latin-1")


def _first(value: Any, *_: object) -> Any:
    return value


def _empty(*_: object) -> dict[str, Any]:
    return {}


_PLAIN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): _empty,
    ("builtins", "set"): set,
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("torch", "Size"): tuple,
    ("torch", "device"): _Ignored,
    ("torch", "Tensor"): _Ignored,
    ("torch.nn.parameter", "Parameter"): _Ignored,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    **{("torch", str(dtype).removeprefix("torch.")): dtype for dtype in _DTYPES.values()},
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("yacs.config", "CfgNode"): _Settings,
    ("argparse", "Namespace"): _Settings,
    ("numpy", "dtype"): _Ignored,
    ("numpy", "ndarray"): _Ignored,
    **{(f"numpy.{core}.multiarray", "scalar"): _number for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Ignored for core in ("core", "_core")},
    ("_codecs", "encode"): _latin1,
}


def read_archive(path: Path) -> object:
    """Return the content of a torch archive; of a TorchScript archive, its state dict.

    Raises:
        WeightsError: the file is damaged, or refers to something outside the closed list.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with path.open("rb") as stream:
            return _read_legacy(path, stream)
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise WeightsError(f"{path}: cannot be read as torch weights ({first_line(error)})") from error


# The Python unpickler: a single opcode can make the C one reserve any amount of memory.
class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportPrivateUsage]
    """An unpickler that allows a closed list of names; subclasses load the storages."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        super().__init__(stream)
        self.path = path
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        # The pickle protocol that torch writes still has the module names of Python 2.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        makers: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._tensor", "_rebuild_from_type_v2"): self._typed_tensor,
        }
        maker = makers.get((module, name)) or _PLAIN.get((module, name))
        if maker is None:
            raise WeightsError(
                f"{self.path}: refused, because reading it would run {module}.{name}, "
                "which weights have no need for; get the file from a source you trust, or as safetensors"
            )
        return maker

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or any(part is not None for part in view):
            raise WeightsError(f"{self.path}: refers to a {kind} in a way that weights do not")
        if key not in self.storages:
            self.storages[key] = self.storage(str(key), dtype, int(count))
        return self.storages[key]

    @abstractmethod
    def storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """Return the storage of a key, with `count` numbers."""

    def _tensor(self, storage: Tensor, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
        shape, steps = tuple(map(int, size)), tuple(map(int, stride))
        last = offset + sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
        negative = offset < 0 or min(shape + steps, default=0) < 0
        if negative or (0 not in shape and (last >= storage.numel() or prod(shape) > storage.numel())):
            raise WeightsError(
                f"{self.path}: a tensor of shape {shape} reaches outside its storage of {storage.numel()}"
            )
        return storage.as_strided(shape, steps, offset)

    def _typed_tensor(self, _make: object, _type: object, given: tuple[Any, ...], *_: object) -> Tensor:
        return self._tensor(*given)


def _read_zip(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        record = next((name for name in entries if name.endswith("/data.pkl") or name == "data.pkl"), None)
        if record is None:
            raise WeightsError(f"{path}: is a zip file, but not one that torch wrote")
        prefix = record.removesuffix("data.pkl")
        order = f"{prefix}byteorder"
        prefixes = (record, order, f"{prefix}data/")
        if any(info.compress_type for name, info in entries.items() if name.startswith(prefixes)):
            raise WeightsError(
                f"{path}: its tensors are compressed, which torch never does; get the file again"
            )
        if order in entries and archive.read(order).strip() != b"little":
            raise WeightsError(
                f"{path}: was written on a big-endian machine; convert it there to safetensors"
            )
        with archive.open(record) as stream:
            content = _ZipUnpickler(stream, path, prefix, entries).load()
    return dict(_module_tensors(content, "", set())) if isinstance(content, _Module) else content


class _ZipUnpickler(_Unpickler):
    """Maps each storage of a zip archive on first use."""

    def __init__(
        self, stream: IO[bytes], path: Path, prefix: str, entries: Mapping[str, zipfile.ZipInfo]
    ) -> None:
        super().__init__(stream, path)
        self._prefix = prefix
        self._entries = entries

    def storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        info = self._entries.get(f"{self._prefix}data/{key}")
        size = count * dtype.itemsize
        if info is None or info.file_size < size:
            raise WeightsError(f"{self.path}: its storage {key} is missing or cut short; get the file again")
        if size == 0:
            return torch.empty(0, dtype=dtype)
        with self.path.open("rb") as file:
            file.seek(info.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
        start = info.header_offset + 30 + name + extra
        # Copy-on-write: torch needs writable memory, and the file must not change.
        buffer = np.memmap(self.path, dtype=np.uint8, mode="c", offset=start, shape=(size,))
        return torch.frombuffer(buffer, dtype=dtype)


def _module_tensors(module: _Module, prefix: str, seen: set[int]) -> list[tuple[str, Tensor]]:
    tensors: list[tuple[str, Tensor]] = []
    seen.add(id(module))
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            tensors.append((prefix + name, value))
        elif isinstance(value, _Module) and id(value) not in seen:
            tensors += _module_tensors(value, f"{prefix}{name}.", seen)
    return tensors


def _read_legacy(path: Path, stream: IO[bytes]) -> object:
    """Read an archive from before torch 1.6: magic number, protocol, sizes of types, content, keys, storages."""
    head = stream.read(2)
    if not head:
        raise WeightsError(f"{path}: is empty")
    if head == b"PK":
        raise WeightsError(f"{path}: is an archive that was cut short; get the file again")
    if head[0] != pickle.PROTO[0]:
        raise WeightsError(f"{path}: is not a weight file: neither torch nor safetensors wrote it")
    stream.seek(0)
    if _LegacyUnpickler(stream, path).load() != LEGACY_MAGIC:
        raise WeightsError(f"{path}: is a pickle, but not one that torch wrote")
    for _ in ("protocol", "sizes of types"):
        _LegacyUnpickler(stream, path).load()
    unpickler = _LegacyUnpickler(stream, path)
    content = unpickler.load()
    keys: list[str] = _LegacyUnpickler(stream, path).load()
    if set(keys) != set(unpickler.storages):
        raise WeightsError(f"{path}: its storages are not those that its tensors want; get the file again")
    for key in keys:
        _fill_storage(unpickler.storages[key], stream, path)
    return content


class _LegacyUnpickler(_Unpickler):
    """Allocates each storage, never more than the file can fill; their data follow the pickle."""

    reserved = 0

    def storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        self.reserved += count * dtype.itemsize
        if self.reserved > self.path.stat().st_size:
            raise WeightsError(f"{self.path}: its storage {key} is cut short; get the file again")
        return torch.empty(count, dtype=dtype)


def _fill_storage(storage: Tensor, stream: IO[bytes], path: Path) -> None:
    count = int.from_bytes(stream.read(8), "little")
    data = stream.read(storage.numel() * storage.dtype.itemsize)
    if count != storage.numel() or len(data) != storage.numel() * storage.dtype.itemsize:
        raise WeightsError(f"{path}: ends in the middle of a tensor; get the file again")
    if data:
        storage.view(torch.uint8).numpy()[:] = np.frombuffer(data, dtype=np.uint8)
