"""Synthetic videos whose frames tell their own number: 12 bits as a grid of dark and light cells."""

from fractions import Fraction

import av
import numpy as np

BITS, COLUMNS, ROWS = 12, 4, 3
DARK, LIGHT = 30, 220


def picture(index, size=(64, 48)):
    """uint8 [H, W, 3] that shows `index`, 0 to 4095, and survives lossy coding and scaling."""
    width, height = size
    bits = np.array([(index >> bit) & 1 for bit in range(BITS)]).reshape(ROWS, COLUMNS)
    rows, columns = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    grey = np.where(bits[rows][:, columns], LIGHT, DARK).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def number(pixels):
    """The index that a picture shows; the middle of each cell decides."""
    height, width = pixels.shape[:2]
    rows = (2 * np.arange(ROWS) + 1) * height // (2 * ROWS)
    columns = (2 * np.arange(COLUMNS) + 1) * width // (2 * COLUMNS)
    cells = pixels[rows][:, columns].mean(axis=2).reshape(-1)
    assert (np.abs(cells - (DARK + LIGHT) / 2) > 30).all(), f"no clear index in {cells}"
    return sum(int(cell > 128) << bit for bit, cell in enumerate(cells))


def numbers(frames):
    """The index shown by each sampled frame."""
    return [number(pixels) for pixels in frames.pixels]


def video(
    path,
    count=40,
    *,
    codec="libx264",
    container=None,
    size=(64, 48),
    pix_fmt="yuv420p",
    rate=25,
    gop=12,
    bframes=2,
    options=(),
    muxer=(),
    ticks=None,
    matrix=None,
    pictures=None,
    title="",
):
    """Encode `count` numbered frames.

    Args:
        rate: frames a second.
        ticks: presentation time of each frame in units of 1/rate, instead of 0, 1, 2...
        matrix: the nine integers of a display matrix.
        pictures: uint8 [H, W, C] frames to encode instead of the numbered ones.
        title: a tag of the container.
    """
    shown = pictures or [picture(i, size) for i in range(count)]
    ticks = ticks or range(len(shown))
    with av.open(str(path), "w", format=container, options=dict(muxer)) as output:
        if title:
            output.metadata["title"] = title
        stream = output.add_stream(codec, rate=rate, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.gop_size = gop
        if codec in ("libx264", "libx265", "mpeg4", "mpeg2video"):
            stream.codec_context.max_b_frames = bframes
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for tick, pixels in zip(ticks, shown, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def audio(path, seconds=1):
    """A file with sound and no picture."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16000, layout="mono")
        for i in range(seconds * 16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, i * 1000
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path
