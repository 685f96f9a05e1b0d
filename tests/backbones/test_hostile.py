"""Files that want to do harm, and files that came to harm: one sentence each, and nothing was run."""

import builtins
import collections
import copyreg
import os
import pickle
import struct
import subprocess
import zipfile

import pytest
import torch

from ost.backbones.resolve import find_weights
from ost.errors import WeightsError
from ost.weights.archive import LEGACY_MAGIC
from ost.weights.formats import read_weights

from .makers import write_open_clip, write_openai, write_safetensors

FLOATS = torch.FloatStorage  # only its name is pickled


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class Storage:
    """Pickles as a reference to a storage."""

    def __init__(self, key="0", count=4, kind="storage", dtype=FLOATS, view=()):
        self.pid = kind, dtype, key, "cpu", count, *view


class Pickler(pickle._Pickler):
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Storage) else None


def pickled(content, path):
    with path.open("wb") as file:
        Pickler(file, 2).dump(content)
    return path.read_bytes()


def write_zip(content, path, data=b"\0" * 16, compression=zipfile.ZIP_STORED, order="little"):
    program = content if isinstance(content, bytes) else pickled(content, path)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", order)
        archive.writestr("archive/data/0", data)


def write_legacy(content, path, data=b"\0" * 16, keys=("0",), count=4):
    program = content if isinstance(content, bytes) else pickled(content, path)
    head = b"".join(pickle.dumps(part, 2) for part in (LEGACY_MAGIC, 1001, {}))
    path.write_bytes(head + program + pickle.dumps(list(keys), 2) + struct.pack("<q", count) + data)


def write_bare(content, path):
    path.write_bytes(content if isinstance(content, bytes) else pickled(content, path))


def tensor(size=(2, 2), stride=(2, 1), offset=0, storage=None, *more):
    made = storage or Storage()
    return Call(torch._utils._rebuild_tensor_v2, made, offset, size, stride, False, {}, *more)


def refusal(path):
    """The sentence that a file is refused with."""
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text and len(text) < 500
    return text


WRITERS = {"zip": write_zip, "legacy": write_legacy, "bare": write_bare}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_harmless_file_made_this_way_is_read(write, tmp_path):
    write({"state_dict": {"a": tensor()}}, path := tmp_path / "file.pth")
    if write is write_bare:
        assert "is a pickle, but not one that torch wrote" in refusal(path)
    else:
        assert torch.equal(read_weights(path).state["a"], torch.zeros(2, 2))


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("where", ["alone", "nested", "in_a_tensor"])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda mark: Call(os.system, f"touch {mark}"), f"{os.name}.system"),
        (lambda mark: Call(eval, f"open({mark!r}, 'w')"), "builtins.eval"),
        (lambda mark: Call(exec, f"open({mark!r}, 'w')"), "builtins.exec"),
        (lambda mark: Call(open, mark, "w"), f"{open.__module__}.open"),  # Python 3.13 names it _io.open
        (lambda mark: Call(torch.load, mark), "torch.serialization.load"),
        (lambda mark: Call(getattr, Call(__import__, "os"), "system"), "builtins.getattr"),
        (lambda mark: Call(copyreg._reconstructor, dict, dict, None), "copyreg._reconstructor"),
        (lambda mark: Call(subprocess.Popen, ["touch", mark]), "subprocess.Popen"),
        (lambda mark: Call(torch.storage._load_from_bytes, b""), "torch.storage._load_from_bytes"),
        (lambda mark: Call(torch.jit.load, mark), "torch.jit._serialization.load"),
        (lambda mark: torch.nn.Linear, "torch.nn.modules.linear.Linear"),
    ],
)
def test_a_pickle_that_runs_code_is_refused_by_name(call, name, where, write, tmp_path):
    mark = tmp_path / "mark"
    bad = call(str(mark))
    content = {
        "alone": bad,
        "nested": {"model": {"a": [tensor(), (bad,)]}},
        "in_a_tensor": {"a": tensor((2, 2), (2, 1), 0, None, bad)},
    }[where]
    write(content, path := tmp_path / "bad.pth")
    assert f"refused, because reading it would run {name}," in refusal(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch mark'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch mark\x85R.",
        b"(S'touch mark'\nios\nsystem\n.",
        b"\x80\x02csubprocess\nPopen\nX\x0a\x00\x00\x00touch mark\x85\x81.",
        b"\x80\x02ccollections\nOrderedDict.__init__.__globals__\n.",
        b"\x80\x04\x8c\x0bcollections\x8c\x12OrderedDict.update\x93.",
        b"\x80\x02c__main__\nx\n.",
        b"\x80\x02\x82\x01.",
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_every_way_to_name_a_function_is_shut(program, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(program, path := tmp_path / "bad.pth")
    assert "refused" in refusal(path) or "cannot be read" in refusal(path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "content",
    [
        Call(collections.OrderedDict, 3),
        Call(collections.OrderedDict, [1, 2, 3]),
        Call(list, 5),
        Call(set, [[]]),
        Call(torch.Size, 7),
        Call(torch._utils._rebuild_tensor_v2),
        Call(torch._utils._rebuild_tensor_v2, 1, 2, 3, 4, 5, 6),
        Call(torch._utils._rebuild_parameter),
        tensor(size="ab", stride="cd"),
        tensor(size=(2,), stride=(1, 1)),
        tensor(storage=Storage(count=-4)),
        tensor(storage=Storage(count="many")),
        tensor(storage=Storage(dtype="FloatStorage")),
        tensor(storage=Storage(kind="module")),
        [tensor()],
        7,
        {},
        {"a": 1},
        {"model": {"a": "text"}},
        {"input_resolution": tensor()},
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_odd_arguments_of_allowed_names_end_in_a_sentence(content, write, tmp_path):
    write(content, path := tmp_path / "odd.pth")
    refusal(path)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((2, 3), (3, 1), 0),
        ((2, 2), (2, 1), 1),
        ((2, 2), (100, 1), 0),
        ((2, 2), (2, 1), -1),
        ((2, 2), (-2, 1), 3),
        ((2**40, 2**40), (0, 0), 0),
        ((5,), (0,), 0),
        ((2**62, 4), (2**62, 1), 0),
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_tensor_may_not_reach_outside_its_storage(size, stride, offset, write, tmp_path):
    write({"a": tensor(size, stride, offset)}, path := tmp_path / "far.pth")
    assert "reaches outside its storage of 4" in refusal(path)


class TestDamage:
    @pytest.fixture
    def whole(self, state, tmp_path):
        write_openai(state, path := tmp_path / "whole.pt")
        return path.read_bytes()

    @pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
    def test_a_zip_cut_short_says_so(self, share, whole, tmp_path):
        (path := tmp_path / "short.pt").write_bytes(whole[: int(share * len(whole))])
        assert "cut short" in refusal(path)

    def test_a_storage_that_is_missing_or_short_is_named(self, tmp_path):
        path = tmp_path / "short.pt"
        for data, key in ((b"\0" * 15, "0"), (b"\0" * 16, "7")):
            write_zip({"a": tensor(storage=Storage(key))}, path, data)
            assert f"storage {key} is missing or cut short" in refusal(path)
        write_legacy({"a": tensor()}, path, b"\0" * 15)
        assert "ends in the middle of a tensor" in refusal(path)
        write_legacy({"a": tensor()}, path, count=3)
        assert "ends in the middle of a tensor" in refusal(path)
        write_legacy({"a": tensor()}, path, keys=("1",))
        assert "its storages are not those that its tensors want" in refusal(path)
        write_legacy({"a": tensor(storage=Storage(count=2**40))}, path)
        assert "cut short" in refusal(path)

    def test_a_compressed_storage_is_not_unpacked(self, tmp_path):
        big = tensor((2**20,), (1,), 0, Storage(count=2**20))
        write_zip({"a": big}, path := tmp_path / "bomb.pt", b"\0" * 2**22, zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 2**16
        assert "compressed" in refusal(path)

    def test_one_opcode_cannot_reserve_all_memory(self, tmp_path):
        write_zip(b"\x80\x02Nr\xff\xff\xff\x7f.", path := tmp_path / "bomb.pt")
        assert "NoneType" in refusal(path)

    @pytest.mark.parametrize("name", ["file.pt", "file.safetensors"])
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\0",
            b"PK\3\4",
            bytes(range(256)) * 64,
            b"GIF89a" * 100,
            b"<html>not found</html>",
            b"\x80\x02",
        ],
    )
    def test_what_is_no_weight_file_says_so(self, content, name, tmp_path):
        (path := tmp_path / name).write_bytes(content)
        refusal(path)

    def test_a_zip_of_something_else_says_so(self, tmp_path):
        with zipfile.ZipFile(path := tmp_path / "photos.zip", "w") as archive:
            archive.writestr("photo.txt", "a dog")
        assert "is a zip file, but not one that torch wrote" in refusal(path)

    @pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
    def test_a_damaged_safetensors_file_says_so(self, suffix, state, tmp_path):
        write_safetensors({"a": state["ln_final.bias"]}, path := tmp_path / f"file{suffix}")
        whole = path.read_bytes()
        for damaged in (whole[:-1], whole[:20], whole[:8] + b"{" * 8 + whole[16:], whole + b"more"):
            path.write_bytes(damaged)
            refusal(path)

    def test_metadata_that_cannot_be_meant_says_so(self, state, tmp_path):
        from safetensors.torch import save_file

        good = '"origin": "ost", "quick_gelu": true'
        pixels = '"size": 9, "resize": 9, "antialias": true, "mean": [1, 1, 1], "std": [1, 1, 1]'
        for told in (
            "no json",
            "[]",
            "{}",
            f'{{{good}, "preprocess": [3]}}',
            f'{{{good}, "preprocess": {{"size": 9}}}}',
            f'{{{good}, "preprocess": {{{pixels}, "interpolation": "lanczos"}}}}',
            '{"origin": "nobody", "quick_gelu": true, "preprocess": null}',
        ):
            save_file(state, path := tmp_path / "told.safetensors", {"ost": told})
            assert "its metadata cannot be read" in refusal(path)

    def test_a_folder_and_nothing_at_all_are_told_apart(self, tmp_path):
        assert refusal(tmp_path).endswith("is a folder, not a weight file")
        assert refusal(tmp_path / "none.pt").endswith("there is no such weight file")

    @pytest.mark.parametrize("locked", ["w.pt", "."])
    def test_a_file_that_may_not_be_read_says_so(self, state, unprivileged, locked):
        folder, drop = unprivileged
        write_open_clip(state, path := folder / "w.pt")
        (folder / locked).chmod(0)
        drop()
        assert "cannot be read (Permission denied)" in refusal(find_weights(path, print)[0])

    def test_a_big_endian_file_says_so(self, tmp_path):
        write_zip({"a": tensor()}, path := tmp_path / "big.pt", order="big")
        assert "written on a big-endian machine" in refusal(path)

    def test_flipped_bytes_in_the_pickle_end_in_weights_or_a_sentence(self, tmp_path):
        write_legacy(
            {"state_dict": {"a": tensor(), "b": [1.5, "x", None, (3,)]}}, path := tmp_path / "flip.pt"
        )
        whole = path.read_bytes()
        for place in range(len(whole)):
            for bit in (1, 16, 128):
                changed = bytearray(whole)
                changed[place] ^= bit
                path.write_bytes(changed)
                try:
                    read_weights(path)
                except WeightsError as error:
                    assert str(path) in str(error)


def test_reading_leaves_no_trace_in_what_is_allowed(tmp_path):
    """A BUILD on an allowed function or class must not change it for the next file."""
    for name in (b"yacs.config\nCfgNode", b"collections\nOrderedDict", b"torch\nSize", b"_codecs\nencode"):
        program = b"\x80\x02c" + name + b"\nN}X\x07\x00\x00\x00keywordK\x01s\x86b."
        write_zip(program, path := tmp_path / "build.pt")
        refusal(path)
    write_zip({"a": tensor()}, path)
    assert torch.equal(read_weights(path).state["a"], torch.zeros(2, 2))
    assert not hasattr(builtins.dict, "keyword")
