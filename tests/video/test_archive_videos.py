"""A video in a .tar archive is decoded where it lies, exactly as the file that was put there."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from ost.archives import find_member
from ost.errors import UsageError, VideoError
from ost.types import Preprocess
from ost.video import decode as module
from ost.video.decode import decode
from ost.video.find import find_videos, search

from .makers import numbers, picture, video

PREPROCESS = Preprocess(24, 24, "bilinear", True, (0.5,) * 3, (0.5,) * 3)


def tar(path, files):
    """An archive of name -> bytes or the file that holds them."""
    with tarfile.open(path, "w") as out:
        for name, data in files.items():
            data = data if isinstance(data, bytes) else data.read_bytes()
            made = tarfile.TarInfo(name)
            made.size = len(data)
            out.addfile(made, io.BytesIO(data))
    return path


def same(found, expected):
    assert np.array_equal(found.pixels, expected.pixels)
    assert np.array_equal(found.times, expected.times, equal_nan=True)
    assert (found.decoded, found.notices) == (expected.decoded, expected.notices)


def refusal(path, **settings):
    with pytest.raises(VideoError) as caught:
        decode(path, **settings)
    assert caught.value.path == str(path) and "\n" not in caught.value.cause
    return caught.value.cause


@pytest.mark.parametrize("sampling", ["uniform", "keyframes"])
@pytest.mark.parametrize("preprocess", [None, PREPROCESS])
def test_a_real_clip_gives_the_same_frames_from_an_archive(
    tmp_path, bikes, tiny_videos, sampling, preprocess
):
    path = tar(tmp_path / "x.tar", {"0.mp4": tiny_videos[0], "run/bikes.mp4": bikes, "2.mp4": tiny_videos[2]})
    for name, file in {"run/bikes.mp4": bikes, "2.mp4": tiny_videos[2]}.items():
        found = decode(path / name, frames=8, sampling=sampling, preprocess=preprocess)
        same(found, decode(file, frames=8, sampling=sampling, preprocess=preprocess))
        assert found.path == str(path / name)
        assert decode(str(path / name), frames=8).path == str(path / name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("late.mp4", {"muxer": {"movflags": "faststart"}}),
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx"}),
        ("a.avi", {"codec": "mpeg4"}),
        ("a.ts", {}),
        ("a.mpg", {"codec": "mpeg2video"}),
        ("a.flv", {"codec": "flv", "bframes": 0}),
        ("a.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
        ("a.y4m", {"codec": "wrapped_avframe"}),
        ("a.mxf", {"codec": "mpeg2video"}),
        ("a.wmv", {"codec": "wmv2", "bframes": 0}),
    ],
)
def test_every_container_can_lie_in_an_archive(tmp_path, name, options):
    file = video(tmp_path / name, 40, **options)
    path = tar(tmp_path / "x.tar", {"first": b"x" * 999, f"in/{name}": file, "last": b"y" * 99_999})
    for sampling in ("uniform", "keyframes"):
        same(
            decode(path / "in" / name, frames=8, sampling=sampling), decode(file, frames=8, sampling=sampling)
        )


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_long_video_in_an_archive_is_sought_like_a_file(tmp_path, name, monkeypatch):
    file = video(tmp_path / name, 1100, bframes=3)
    path = tar(tmp_path / "x.tar", {"first": b"x" * 12_345, name: file, "last": file})
    found, seek = [], module._Reader._seek
    monkeypatch.setattr(module._Reader, "_seek", lambda *args: found.append(seek(*args)) or found[-1])
    from_member, from_file = decode(path / name, frames=16), decode(file, frames=16)
    same(from_member, from_file)
    assert len(found) == 2 and all(found)


def test_an_archive_may_lie_anywhere_and_be_called_anything(tmp_path, tiny_videos, monkeypatch):
    folder = tmp_path / "ü ,start,9:,, %d" / "https:" / "y.tar"
    folder.mkdir(parents=True)
    path = tar(folder / "subfile,,start,0,end,0,,:x y#?.TAR", {"a,: ü%d.mp4": tiny_videos[1]})
    expected = decode(tiny_videos[1], frames=4)
    same(decode(path / "a,: ü%d.mp4", frames=4), expected)
    monkeypatch.chdir(folder)
    same(decode(f"{path.name}/a,: ü%d.mp4", frames=4), expected)


def test_a_folder_of_frames_in_an_archive_is_one_video(tmp_path):
    files = {}
    for i in (0, 1, 2, 9, 10, 11, 100):
        data = io.BytesIO()
        Image.fromarray(picture(i)).save(data, "png")
        files[f"run/x/frame_{i}.png"] = data.getvalue()
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / f"frame_{i}.png").write_bytes(data.getvalue())
    path = tar(tmp_path / "x.tar", {"run/x/.hidden.png": b"x", **files, "run/notes.txt": b"x"})
    found = decode(path / "run/x", frames=7)
    same(found, decode(tmp_path / "x", frames=7))
    assert numbers(found) == [0, 1, 2, 9, 10, 11, 100]
    broken = tar(tmp_path / "y.tar", {**files, "run/x/frame_2.png": files["run/x/frame_2.png"][:60]})
    assert decode(broken / "run/x", frames=6).notices == ("6 of 7 frame images can be read",)
    whole = tar(tmp_path / "z.tar", {name.rpartition("/")[2]: data for name, data in files.items()})
    same(decode(whole, frames=7), found)
    assert "no frame images" in refusal(path) and "no frame images" not in refusal(path / "run/y")
    assert "no such file in the archive" in refusal(path / "run/y")
    whole.write_bytes(whole.read_bytes()[:4000])
    assert any("breaks off" in notice for notice in decode(whole, frames=2).notices)


def test_a_missing_member_is_named(tmp_path, tiny_videos):
    path = tar(tmp_path / "x.tar", {"a.mp4": tiny_videos[0], "../b.mp4": tiny_videos[0], "e.mp4": b""})
    for name in ("b.mp4", "../b.mp4", "a.mp4/c", "A.mp4", "e.mp4", "run/a.mp4"):
        assert refusal(f"{path}/{name}") in ("there is no such file in the archive", "there is no such file")
    assert "not a file name" in refusal_of_nul(path)
    (tmp_path / "y.tar").write_bytes(path.read_bytes()[:520])
    assert "breaks off" in refusal(tmp_path / "y.tar" / "b.mp4")
    (tmp_path / "z.tar").write_bytes(b"text")
    assert "is no tar archive" in refusal(tmp_path / "z.tar" / "b.mp4")
    assert "is no tar archive" in refusal(tmp_path / "z.tar")


def refusal_of_nul(path):
    with pytest.raises(VideoError) as caught:
        decode(f"{path}/a\0.mp4")
    return caught.value.cause


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_a_broken_video_is_as_broken_in_an_archive(tmp_path, name):
    data = video(tmp_path / name, 30, codec="mpeg4", muxer={}).read_bytes()
    rng = np.random.default_rng(0)
    for cut in range(1, len(data), len(data) // 12):
        broken = np.frombuffer(data[:cut] if cut % 2 else data, np.uint8).copy()
        broken[rng.integers(len(broken), size=cut % 7)] ^= 64
        (tmp_path / name).write_bytes(broken)
        path = tar(tmp_path / "x.tar", {"b.mp4": data, name: broken.tobytes(), "c.mp4": data})
        for sampling in ("uniform", "keyframes"):
            try:
                expected = decode(tmp_path / name, frames=4, sampling=sampling)
            except VideoError as error:
                assert refusal(path / name, frames=4, sampling=sampling) == error.cause
            else:
                found = decode(path / name, frames=4, sampling=sampling)
                if cut % 7:  # FFmpeg conceals damage with what happens to be in memory, so pixels may differ
                    assert found.sample == expected.sample and found.pixels.shape == expected.pixels.shape
                else:
                    same(found, expected)


def test_the_video_at_the_break_of_an_archive_is_as_good_as_its_part(tmp_path):
    file = video(tmp_path / "a.avi", 100, codec="mpeg4", size=(320, 240), bframes=0, gop=1)
    data = file.read_bytes()
    path = tmp_path / "x.tar"
    for share in (3, 7):
        cut = len(data) * share // 10
        tar(path, {"a.avi": file})
        path.write_bytes(path.read_bytes()[: 512 + cut])
        file.write_bytes(data[:cut])
        same(decode(path / "a.avi", frames=8, min_decoded=0), decode(file, frames=8, min_decoded=0))
        file.write_bytes(data)
    path.write_bytes(path.read_bytes()[:512])
    assert refusal(path / "a.avi") == "the archive breaks off before it"


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
        '<Representation id="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    ],
)
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.ts"])
def test_a_playlist_in_an_archive_is_not_followed(tmp_path, name, playlist):
    file = video(tmp_path / "secret.ts", 10)
    window = f"subfile,,start,0,end,{file.stat().st_size},,:file:{file}"
    for target in (f"file:{file}", str(file), "secret.ts", window):
        path = tar(tmp_path / "x.tar", {name: playlist.format(target).encode(), "secret.ts": file})
        for sampling in ("uniform", "keyframes"):
            refusal(path / name, sampling=sampling)


def test_a_video_cannot_be_read_beyond_its_window(tmp_path):
    """Cut short, its rest being the next thing in the archive: what would be whole if it went on stays cut."""
    data = video(tmp_path / "a.ts", 100).read_bytes()
    cut = len(data) // 2 // 188 * 188
    path = tar(tmp_path / "x.tar", {"a.ts": data})
    (tmp_path / "a.ts").write_bytes(data[:cut])
    member = find_member(path / "a.ts")
    reader = module._Reader("a.ts", member._replace(size=cut), None, 0)
    half = reader.uniform(lambda n: [0, n - 1])
    same(half, decode(tmp_path / "a.ts", pick=lambda n: [0, n - 1], min_decoded=0))
    assert half.decoded < 60


def test_links_and_devices_in_an_archive_are_not_followed(tmp_path, tiny_videos):
    with tarfile.open(tmp_path / "x.tar", "w") as out:
        for name, kind in {
            "s.mp4": tarfile.SYMTYPE,
            "h.mp4": tarfile.LNKTYPE,
            "d.mp4": tarfile.CHRTYPE,
        }.items():
            made = tarfile.TarInfo(name)
            made.type, made.linkname = kind, str(tiny_videos[0])
            out.addfile(made)
    for name in ("s.mp4", "h.mp4", "d.mp4"):
        assert "no such file" in refusal(tmp_path / "x.tar" / name)
    with pytest.raises(UsageError, match="the archive holds neither"):
        find_videos([tmp_path / "x.tar"])


def test_nothing_is_written_where_the_archive_lies(tmp_path, tiny_videos):
    home = tmp_path / "home"
    home.mkdir()
    path = tar(home / "x.tar", {"a.mp4": tiny_videos[0], "../up.mp4": tiny_videos[0], "f/1.jpg": b"x"})
    before = path.read_bytes()
    home.chmod(0o555)
    decode(path / "a.mp4", frames=2)
    refusal(path / "f")
    find_videos([home])
    home.chmod(0o755)
    assert sorted(tmp_path.rglob("*")) == [home, path]
    assert path.read_bytes() == before


FILES = {"b.MP4": b"x", "a.avi": b"x", "deep/er/c.webm": b"x", "notes.txt": b"x", ".h/d.mp4": b"x"}
FILES |= {"f/2.jpg": b"x", "f/1.jpg": b"x", "b/d.mp4": b"x", "b/1.png": b"x"}
FOUND = ["a.avi", "b.MP4", "b/d.mp4", "deep/er/c.webm", "f"]


def test_an_archive_gives_the_videos_in_it_as_its_folder_would(tmp_path):
    path = tar(tmp_path / "x.tar", FILES)
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "x", filter="data")
    assert find_videos([path]) == [f"{path}/{name}" for name in FOUND]
    assert find_videos([tmp_path / "x"]) == [f"{tmp_path}/x/{name}" for name in FOUND]


def test_archives_below_a_folder_are_searched(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "a.mp4").touch()
    tar(tmp_path / "run" / "x.tar", {"b.mp4": b"x"})
    tar(tmp_path / "frames.tar", {"1.jpg": b"x"})
    tar(tmp_path / ".hidden.tar", {"c.mp4": b"x"})
    tar(tmp_path / "none.tar", {"notes.txt": b"x"})
    found = [str(tmp_path / name) for name in ("a.mp4", "frames.tar", "run/x.tar/b.mp4")]
    assert find_videos([tmp_path]) == found
    assert find_videos([tmp_path / "a.mp4", tmp_path / "run" / "x.tar" / "b.mp4"]) == [found[0], found[2]]


def test_a_broken_archive_is_named_after_what_can_be_read_of_it(tmp_path):
    path = tar(tmp_path / "x.tar", {"a.mp4": b"x", "b.mp4": b"x"})
    path.write_bytes(path.read_bytes()[:1100])
    (tmp_path / "z.tar").write_bytes(b"\x1f\x8b")
    assert search([tmp_path]) == ([f"{path}/a.mp4"], [str(path), f"{tmp_path}/z.tar"])
    assert find_videos([tmp_path / "z.tar"]) == [f"{tmp_path}/z.tar"]
    assert find_videos([tmp_path]) == [f"{path}/a.mp4", str(path), f"{tmp_path}/z.tar"]
    assert refusal(path) == "it breaks off before its end; 1 file in it can be read"
    assert "compressed with gzip" in refusal(tmp_path / "z.tar")


def test_videos_in_archives_are_recognised(ost_command, tmp_path, tiny_videos, tiny):
    path = tar(tmp_path / "x.tar", {f"run/{file.name}": file for file in tiny_videos})
    told = ["--weights", tiny, "--classes", "running,walking", "--frames", "2", "--device", "cpu", "--json"]
    code, out, err = ost_command("recognize", path, *told)
    assert code == 0, err
    plain = ost_command("recognize", *tiny_videos, *told)[1]

    def probabilities(text):
        return [line.split('"classes"')[1].split('"seconds"')[0] for line in text.splitlines()]

    assert probabilities(out) == probabilities(plain) and len(probabilities(out)) == 3
    assert ost_command("recognize", path / "run" / "1.mp4", *told)[0] == 0
    path.write_bytes(path.read_bytes()[:1000])
    code, out, err = ost_command("recognize", path, *told)
    assert code == 1 and f"{path}: it breaks off" in err.replace("\n", " ")
