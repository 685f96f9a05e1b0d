"""Add low-rank updates to both towers (LoRA, Hu et al., ICLR 2022), through peft, and merge them into plain weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from ost.backbones.clip import ClipBackbone
from ost.errors import UsageError
from ost.weights.formats import Weights

TARGETS = ["attn", "c_fc", "c_proj"]


def inject(backbone: ClipBackbone, rank: int, seed: int) -> None:
    """Add low-rank updates, initially zero, to the attention and MLP weights of both towers.

    Raises:
        UsageError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UsageError("tune=lora needs the package peft; install it with: pip install peft") from error
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for tower in (backbone.visual, backbone.text):
            inject_adapter_in_model(
                LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, bias="none"), tower
            )
            tower.eval()


def merged(backbone: ClipBackbone) -> Weights:
    """Return the weights with the updates merged, under the names of a plain CLIP; the towers are unchanged."""
    plain = backbone.weights()
    state = {name: tensor for name, tensor in plain.state.items() if "lora_" not in name}
    state = {name: tensor for name, tensor in state.items() if ".base_layer." not in name}
    for tower, prefix in ((backbone.visual, "visual."), (backbone.text, "")):
        state |= {prefix + name: tensor for name, tensor in _merge_tower(tower).items()}
    return replace(plain, state=state)


def is_update(name: str) -> bool:
    """Return whether a parameter of this name belongs to a trained update.

    peft 0.19 adds the update of an attention's output projection twice; it stays at zero here.
    """
    return ".lora_" in name and ".out_proj.lora_" not in name


def _merge_tower(tower: Any) -> dict[str, torch.Tensor]:
    from peft.tuners.lora.layer import LoraLayer, MultiheadAttention

    tower = copy.deepcopy(tower)  # merging and unmerging in place would round the frozen weights
    layers = {name: module for name, module in tower.named_modules() if isinstance(module, LoraLayer)}
    for name, layer in layers.items():
        if ".base_layer." in name:  # inside an attention, which merges it
            continue
        if isinstance(layer, MultiheadAttention):
            plain = layer.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        else:
            layer.merge()
            plain = layer.get_base_layer()
        parent, _, last = name.rpartition(".")
        setattr(tower.get_submodule(parent), last, plain)
    return dict(tower.state_dict())
