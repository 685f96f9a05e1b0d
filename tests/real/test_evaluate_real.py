"""An evaluation of real clips, some of which are lost."""

import json
import shutil

import pyarrow.parquet as pq
import pytest


@pytest.fixture
def lists(real_clips, tmp_path):
    """Copies of the J-HMDB clips, and the official kind of lists that name them; gives one of these and the root."""
    root = tmp_path / "root"
    shutil.copytree(real_clips / "jhmdb21", root)
    for folder in root.iterdir():
        lines = [f"{video.name} 2\n" for video in sorted(folder.iterdir())]
        (tmp_path / f"{folder.name}_test_split1.txt").write_text("".join(lines), encoding="utf-8")
    return next(tmp_path.glob("*_test_split1.txt")), root


def test_of_126_clips_three_missing_two_corrupt_and_one_doubled_are_named_and_no_score_moves(
    ost_command, lists, tmp_path
):
    manifest, root = lists

    def evaluate(run):
        code, _, err = ost_command(
            *("evaluate", "--manifest", manifest, "--videos", root, "--backbone", "lite", "--frames", 2),
            *("--classes", "hmdb51", "-o", tmp_path / run),
        )
        table = pq.read_table(tmp_path / run / "scores.parquet").to_pylist()
        return code, err, {row["path"]: row for row in table}

    code, _, before = evaluate("before")
    assert (code, len(before)) == (0, 126)
    videos = sorted(path for path in root.rglob("*") if path.is_file())
    missing, corrupt, doubled = videos[5:8], videos[50:52], videos[100]
    for path in missing:
        path.unlink()
    corrupt[0].write_bytes(b"\0" * 5000)
    corrupt[1].write_bytes(corrupt[1].read_bytes()[:40])
    (root / "copy").mkdir()
    shutil.copy(doubled, root / "copy" / doubled.name)
    code, err, after = evaluate("after")
    assert (code, len(after)) == (1, 120)
    assert all(path.name in err for path in (*missing, *corrupt, doubled))
    assert f"copy/{doubled.name}" in err and doubled.relative_to(root).as_posix() in err
    assert "6 of 126 videos could not be used" in err
    told = json.loads((tmp_path / "after" / "run.json").read_text(encoding="utf-8"))
    assert sorted(told["missing"]["own"]) == sorted(path.name for path in missing)
    assert len(told["unreadable"]) == 3
    for path, row in after.items():
        for name, value in row.items():
            expected = before[path][name]
            assert value == (pytest.approx(expected, abs=1e-5) if isinstance(value, float) else expected)
