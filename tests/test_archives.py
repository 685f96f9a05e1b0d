"""An archive is read where it lies, by its headers alone, and whatever it says."""

import io
import json
import os
import re
import tarfile
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ost import archives
from ost.archives import find_member, is_archive, member_folder, members, open_member
from ost.cache import kind_folder
from ost.errors import OstError


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("OST_CACHE", str(tmp_path / "cache"))
    archives._index.cache_clear()


def info(name, data=b"data", kind=tarfile.REGTYPE, **more):
    made = tarfile.TarInfo(name)
    made.size, made.type = len(data), kind
    for key, value in more.items():
        setattr(made, key, value)
    return made, data


def tar(path, *entries, form=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=form) as out:
        for entry in entries:
            made, data = info(entry) if isinstance(entry, str) else entry
            out.addfile(made, io.BytesIO(data))
    return path


def bytes_of(path):
    member = find_member(path)
    with open_member(member) as file:
        return file.read()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_windows_of_the_archive(tmp_path, form):
    long = "/".join(["folder of a long name"] * 8 + ["ü.avi"])
    names = ["a.avi", "./b//c.avi", "run/ü, :x.avi", long if form != tarfile.USTAR_FORMAT else "e.avi"]
    path = tar(tmp_path / "x.tar", *(info(name, name.encode() * 300) for name in names), form=form)
    index = members(path)
    assert index.broken == index.trouble == ""
    assert list(index.members) == ["a.avi", "b/c.avi", *names[2:]]
    for name in names:
        assert bytes_of(path / name) == name.encode() * 300
    whole = path.read_bytes()
    for member in index.members.values():
        assert whole[member.offset :][: member.size] in [name.encode() * 300 for name in names]


def test_a_regular_file_that_ends_in_tar_is_an_archive(tmp_path):
    tar(tmp_path / "x.TAR", "a.avi")
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "link.tar").symlink_to(tmp_path / "x.TAR")
    (tmp_path / "loop.tar").symlink_to(tmp_path / "loop.tar")
    os.mkfifo(tmp_path / "pipe.tar")
    assert is_archive(tmp_path / "x.TAR") and is_archive(str(tmp_path / "link.tar"))
    for name in ("folder.tar", "loop.tar", "pipe.tar", "none.tar", ".", "x\0.tar"):
        assert not is_archive(tmp_path / name)
    assert find_member(tmp_path / "link.tar" / "a.avi").size == 4


def test_paths_that_lead_to_no_member_have_none(tmp_path):
    path = tar(tmp_path / "x.tar", "run/a.avi")
    (tmp_path / "b.avi").touch()
    for name in (
        "x.tar",
        "x.tar/run",
        "x.tar/b.avi",
        "x.tar/run/a.avi/c",
        "b.avi",
        "none.avi",
        "y.tar/run/a.avi",
    ):
        assert find_member(tmp_path / name) is None
    for odd in ("x.tar/../b.avi", "x.tar/run/../run/a.avi", "x.tar/a\0.avi", f"x.tar/{'y' * 5000}"):
        assert find_member(tmp_path / odd) is None
    assert find_member(path / "run/./a.avi")


def test_looking_for_a_file_that_is_there_is_one_stat(tmp_path, monkeypatch):
    file = tmp_path / "x.tar.d" / "a.avi"
    file.parent.mkdir()
    file.touch()
    calls, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda *args, **more: calls.append(args) or stat(*args, **more))
    assert find_member(file) is None
    assert len(calls) == 1


def test_a_folder_of_an_archive_gives_what_is_directly_in_it(tmp_path):
    path = tar(tmp_path / "x.tar", "b/2.png", "b/1.png", "b/deep/3.png", "a.avi")
    assert list(member_folder(path / "b")) == ["1.png", "2.png"]
    assert list(member_folder(path)) == ["a.avi"]
    assert list(members(path).folders) == ["", "b", "b/deep"]
    assert member_folder(path / "c") is member_folder(tmp_path) is member_folder(tmp_path / "none") is None


HOSTILE = [
    info("/etc/passwd"),
    info("../up.avi"),
    info("a/../../up.avi"),
    info(".."),
    info("C:/x.avi"),
    info("C:\\x.avi"),
    info("..\\x.avi"),
    info("\\\\host\\x.avi"),
    info(".hidden.avi"),
    info(".folder/x.avi"),
    info("./"),
    info("link.avi", b"", tarfile.SYMTYPE, linkname="/etc/passwd"),
    info("hard.avi", b"", tarfile.LNKTYPE, linkname="/etc/passwd"),
    info("char.avi", b"", tarfile.CHRTYPE, devmajor=1, devminor=5),
    info("block.avi", b"", tarfile.BLKTYPE, devmajor=8),
    info("pipe.avi", b"", tarfile.FIFOTYPE),
    info("folder.avi", b"", tarfile.DIRTYPE),
    info("unknown.avi", b"data", b"Q"),
    info("empty.avi", b""),
    info("x.avi", pax_headers={"path": "nul\0.avi"}),
    info("y.avi", pax_headers={"path": "/etc/shadow"}),
]


def test_what_leads_out_of_an_archive_or_is_no_plain_file_is_left_out(tmp_path):
    path = tar(tmp_path / "x.tar", "first.avi", *HOSTILE, "last.avi")
    assert list(members(path).members) == ["first.avi", "last.avi"]
    assert members(path).broken == ""
    for made, _ in HOSTILE:
        assert find_member(f"{path}/{made.name}") is None


def test_sparse_members_are_left_out(tmp_path):
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9999"}
    path = tar(
        tmp_path / "x.tar",
        info("s.avi", b"1\n0\n4\n".ljust(512, b"\0") + b"data", pax_headers=headers),
        "a.avi",
    )
    assert list(members(path).members) == ["a.avi"]
    old = bytearray(
        tar(tmp_path / "y.tar", info("s.avi", kind=b"S"), "a.avi", form=tarfile.GNU_FORMAT).read_bytes()
    )
    (tmp_path / "y.tar").write_bytes(old)
    assert list(members(tmp_path / "y.tar").members) == ["a.avi"]


def test_of_two_members_of_one_name_the_last_counts(tmp_path):
    link = info("b.avi", b"", tarfile.SYMTYPE, linkname="a.avi")
    path = tar(tmp_path / "x.tar", info("a.avi", b"old"), "b.avi", info("./a.avi", b"new"), link)
    assert bytes_of(path / "a.avi") == b"new"
    assert find_member(path / "b.avi") is None


def test_any_truncation_gives_what_is_before_it(tmp_path):
    whole = tar(
        tmp_path / "whole.tar", *(info(f"{i}.avi", bytes([i]) * 700) for i in range(1, 4))
    ).read_bytes()
    path = tmp_path / "x.tar"
    end = 3 * (512 + 1024)
    for cut in (*range(1, end + 512, 101), 512, 1536, 1537, end - 1, end):
        path.write_bytes(whole[:cut])
        index = members(path)
        assert index.broken == ("it breaks off before its end" if cut >= 512 else "it is no tar archive")
        assert len(index.members) == min(3, (cut + 1024) // 1536)
        assert all(m.offset + m.size <= cut for m in index.members.values())
        assert (
            index.trouble
            == f"{index.broken}; {len(index.members)} file{'s' * (len(index.members) != 1)} in it can be read"
        )
    path.write_bytes(whole[: end + 512])
    assert len(members(path).members) == 3 and not members(path).broken


def test_damage_in_the_middle_ends_the_archive_and_is_told(tmp_path):
    data = bytearray(tar(tmp_path / "x.tar", "a.avi", "b.avi", "c.avi").read_bytes())
    data[1024 + 10] ^= 255
    (tmp_path / "x.tar").write_bytes(data)
    assert members(tmp_path / "x.tar") == archives.Index(
        {"a.avi": (tmp_path / "x.tar", 512, 4)}, "a header in it is damaged"
    )


@pytest.mark.parametrize(("mode", "name"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_a_compressed_archive_is_told_as_such(tmp_path, mode, name):
    with tarfile.open(tmp_path / "x.tar", mode) as out:
        out.addfile(tarfile.TarInfo("a.avi"))
    assert members(tmp_path / "x.tar").members == {}
    assert f"compressed with {name}" in members(tmp_path / "x.tar").broken


@pytest.mark.parametrize("data", [b"", b"x", b"text\n" * 1000, bytes(range(256)) * 8])
def test_what_is_no_archive_is_told_as_such(tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data)
    assert members(tmp_path / "x.tar") == archives.Index({}, "it is no tar archive")


def test_an_archive_of_nothing_is_whole(tmp_path):
    assert members(tar(tmp_path / "x.tar")) == archives.Index({}, "")


def test_an_archive_that_may_not_be_read_is_told_and_read_once_it_may(unprivileged):
    folder, drop = unprivileged
    path = tar(folder / "x.tar", "a.avi")
    path.chmod(0)
    drop()
    assert "Permission denied" in members(path).broken
    assert "cannot be read" in members(folder / "none.tar").broken


def resized(path, name, size):
    """A header whose size field is replaced, in the binary form that holds any number."""
    data = bytearray(path.read_bytes())
    at = data.index(name.encode()) // 512 * 512
    data[at + 124 : at + 136] = (b"\xff" if size < 0 else b"\x80") + b"".join(
        [size.to_bytes(11, "big", signed=True)]
    )
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = f"{sum(data[at : at + 512]):06o}\0 ".encode()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [-1, -512, -1024, -(2**80), 2**40, 2**63 - 1, 2**63, 2**86])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, b"x", b"g", b"L", b"K", b"S"])
def test_no_claimed_size_makes_it_read_or_run_on(tmp_path, size, kind):
    path = tar(tmp_path / "x.tar", "a.avi", info("odd.avi", kind=kind), "b.avi", form=tarfile.GNU_FORMAT)
    started = time.perf_counter()
    index = members(resized(path, "odd.avi", size))
    assert index.broken and "a.avi" in index.members
    assert all(m.size >= 0 and m.offset + m.size <= path.stat().st_size for m in index.members.values())
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("form", ["x", "g"])
@pytest.mark.parametrize(
    "record",
    [
        {"size": "-1536"},
        {"size": "-99999999999999999999"},
        {"size": "99999999999999999999"},
        {"size": "9" * 6000},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        {"GNU.sparse.map": "1,x"},
        {"GNU.sparse.size": "4"},
        {"hdrcharset": "BINARY", "path": "ü"},
        {"comment": "1" * 50_000},
        {"comment": "1" * 900 + "x" * 200_000},
    ],
)
def test_no_extended_header_makes_it_fail_or_run_on(tmp_path, form, record):
    odd = info("odd.avi", pax_headers=record) if form == "x" else info("odd.avi")
    path = tmp_path / "x.tar"
    more = {"pax_headers": record} if form == "g" else {}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, **more) as out:
        for made, data in (info("a.avi"), odd, info("b.avi")):
            out.addfile(made, io.BytesIO(data))
    started = time.perf_counter()
    index = members(path)
    assert time.perf_counter() - started < 3
    assert all(m.size >= 0 and m.offset + m.size <= path.stat().st_size for m in index.members.values())
    assert form == "g" or "a.avi" in index.members


def test_a_chain_of_headers_ends(tmp_path):
    made = info("x" * 90, b"11 path=xy\n", b"x")
    path = tar(tmp_path / "x.tar", "a.avi", *([made] * 2000), form=tarfile.USTAR_FORMAT)
    index = members(path)
    assert list(index.members) == ["a.avi"] and index.broken


def test_the_number_of_members_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    index = members(tar(tmp_path / "x.tar", *(f"{i}.avi" for i in range(5))))
    assert list(index.members) == ["0.avi", "1.avi", "2.avi"] and "more than 3 members" in index.broken


def test_a_member_too_large_to_be_held_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_WHOLE", 3)
    path = tar(tmp_path / "x.tar", "a.png")
    with pytest.raises(OstError, match=re.escape(str(path))):
        open_member(find_member(path / "a.png"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.data())
def test_any_damage_ends_in_an_index(tmp_path, data):
    entries = ["a.avi", info("ü" * 120), info("b.avi", pax_headers={"comment": "x", "size": "4"}), "c.avi"]
    whole = bytearray(tar(tmp_path / "x.tar", *entries).read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)):
        whole[at] = data.draw(st.integers(0, 255))
    for at in range(0, len(whole), 512):  # so that more than the checksum is looked at
        if whole[at + 257 : at + 262] == b"ustar":
            whole[at + 148 : at + 156] = b" " * 8
            whole[at + 148 : at + 156] = f"{sum(whole[at : at + 512]):06o}\0 ".encode()
    path = tmp_path / "x.tar"
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    index = members(path)
    for name, member in index.members.items():
        assert not name.startswith(("/", ".")) and ".." not in name.split("/")
        assert 0 <= member.offset <= member.offset + member.size <= path.stat().st_size
    archives._index.cache_clear()
    assert members(path) == index


def test_names_that_are_no_utf_8_are_kept(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as out:
        made, data = info("ü.avi")
        out.addfile(made, io.BytesIO(data))
    (name,) = members(tmp_path / "x.tar").members
    archives._index.cache_clear()
    assert list(members(tmp_path / "x.tar").members) == [name]
    assert bytes_of(tmp_path / "x.tar" / name) == b"data"


@pytest.fixture
def openings(monkeypatch):
    calls, open_tar = [], tarfile.open
    monkeypatch.setattr(
        archives.tarfile, "open", lambda *args, **more: calls.append(1) or open_tar(*args, **more)
    )
    return calls


def test_an_archive_is_gone_through_once_until_it_changes(tmp_path, openings):
    path = tar(tmp_path / "x.tar", "a.avi")
    openings.clear()
    for _ in range(3):
        index = members(path)
        archives._index.cache_clear()
        assert members(path) == index and len(openings) == 1
    tar(path, "a.avi", "b.avi")
    openings.clear()
    assert list(members(path).members) == ["a.avi", "b.avi"] and len(openings) == 1
    os.utime(path, ns=(1, 1))
    assert members(path) and len(openings) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"broken": "", "members": 1}',
        '{"broken": "", "members": [["a.avi", 512]]}',
        '{"broken": "", "members": [["a.avi", "512", 4]]}',
        '{"broken": "", "members": [["a.avi", -1, 4]]}',
        '{"broken": "", "members": [["a.avi", 512, 99999999]]}',
        '{"broken": "", "members": [["../a.avi", 512, 4]]}',
        '{"broken": "", "members": [[1, 512, 4]]}',
        '{"broken": 1, "members": []}',
        '{"members": []}',
        "[" * 100_000,
    ],
)
def test_a_damaged_index_is_made_anew(tmp_path, text, openings):
    path = tar(tmp_path / "x.tar", "a.avi")
    index = members(path)
    (kept,) = kind_folder("archives").iterdir()
    right = kept.read_text()
    kept.write_text(text)
    archives._index.cache_clear()
    openings.clear()
    assert members(path) == index and len(openings) == 1
    assert json.loads(kept.read_text()) == json.loads(right)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OST_CACHE", str(tmp_path / "file"))
    assert list(members(tar(tmp_path / "x.tar", "a.avi")).members) == ["a.avi"]


def test_nothing_is_written_beside_an_archive(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    path = tar(home / "x.tar", "a.avi", *HOSTILE)
    before = path.read_bytes()
    bytes_of(path / "a.avi")
    assert list(home.iterdir()) == [path] and path.read_bytes() == before
