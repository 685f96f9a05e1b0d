"""No answer of one model is given by another: what identifies a model begins every key of the cache."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from ost.backbones.adapted import AdaptedBackbone
from ost.backbones.adapter import Adapter
from ost.backbones.load import load_backbone
from ost.backbones.resolve import resolve_model
from ost.descriptors.spec import resolve
from ost.errors import WeightsError
from ost.once import once
from ost.recognition import store
from ost.recognition.embed import class_head
from ost.recognition.reader import read_videos
from ost.recognition.settings import Settings
from ost.types import Preprocess
from ost.video import decode
from ost.weights.fingerprint import fingerprint
from ost.weights.formats import read_weights

PACK = resolve(["rowing", "sailing"])
VIEWS = Settings(2)
PARTS = {
    "weights": "w",
    "architecture": {"layers": 2, "quick_gelu": False},
    "tokenizer": "bpe 1",
    "precision": "float32",
    "preprocess": Preprocess(32, 32, "bilinear", False, (0.5,) * 3, (0.5,) * 3),
    "added": {"prompts.text": torch.zeros(2, 3)},
}


@pytest.fixture
def untold(tiny, tmp_path):
    """The tiny CLIP as a file that tells neither its activation nor its pixels."""
    save_file(load_file(tiny), path := tmp_path / "untold.safetensors")
    return path


def embedded(backbone, video):
    with store.Store(backbone, VIEWS) as kept:
        (reading,) = read_videos(backbone, [video], VIEWS, kept=kept)
    return reading


def test_one_file_under_two_activations_shares_nothing(untold, tiny_videos):
    plain, quick = (load_backbone(name, untold, dtype="fp32") for name in ("ViT-B-16", "ViT-B-16-quickgelu"))
    assert plain.weights_hash == quick.weights_hash and plain.fingerprint != quick.fingerprint
    for backbone in (plain, quick):  # whoever comes second must not get what the first has kept
        fresh = next(read_videos(backbone, tiny_videos[:1], VIEWS))
        assert torch.equal(embedded(backbone, tiny_videos[0]).embeddings.values, fresh.embeddings.values)
    heads = [class_head(backbone, PACK, ("name",)).kinds["name"].values for backbone in (plain, quick)]
    assert not torch.equal(*heads)
    again = class_head(load_backbone("ViT-B-16", untold, dtype="fp32"), PACK, ("name",))
    assert torch.equal(again.kinds["name"].values, heads[0])


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("weights", "v"),
        ("architecture", {"layers": 2, "quick_gelu": True}),
        ("tokenizer", "bpe 2"),
        ("precision", "bfloat16"),
        ("preprocess", replace(PARTS["preprocess"], antialias=True)),
        ("added", {"prompts.text": torch.ones(2, 3)}),
        ("added", {"prompts.text": torch.zeros(3, 2)}),
        ("added", {}),
    ],
)
def test_each_part_of_a_model_is_in_its_fingerprint(part, other):
    assert fingerprint(**PARTS) == fingerprint(**PARTS)
    assert fingerprint(**{**PARTS, part: other}) != fingerprint(**PARTS)


def test_a_new_version_of_decoding_reads_no_old_shard(tiny, tiny_videos, monkeypatch):
    backbone, seen = load_backbone(weights=tiny, dtype="fp32"), []
    embed = backbone.embed_clips
    backbone.embed_clips = lambda pixels: seen.append(1) or embed(pixels)
    embedded(backbone, tiny_videos[0])
    embedded(backbone, tiny_videos[0])
    assert len(seen) == 1
    monkeypatch.setattr(decode, "VERSION", "another")
    embedded(backbone, tiny_videos[0])
    assert len(seen) == 2
    monkeypatch.setattr("av.library_versions", {"libavcodec": (99, 0, 0)})
    embedded(backbone, tiny_videos[0])
    assert len(seen) == 3


def test_an_adapter_shares_the_embeddings_of_its_base(tiny, tiny_videos, tmp_path):
    base = load_backbone(weights=tiny, dtype="fp32")
    width = base.width
    shapes = {"centre": (width,), "weight": (1, width), "bias": (1,), "down": (2, width), "up": (width, 2)}
    tensors = {name: torch.ones(shape) for name, shape in shapes.items()}
    adapted = AdaptedBackbone(base, Adapter("b", base.weights_hash, ("rowing",), 2, 1.0, **tensors), "a")
    embedded(base, tiny_videos[0])
    plain = class_head(base, PACK, ("spatial",))
    base.embed_clips = base.embed_text = None
    assert embedded(adapted, tiny_videos[0]).embeddings.values.shape[-1] == width
    learned = class_head(adapted, PACK, ("spatial",))
    assert torch.equal(learned.kinds["spatial"].values, plain.kinds["spatial"].values)
    assert learned.hash != plain.hash and learned.learned is not None


def test_a_name_with_and_without_module_before_it_is_refused_by_both(tiny, tmp_path):
    state = load_file(tiny)
    state["module.ln_final.bias"] = state["ln_final.bias"] + 1
    save_file(state, path := tmp_path / "two.safetensors")
    with pytest.raises(WeightsError, match=r"holds both \S*ln_final\.bias and \S*ln_final\.bias"):
        read_weights(path)


def test_a_tower_is_built_once_by_eight_threads_at_once(tiny, monkeypatch):
    backbone, built = load_backbone(weights=tiny, dtype="fp32"), []
    fill = backbone._fill_tower
    monkeypatch.setattr(backbone, "_fill_tower", lambda *args: built.append(1) or fill(*args))
    barrier = threading.Barrier(8)

    def ask(_):
        barrier.wait()
        return backbone.visual

    with ThreadPoolExecutor(8) as pool:
        towers = list(pool.map(ask, range(8)))
    assert len(built) == 1 and len({*map(id, towers)}) == 1


def test_a_property_that_fails_is_computed_again():
    class Sometimes:
        tries = 0

        @once
        def value(self):
            """What it is."""
            self.tries += 1
            if self.tries == 1:
                raise RuntimeError
            return self.tries

    one = Sometimes()
    with pytest.raises(RuntimeError):
        one.value  # noqa: B018
    assert one.value == one.value == 2 and Sometimes.value.__doc__ == "What it is."


def test_a_model_explains_where_each_property_is_known_from(untold, tiny):
    told = resolve_model(weights=tiny).explained()
    assert (
        told["architecture"].startswith("ViT/") and "(by the shapes of its tensors)" in told["architecture"]
    )
    assert told["activation"].endswith("(by the file)") and told["pixels"].endswith("(by the file)")
    named = resolve_model("ViT-B-16-quickgelu", untold).explained()
    assert named["activation"] == "QuickGELU (by its name)"
    assert named["weights"].endswith("(the file that was named)")
    with pytest.raises(WeightsError, match="does not state its activation"):
        resolve_model(weights=untold)


def test_the_command_explains_a_model(ost_command, untold):
    code, out, _ = ost_command("weights", "explain", untold, "--backbone", "ViT-B-16")
    assert code == 0 and "activation  GELU (by its name)" in out
    code, _, err = ost_command("weights", "explain", untold)
    assert code == 2 and "does not state its activation" in err
