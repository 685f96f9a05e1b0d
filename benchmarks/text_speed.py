"""How long do new class names take? From a list of names that no shipped pack knows to a finished class head.

    uv run benchmarks/text_speed.py [--names 5000]

The cache is empty at the start. The plain loop is transformers' BertModel over the same names in batches of 64, padded
as they come, in the same run.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, TypeVar

import torch
from torch import Tensor

import ost
from ost.backbones.lite.minilm import FILE, MiniLM
from ost.files import package_file

VERBS = "juggling stacking polishing hammering wiping tying oiling lacing shelling grinding weighing labelling rinsing"
THINGS = (
    "copper kettles,paper lanterns,wet ropes,glass beads,river stones,wool socks,tin cans,clay pots,old boots"
)
MORE_THINGS = (
    "tomato crates,bicycle chains,brass bells,willow baskets,oak planks,curtains,pepper mills,hoses,globes"
)
PLACES = "outdoors,at night,in rain,by candlelight,underwater,at dawn,in crowds,on rooftops,at sea,in snow,on stage"
MORE_PLACES = (
    "in barns,near trains,at markets,in tents,alone,in pairs,for fun,in gloves,on ice,barefoot,slowly"
)
T = TypeVar("T")


def new_names(count: int) -> list[str]:
    """Names of two to five words in a fixed random order."""
    places = f"{PLACES},{MORE_PLACES}".split(",")
    things = f"{THINGS},{MORE_THINGS}".split(",")
    names = [" ".join(words).strip() for words in product(VERBS.split(), things, places)]
    random.Random(0).shuffle(names)
    if count > len(names):
        raise SystemExit(f"at most {len(names)} names")
    return names[:count]


@torch.inference_mode()
def plain_loop(texts: Sequence[str], tokenizer: Any, model: Any) -> Tensor:
    parts: list[Tensor] = []
    for start in range(0, len(texts), 64):
        tokens = tokenizer(texts[start : start + 64], return_tensors="pt", padding=True)
        last, mask = model(**tokens).last_hidden_state, tokens.attention_mask[..., None]
        parts.append(torch.nn.functional.normalize((last * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(parts)


def timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=int, default=5000)
    names = new_names(parser.parse_args().names)
    parts: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["OST_CACHE"] = cache
        parts["ost.pack: looking the names up"], pack = timed(lambda: ost.pack(names))
        parts["ost.load: reading and hashing"], model = timed(lambda: ost.load("lite"))
        # Done by the first head of a cache; here on its own, to be seen.
        parts["class names of the image tower"], _ = timed(lambda: model.backbone._class_names)  # pyright: ignore
        parts["class head"], head = timed(lambda: model.head(pack))
        parts["class head again, from the cache"], _ = timed(lambda: ost.load("lite").head(pack))
    if any(item.spatial for item in pack.classes):
        raise SystemExit("a shipped pack knows some of these names")
    whole = sum(seconds for part, seconds in parts.items() if "again" not in part)

    from transformers import AutoModel, AutoTokenizer

    folder = package_file(*FILE).parent
    tokenizer, bert = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    plain, expected = timed(lambda: plain_loop(names, tokenizer, bert))
    ours, values = timed(lambda: MiniLM.installed().embed(names))
    difference = max(
        (values - expected).abs().max().item(),
        (head.kinds["spatial"].values[:, 0] - expected).abs().max().item(),
    )
    print(f"{len(names)} new names, {torch.get_num_threads()} threads\n\n| part | s |\n|---|---|")
    for part, seconds in parts.items():
        print(f"| {part} | {seconds:.2f} |")
    print(f"| **names to class head** | **{whole:.2f}** |")
    print(f"| the same texts through `MiniLM.embed` alone | {ours:.2f} |")
    print(f"| the same texts through the plain loop | {plain:.2f} |")
    print(
        f"\nplain loop / MiniLM.embed: {plain / ours:.2f}; plain loop / names to class head: {plain / whole:.2f}"
    )
    print(f"largest difference of an embedding's number: {difference:.1e}")


if __name__ == "__main__":
    main()
