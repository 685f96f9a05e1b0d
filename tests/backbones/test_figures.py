"""The figures beside the backbones in lists."""

import pytest
import torch

from ost.backbones.catalog import BACKBONES
from ost.backbones.clip import open_clip_config
from ost.backbones.figures import figures
from ost.evaluate.protocols import published_accuracy
from ost.weights.published import PUBLISHED


def test_every_backbone_of_the_catalog_has_its_figures():
    assert set(figures()) == set(BACKBONES)
    for name, known in figures().items():
        assert known.parameters > 0 and known.frames > 0
        assert (known.imagenet is None) == (name == "lite")


@pytest.mark.parametrize("name", ["ViT-B-32/openai", "PE-Core-T-16-384/meta", "MobileCLIP2-S0/dfndr2b"])
def test_the_parameters_are_those_of_the_architecture(name):
    from open_clip.model import CLIP, CustomTextCLIP

    config = open_clip_config(BACKBONES[name].architecture)
    custom = config.pop("custom_text", False)
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    with torch.device("meta"):
        model = (CustomTextCLIP if custom else CLIP)(**config)
    count = sum(p.numel() for p in model.state_dict().values() if p.is_floating_point()) / 1e6
    assert figures()[name].parameters == pytest.approx(count, abs=0.1)


def test_published_weights_have_the_accuracy_of_their_table():
    assert published_accuracy("ost/k400") == "55.9 HMDB-51, 79.7 UCF-101"
    assert published_accuracy("ost/hmdb-2shot") == "59.1 HMDB-51"
    assert published_accuracy("ost/ucf-16shot-k400") == "96.2 UCF-101"
    assert published_accuracy("ost/ssv2-8shot") == "8.9 Something-Something V2"
    assert all(published_accuracy(name) for name in PUBLISHED)
