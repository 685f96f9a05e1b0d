"""Videos that are no files of this machine: bytes, file objects, URLs."""

import contextlib
import io
import os
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ost.errors import UsageError, VideoError
from ost.types import Preprocess
from ost.video.chunks import decode_chunks
from ost.video.decode import decode
from ost.video.stream import is_url

SMALL = Preprocess(32, 32, "bilinear", True, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 255, (20, 24, 40, 3), dtype=np.uint8)


class Pipe(io.RawIOBase):
    """A source that cannot be sought, as a socket or a pipe."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def seekable(self):
        return False

    def readinto(self, buffer):
        return self._data.readinto(buffer)


def same(found, expected):
    assert np.array_equal(found.pixels, expected.pixels)
    assert (found.times, found.decoded, found.notices) == (expected.times, expected.decoded, expected.notices)


@pytest.mark.parametrize("sampling", ["uniform", "keyframes"])
@pytest.mark.parametrize("part", [None, (2.0, 5.0)])
@pytest.mark.parametrize(
    "make", [Path.read_bytes, lambda p: bytearray(p.read_bytes()), Path.open, "pipe", os.fspath]
)
def test_a_stream_has_the_frames_of_its_file(make, bikes, sampling, part):
    expected = decode(bikes, frames=6, sampling=sampling, part=part, preprocess=SMALL)
    makers = {"pipe": lambda p: Pipe(p.read_bytes()), Path.open: lambda p: p.open("rb")}
    video = makers.get(make, make)(bikes)
    try:
        same(decode(video, frames=6, sampling=sampling, part=part, preprocess=SMALL), expected)
    finally:
        if hasattr(video, "close"):
            video.close()


def test_a_file_object_is_read_from_its_start_and_left_open(bikes):
    with bikes.open("rb") as file:
        file.seek(1000)
        same(decode(file, frames=3, preprocess=SMALL), decode(bikes, frames=3, preprocess=SMALL))
        assert not file.closed and file.name == decode(file, frames=2, preprocess=SMALL).path


def test_chunks_of_a_stream_are_those_of_its_file(bikes):
    chunks = zip(
        decode_chunks(bikes.read_bytes(), fps=2, chunk_frames=8),
        decode_chunks(bikes, fps=2, chunk_frames=8),
        strict=True,
    )
    for found, expected in chunks:
        same(found.frames, expected.frames)
        assert found.last == expected.last


def test_a_url_is_read_and_what_is_missing_there_is_one_sentence(url, bikes):
    found = decode(f"{url}/clip.mp4", frames=4, preprocess=SMALL)
    same(found, decode(bikes, frames=4, preprocess=SMALL))
    assert found.path == f"{url}/clip.mp4"
    with pytest.raises(VideoError, match=r"gone\.mp4: there is no such file"):
        decode(f"{url}/gone.mp4")
    with pytest.raises(VideoError, match="it cannot be reached"):
        decode("http://127.0.0.1:9/clip.mp4")


def test_an_address_inside_a_file_is_never_opened(url, tmp_path):
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}/clip.mp4\n#EXT-X-ENDLIST\n"
    for video in (playlist.encode(), io.BytesIO(f"ffconcat version 1.0\nfile {url}/clip.mp4\n".encode())):
        with pytest.raises(VideoError, match="it is not a video that can be read"):
            decode(video)
    (tmp_path / "list.m3u8").write_text(playlist)
    with pytest.raises(VideoError, match="it is not a video that can be read"):
        decode(f"{url}/list.m3u8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a/b", True),
        ("S3://a/b", True),
        ("file:///etc/passwd", False),
        ("concat:a|b", False),
        ("a.mp4", False),
    ],
)
def test_only_addresses_of_these_protocols_are_opened(text, expected):
    assert is_url(text) is expected
    assert is_url(Path(text)) is False


@pytest.mark.parametrize(
    ("video", "cause"),
    [
        (b"", "the file is empty"),
        (b"no video", "it is not a video that can be read"),
        (io.BytesIO(), "the file is empty"),
        (io.StringIO("text"), "its file object gives text; open it in binary mode"),
        (np.zeros((3, 4, 5), np.uint8), r"frames are uint8 \[T, H, W, 3\], not uint8 \[3, 4, 5\]"),
        (np.zeros((2, 4, 5, 3)), r"not float64 \[2, 4, 5, 3\]"),
        (torch.zeros(0, 4, 5, 3, dtype=torch.uint8), r"not uint8 \[0, 4, 5, 3\]"),
        ([], "a list of frames is one of PIL images"),
        (["a.mp4"], "a list of frames is one of PIL images"),
        ([Image.new("RGB", (2, 2)), Image.new("RGB", (2, 3))], "the pictures of a video are of one size"),
        (3, "a video is a path, a URL, bytes, a file object, an array, PIL images or a decoder, not a int"),
        ({"path": None, "bytes": None}, "a video is a path or bytes, not a NoneType"),
    ],
)  # fmt: skip
def test_what_is_no_video_is_refused_in_one_sentence(video, cause):
    with pytest.raises(VideoError, match=cause) as caught:
        decode(video)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_closed_file_object_is_refused(bikes):
    with bikes.open("rb") as file:
        pass
    with pytest.raises(VideoError, match="the file object is closed"):
        decode(file)


def test_a_value_of_a_datasets_column_is_its_bytes_or_its_path(bikes):
    expected = decode(bikes, frames=3, preprocess=SMALL)
    same(decode({"path": None, "bytes": bikes.read_bytes()}, frames=3, preprocess=SMALL), expected)
    found = decode({"path": str(bikes), "bytes": None}, frames=3, preprocess=SMALL)
    same(found, expected)
    assert found.path == str(bikes)


def test_parts_of_one_file_object_are_read_by_several_threads_at_once(bikes):
    parts = [(float(start), start + 2.0) for start in range(0, 8, 2)]
    expected = [decode(bikes, frames=4, part=part, preprocess=SMALL) for part in parts]
    with bikes.open("rb") as file, ThreadPoolExecutor(4) as pool:
        for found, alone in zip(
            pool.map(lambda part: decode(file, frames=4, part=part, preprocess=SMALL), parts),
            expected,
            strict=True,
        ):
            same(found, alone)


def test_a_source_that_cannot_be_sought_gives_all_its_parts(bikes):
    pipe = Pipe(bikes.read_bytes())
    for part in ((0.0, 2.0), (4.0, 6.0)):
        same(
            decode(pipe, frames=3, part=part, preprocess=SMALL),
            decode(bikes, frames=3, part=part, preprocess=SMALL),
        )


class Hostile(io.BytesIO):
    """A file object whose reads go wrong after a while."""

    def __init__(self, data, answer):
        super().__init__(data)
        self.answer, self.reads = answer, 0

    def read(self, size=-1):
        self.reads += 1
        data = super().read(size)
        return data if self.reads < 3 else self.answer(data)


def lost(_):
    raise OSError("connection lost")


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (lambda data: data + b"A" * 50_000_000, "reading .* bytes gave bytes"),
        (lambda _: None, "gave NoneType"),
        (lambda _: "text", "gave str"),
        (lost, "connection lost"),
    ],
    ids=["too much", "nothing", "text", "error"],
)
def test_a_file_object_that_misbehaves_is_one_sentence(bikes, answer, cause):
    with pytest.raises(VideoError, match=f"reading it failed .*{cause}"):
        decode(Hostile(bikes.read_bytes(), answer), frames=4)


def test_ffmpeg_asks_for_nothing_by_the_name_of_a_file_object(url, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(SimpleHTTPRequestHandler, "do_GET", lambda self: asked.append(self.path))
    header = b"MLVI" + (52).to_bytes(4, "little") + b"v2.0\0\0\0\0" + bytes(36)
    named = type("Named", (io.BytesIO,), {"name": f"{url}/secret.mlv"})(header)
    with pytest.raises(VideoError):
        decode(named)
    assert asked == []


def test_a_row_of_a_data_set_is_no_address(url):
    with pytest.raises(VideoError, match="there is no such file"):
        decode({"path": f"{url}/clip.mp4", "bytes": None})


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr("ost.video.stream.CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as quiet, pytest.raises(VideoError, match="cannot be"):
        decode(f"http://127.0.0.1:{quiet.getsockname()[1]}/a.mp4")


def test_any_path_like_object_is_its_path(tmp_path, bikes):
    shutil.copy(bikes, tmp_path / "clip.mp4")
    (tmp_path / "frames").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / "frames" / f"{i}.png")
    with os.scandir(tmp_path) as entries:
        found = {entry.name: decode(entry, frames=2) for entry in entries}
    assert {name: frames.path for name, frames in found.items()} == {
        name: str(tmp_path / name) for name in ("clip.mp4", "frames")
    }


class Ranges(BaseHTTPRequestHandler):
    """A server that gives parts of one file."""

    data, asked = b"", []

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, with_body):
        wanted = self.headers.get("Range")
        start, end = (wanted or "bytes=0-").removeprefix("bytes=").split("-")
        part = self.data[int(start) : int(end) + 1 if end else None]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.asked.append(len(part))
            last = int(start) + len(part) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(self.data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if with_body:
            with contextlib.suppress(OSError):
                self.wfile.write(part)


@pytest.fixture
def ranges(bikes):
    Ranges.data, Ranges.asked = bikes.read_bytes() + bytes(30_000_000), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/clip.mp4?a=1::2"
    server.shutdown()
    server.server_close()


def test_of_a_server_that_gives_parts_only_these_are_read(ranges, bikes):
    found = decode(ranges, frames=4, preprocess=SMALL)
    assert np.array_equal(found.pixels, decode(bikes, frames=4, preprocess=SMALL).pixels)
    assert Ranges.asked and sum(Ranges.asked) < len(Ranges.data)


def test_an_interrupt_in_a_read_ends_the_decoding(bikes):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(Hostile(bikes.read_bytes(), interrupt), frames=4)


def test_objects_that_compare_equal_keep_their_own_content(bikes):
    class Alike(Pipe):
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

    one, other = Alike(bikes.read_bytes()), Alike(b"no video")
    decode(one, frames=2)
    with pytest.raises(VideoError):
        decode(other, frames=2)


@pytest.mark.parametrize("empty", ["", {"path": "", "bytes": None}])
def test_an_empty_path_is_not_the_present_folder(empty):
    with pytest.raises(VideoError, match="an empty path is no video"):
        decode(empty)


def test_a_source_without_data_yet_is_no_empty_one():
    class Waiting(Pipe):
        def read(self, size=-1):
            return None

    with pytest.raises(VideoError, match="has no data yet"):
        decode(Waiting(b""))


@pytest.mark.parametrize("part", [5, (1,), (1, 2, 3), ("a", None)])
def test_what_is_no_part_is_wrong_use(bikes, part):
    with pytest.raises(UsageError, match=r"a part is \(start, end\) in seconds"):
        decode(bikes, part=part)
