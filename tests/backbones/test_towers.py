"""The towers against transformers and open_clip, and the catalog against open_clip's own tables."""

import json
import re

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import cosine_similarity

from ost.backbones import clip
from ost.backbones.catalog import BACKBONES
from ost.backbones.clip import ClipBackbone, is_determined_by_shapes, open_clip_config
from ost.backbones.load import load_backbone
from ost.backbones.resolve import find_spec
from ost.errors import UsageError, WeightsError
from ost.weights.formats import read_weights, save_weights

from .makers import EMBED, PATCH, SIZE, WIDTH, pixels, write_open_clip, write_ost

TEXTS = ["a dog", "someone riding a horse on a beach", "a"]


def load(path, name=None, dtype="fp32"):
    return load_backbone(name, path, device="cpu", dtype=dtype)


@pytest.fixture
def ost(state, tmp_path):
    write_ost(state, path := tmp_path / "ost.pth")
    return path


def transformers_clip(activation):
    from transformers import CLIPConfig, CLIPModel

    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "hidden_act": activation,
    }
    config = CLIPConfig(
        text_config={**tower, "eos_token_id": 49407},
        vision_config={**tower, "image_size": SIZE, "patch_size": PATCH},
        projection_dim=EMBED,
    )
    model = CLIPModel(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def openai_names(theirs):
    """A transformers state dict under OpenAI's names."""
    renames = [
        (r"^(vision|text)_model\.encoder\.layers", r"\1_model.transformer.resblocks"),
        (r"layer_norm(\d)", r"ln_\1"),
        (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
        (r"self_attn", "attn"),
        (r"pre_layrnorm", "ln_pre"),
        (r"post_layernorm", "ln_post"),
        (r"final_layer_norm", "ln_final"),
        (r"embeddings\.patch_embedding", "conv1"),
        (r"embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"embeddings\.(class_embedding|token_embedding)", r"\1"),
        (r"^vision_model\.", "visual."),
        (r"^text_model\.", ""),
    ]
    ours = {
        "visual.proj": theirs["visual_projection.weight"].T,
        "text_projection": theirs["text_projection.weight"].T,
    }
    for name, tensor in theirs.items():
        if name.endswith("position_ids") or "projection" in name:
            continue
        for pattern, new in renames:
            name = re.sub(pattern, new, name)
        ours[name] = tensor
    for name in [name for name in ours if ".attn.q_proj." in name]:
        parts = [ours.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        ours[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    return {name: tensor.contiguous() for name, tensor in ours.items()}


@pytest.mark.parametrize(("activation", "name"), [("quick_gelu", "ViT-B-16-quickgelu"), ("gelu", "ViT-B-16")])
def test_both_towers_equal_those_of_transformers(activation, name, tmp_path):
    theirs = transformers_clip(activation)
    write_open_clip(openai_names(theirs.state_dict()), path := tmp_path / "clip.pt")
    model = load(path, name)
    tokens = open_clip.tokenize(TEXTS)
    image = theirs.visual_projection(theirs.vision_model(pixels()).pooler_output)
    text = theirs.text_projection(theirs.text_model(tokens, tokens != 0).pooler_output)
    torch.testing.assert_close(model.embed_frames(pixels()), image, rtol=0, atol=1e-4)
    expected = torch.nn.functional.normalize(text, dim=-1)
    torch.testing.assert_close(model.embed_text(TEXTS).values, expected, rtol=0, atol=1e-4)
    assert model.logit_scale == pytest.approx(theirs.logit_scale.exp().item())


def test_bf16_stays_near_fp32(ost):
    full, half = load(ost), load(ost, dtype="bf16")
    assert (full.precision, half.precision) == ("float32", "bfloat16")
    images = [model.embed_frames(pixels(8)) for model in (full, half)]
    texts = [model.embed_text(TEXTS).values for model in (full, half)]
    assert images[1].dtype == texts[1].dtype == torch.float32
    assert cosine_similarity(*images).min() > 0.999
    assert cosine_similarity(*texts).min() > 0.999


def test_many_frames_pass_in_bounded_portions(ost):
    model = load(ost)
    many = pixels(70)
    torch.testing.assert_close(model.embed_frames(many)[66:], model.embed_frames(many[66:]))
    assert model.embed_text([]).values.shape == (0, EMBED)


def test_long_text_is_cut_at_a_word_with_a_notice(ost):
    model = load(ost)
    long = "riding " * 200
    found = model.embed_text(["a dog", long, "x" * 2000, "riding " * 75])
    values = found.values
    torch.testing.assert_close(values[1], values[3])
    assert len(found.notices) == 2
    assert found.notices[0].startswith("a text of 202 tokens was cut to the 77 the text tower reads, after")
    assert found.notices[0].endswith("riding'")


@pytest.mark.parametrize("budget", [1, 40, 1024])
def test_texts_come_back_in_their_order_as_if_each_had_been_alone(ost, budget, monkeypatch):
    monkeypatch.setitem(clip.TOKENS_AT_ONCE, "cpu", budget)
    model = load(ost)
    texts = [("riding " * (n * 7 % 13 + 1)) + str(n) for n in range(40)]
    alone = torch.cat([model.embed_text([text]).values for text in texts])
    torch.testing.assert_close(model.embed_text(texts).values, alone, rtol=0, atol=1e-6)


def test_one_tower_is_loaded_without_the_other(ost):
    frames, texts = load(ost), load(ost)
    frames.embed_frames(pixels())
    texts.embed_text(TEXTS)
    assert "visual" in vars(frames) and "text" not in vars(frames)
    assert "text" in vars(texts) and "visual" not in vars(texts)
    assert not hasattr(texts.text, "visual")


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "lite"])
def test_the_catalog_agrees_with_open_clip(name):
    spec = BACKBONES[name]
    architecture, tag = name.split("/")
    theirs, config = open_clip.get_pretrained_cfg(architecture, tag), open_clip_config(architecture)
    pixels_wanted = spec.preprocess
    assert spec.weights.repo + "/" == theirs["hf_hub"]
    assert (pixels_wanted.mean, pixels_wanted.std) == (theirs["mean"], theirs["std"])
    assert pixels_wanted.interpolation == theirs["interpolation"]
    assert pixels_wanted.resize == {"squash": None, "shortest": pixels_wanted.size}[theirs["resize_mode"]]
    assert pixels_wanted.size == config["vision_cfg"]["image_size"]
    assert spec.context_length == config["text_cfg"].get("context_length", 77)
    assert spec.licence and spec.note
    quick = theirs.get("quick_gelu", False)
    assert spec.architecture == (f"{architecture}-quickgelu" if quick else architecture)
    assert open_clip_config(spec.architecture).get("quick_gelu", False) == quick


def test_every_other_model_that_open_clip_publishes_is_known_by_its_name():
    published = open_clip.list_pretrained()
    for name, tag in published:
        spec, theirs = find_spec(f"{name}/{tag}"), open_clip.get_pretrained_cfg(name, tag)
        assert theirs["hf_hub"].startswith(spec.weights.repo)
        assert spec.preprocess.mean == theirs["mean"]
        assert spec.preprocess.interpolation in ("bilinear", "bicubic")
        assert bool(open_clip_config(spec.architecture).get("quick_gelu")) >= theirs.get("quick_gelu", False)
    assert ("ViT-B-32", "laion2b_s34b_b79k") in published
    assert find_spec("ViT-B-32/laion2b_s34b_b79k").weights.repo == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert find_spec("ViT-B-32/laion400m_e32").architecture == "ViT-B-32-quickgelu"
    assert find_spec("ViT-B-32-256").weights.repo == "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K"


def test_the_name_of_an_architecture_tells_its_activation_where_the_shapes_tell_the_rest():
    told = [name for name in open_clip.list_models() if is_determined_by_shapes(open_clip_config(name))]
    assert {"ViT-B-16", "ViT-L-14-quickgelu"} <= set(told)
    assert {"ViT-H-14", "RN50", "ViT-L-14-CLIPA", "PE-Core-B-16"}.isdisjoint(told)
    for name in told:
        assert open_clip_config(name).get("quick_gelu", False) == name.endswith("-quickgelu")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ViT-B-16/openia", "'ViT-B-16/openai'"),
        ("vit-b-16/openai", "'ViT-B-16/openai'"),
        ("ViT-B-32/laion2b_s34b_b79", "'ViT-B-32/laion2b_s34b_b79k'"),
        ("PE-Core-B/meta", "'PE-Core-B-16/meta'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, meant):
    with pytest.raises(UsageError, match=f"no backbone '{name}'; did you mean .*{re.escape(meant)}"):
        load_backbone(name)
    with pytest.raises(UsageError, match=f"nor a known name; did you mean .*{re.escape(meant)}"):
        load_backbone(weights=name)


def test_a_caption_model_is_refused_in_words(ost):
    with pytest.raises(UsageError, match="generates captions"):
        load(ost, "coca_ViT-B-32")


def test_a_vocabulary_smaller_than_the_tokenizers_is_an_error_before_it_is_an_index(state, tmp_path):
    small = state | {"token_embedding.weight": torch.ones(100, WIDTH)}
    write_open_clip(small, path := tmp_path / "small.pt")
    model = load(path, "ViT-B-16")
    assert model.embed_frames(pixels()).shape == (2, EMBED)
    with pytest.raises(WeightsError, match="knows 100 tokens, its tokenizer 49408"):
        model.embed_text(TEXTS)


TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
OTHERS = {
    "heads of 32": {
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": TEXT,
    },
    "resnet": {
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": TEXT,
    },
    "timm": {
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 32},
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
        "custom_text": True,
        "init_logit_bias": -10,
    },
    "rotary": {
        "vision_cfg": {
            "timm_model_name": "vit_pe_core_tiny_patch16_384",
            "timm_pool": "map",
            "timm_proj": "none",
            "image_size": 384,
        },
        "text_cfg": TEXT,
        "custom_text": True,
        "embed_dim": 512,
    },
    "convolutions": {
        "vision_cfg": {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "image_size": 64},
        "text_cfg": TEXT,
    },
}


@pytest.fixture(params=OTHERS)
def other(request, tmp_path, monkeypatch):
    """A model of open_clip's that is more than its shapes, and a file of its weights."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    config = {"embed_dim": EMBED} | OTHERS[request.param]
    (tmp_path / "tiny-other.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-other.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-other", load_weights=False).eval()
    save_file(model.state_dict(), tmp_path / "other.safetensors")
    return model, tmp_path / "other.safetensors", config["vision_cfg"]["image_size"]


@torch.no_grad()
def test_other_models_equal_open_clip_and_account_for_every_tensor(other, tmp_path):
    theirs, path, size = other
    ours = load(path, "tiny-other")
    assert (ours.preprocess.size, ours.text_context.limit) == (size, 16)
    image = theirs.encode_image(pixels(1, size))
    text = theirs.encode_text(open_clip.tokenize(TEXTS, context_length=16), normalize=True)
    torch.testing.assert_close(ours.embed_frames(pixels(1, size)), image, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.embed_text(TEXTS).values, text, rtol=0, atol=1e-6)

    half = load(path, "tiny-other", "bf16").embed_frames(pixels(1, size))
    assert cosine_similarity(half, image).min() > 0.99
    state = dict(read_weights(path).state)
    state["left.over"] = torch.ones(1)
    save_file(state, tmp_path / "more.safetensors")
    with pytest.raises(WeightsError, match=r"left over 1: left\.over"):
        load(tmp_path / "more.safetensors", "tiny-other")


@torch.no_grad()
@pytest.mark.parametrize("other", ["heads of 32", "timm"], indirect=True)
def test_the_model_that_a_name_implies_travels_through_conversion(other, tmp_path):
    from ost.backbones.resolve import _architecture_spec, completed

    theirs, path, size = other
    weights = completed(read_weights(path), _architecture_spec("tiny-other"))
    save_weights(weights, tmp_path / "converted.safetensors")
    ours = load(tmp_path / "converted.safetensors")
    image = theirs.encode_image(pixels(1, size))
    torch.testing.assert_close(ours.embed_frames(pixels(1, size)), image, rtol=0, atol=1e-6)


def test_a_tokenizer_without_its_package_says_so(monkeypatch):
    model = ClipBackbone.__new__(ClipBackbone)
    model.name = model._name = "ViT-B-16-SigLIP2"
    model._config = open_clip_config("ViT-B-16-SigLIP2")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UsageError, match="needs the package transformers"):
        model._tokenizer  # noqa: B018
