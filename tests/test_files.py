"""Files are written whole or not at all."""

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ost.errors import OstError
from ost.files import atomic, cache_folder, file_hash, package_file, text_hash, write_text


def test_a_file_appears_whole_in_folders_that_were_not_there(tmp_path):
    target = tmp_path / "a" / "b" / "ü.txt"
    with atomic(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(error), atomic(target) as temporary:
        temporary.write_text("new")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")}
    assert len(modes) == 1


def test_text_is_written_as_utf8_whatever_the_locale(tmp_path):
    write_text(tmp_path / "a", "größe 走る\n")
    assert (tmp_path / "a").read_bytes().decode("utf-8").split() == ["größe", "走る"]


def test_a_files_hash_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


PARTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=4)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(PARTS, PARTS)
def test_only_equal_lists_of_texts_have_equal_hashes(one, other):
    assert (text_hash(*one) == text_hash(*other)) == (one == other)


def test_texts_do_not_run_together():
    hashes = {
        text_hash(*parts) for parts in (("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ())
    }
    assert len(hashes) == 6


def test_the_cache_is_where_ost_cache_says(monkeypatch, tmp_path):
    monkeypatch.setenv("OST_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("OST_CACHE", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("OST_CACHE")
    assert cache_folder().name == "ost"
    assert cache_folder().is_absolute()


def test_a_packages_file_is_found_without_importing_the_package():
    assert package_file("ost", "descriptors/packs/everyday.json").is_file()
    for package, inside in (("ost", "no/such.file"), ("no_such_package", "x")):
        with pytest.raises(OstError, match=f"the file {inside} of the package {package} is not installed"):
            package_file(package, inside)
