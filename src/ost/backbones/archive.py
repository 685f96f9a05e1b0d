"""Torch archives read without running them: tensors and plain values out, or a refusal by name.

A `.pth` is a pickle, and a pickle is a program. Here its vocabulary is a closed list: what rebuilds tensors,
plain containers, and a yacs `CfgNode`, which becomes a dict. Zip archives (torch >= 1.6 and TorchScript) are
mapped, so a checkpoint's optimiser state is never read from disk; older files go through torch's own reader
with the same closed list.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ost.errors import WeightsError

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


class _Settings(dict[str, Any]):
    """Stands in for a yacs CfgNode, argparse.Namespace and the like: its entries, none of its code."""

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.update(
                    (k, v) for k, v in cast(dict[str, Any], part).items() if not str(k).startswith("__")
                )


class _Module:
    """Stands in for a TorchScript module: a bag of attributes."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(cast(dict[str, Any], state))


def read_archive(path: Path) -> object:
    """What a torch archive holds; a TorchScript archive gives its state dict.

    Raises:
        WeightsError: the file is damaged, or refers to something outside the closed list.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        return _read_legacy(path)
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise WeightsError(f"{path}: cannot be read as torch weights ({_line(error)})") from error


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows a closed list of names; subclasses say what tensors are made of."""

    where = "the file"

    def find_class(self, module: str, name: str, /) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module.startswith("__torch__"):
            return _Module
        found = self.tensor_makers().get((module, name)) or _PLAIN.get((module, name))
        if found is None:
            raise WeightsError(
                f"{self.where}: refused, because reading it would run {module}.{name}, "
                "which weights have no need for; get the file from a source you trust, or as safetensors"
            )
        return found

    def tensor_makers(self) -> dict[tuple[str, str], Callable[..., Any]]:
        return {}


def _opaque(*_: object) -> None:
    """Stands in for values of no interest here, such as numpy scalars in training statistics."""


_PLAIN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): lambda *_: {},
    ("builtins", "set"): set,
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("torch", "Size"): tuple,
    ("torch", "device"): str,
    **{("torch", str(dtype).removeprefix("torch.")): dtype for dtype in _DTYPES.values()},
    ("yacs.config", "CfgNode"): _Settings,
    ("argparse", "Namespace"): _Settings,
    **{
        (module, name): _opaque
        for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("scalar", "dtype")
    },
    ("_codecs", "encode"): _opaque,
}


def _read_zip(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        record = next((name for name in entries if name.endswith("/data.pkl") or name == "data.pkl"), None)
        if record is None:
            raise WeightsError(f"{path}: is a zip file, but not one that torch wrote")
        prefix = record.removesuffix("data.pkl")
        order = f"{prefix}byteorder"
        if order in entries and archive.read(order).strip() != b"little":
            raise WeightsError(
                f"{path}: was written on a big-endian machine; convert it there to safetensors"
            )
        with archive.open(record) as stream:
            unpickler = _ZipUnpickler(stream, path, prefix, entries)
            content = unpickler.load()
    if isinstance(content, _Module):
        return dict(_module_tensors(content, ""))
    return content


class _ZipUnpickler(_Unpickler):
    """Maps each storage of a zip archive on first use."""

    def __init__(self, stream: Any, path: Path, prefix: str, entries: dict[str, zipfile.ZipInfo]) -> None:
        super().__init__(stream)
        self.where = str(path)
        self._path = path
        self._prefix = prefix
        self._entries = entries
        self._storages: dict[str, Tensor] = {}

    def persistent_load(self, pid: Any, /) -> Tensor:
        _, dtype, key, _, count = pid
        if key not in self._storages:
            self._storages[key] = self._map(str(key), dtype, int(count))
        return self._storages[key]

    def _map(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        info = self._entries.get(f"{self._prefix}data/{key}")
        size = count * dtype.itemsize
        if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size < size:
            raise WeightsError(f"{self._path}: its storage {key} is missing or cut short; get the file again")
        if size == 0:
            return torch.empty(0, dtype=dtype)
        with self._path.open("rb") as file:
            file.seek(info.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
        start = info.header_offset + 30 + name + extra
        # Copy-on-write: torch wants writable memory, and nothing may reach the file.
        buffer = np.memmap(self._path, dtype=np.uint8, mode="c", offset=start, shape=(size,))
        return torch.frombuffer(buffer, dtype=dtype)

    def tensor_makers(self) -> dict[tuple[str, str], Callable[..., Any]]:
        return {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_tensor"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch._tensor", "_rebuild_from_type_v2"): lambda _make, _type, arguments, _state: _tensor(
                *arguments
            ),
        }


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    shape, steps = tuple(map(int, size)), tuple(map(int, stride))
    last = offset + sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
    if offset < 0 or min(shape + steps, default=0) < 0 or (0 not in shape and last >= storage.numel()):
        raise WeightsError(f"a tensor of shape {shape} reaches outside its storage of {storage.numel()}")
    return storage.as_strided(shape, steps, offset)


def _module_tensors(module: _Module, prefix: str) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            found.append((prefix + name, value))
        elif isinstance(value, _Module):
            found += _module_tensors(value, f"{prefix}{name}.")
    return found


def _read_legacy(path: Path) -> object:
    """Archives from before torch 1.6: torch reads them, our unpickler decides what they may name."""
    from torch import _utils

    makers: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", name): getattr(_utils, name)
        for name in ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter")
    }

    class Unpickler(_Unpickler):
        where = str(path)

        def find_class(self, module: str, name: str, /) -> Any:
            if module == "torch" and name in _DTYPES:
                return getattr(torch, name)
            return super().find_class(module, name)

        def tensor_makers(self) -> dict[tuple[str, str], Callable[..., Any]]:
            return makers

    def load(stream: Any, **_: object) -> object:
        return Unpickler(stream).load()

    # What torch.load asks of a pickle module.
    restricted = type("restricted", (), {"Unpickler": Unpickler, "load": staticmethod(load)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the storage types of that age are deprecated, and all there is
        return torch.load(path, map_location="cpu", pickle_module=restricted, weights_only=False)
