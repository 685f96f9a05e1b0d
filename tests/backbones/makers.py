"""Tiny CLIPs with random weights, and every kind of file that such weights come in."""

import sys
import types
from collections import OrderedDict

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

WIDTH, LAYERS, PATCH, SIZE, EMBED, CONTEXT, VOCAB = 64, 2, 16, 32, 32, 77, 49408


def clip_shapes(layers=LAYERS, size=SIZE, patch=PATCH):
    """Name -> shape, in OpenAI's layout."""
    block = {
        "attn.in_proj_weight": (3 * WIDTH, WIDTH),
        "attn.in_proj_bias": (3 * WIDTH,),
        "attn.out_proj.weight": (WIDTH, WIDTH),
        "attn.out_proj.bias": (WIDTH,),
        "ln_1.weight": (WIDTH,),
        "ln_1.bias": (WIDTH,),
        "ln_2.weight": (WIDTH,),
        "ln_2.bias": (WIDTH,),
        "mlp.c_fc.weight": (4 * WIDTH, WIDTH),
        "mlp.c_fc.bias": (4 * WIDTH,),
        "mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
        "mlp.c_proj.bias": (WIDTH,),
    }
    shapes = {
        "positional_embedding": (CONTEXT, WIDTH),
        "text_projection": (WIDTH, EMBED),
        "logit_scale": (),
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": ((size // patch) ** 2 + 1, WIDTH),
        "visual.proj": (WIDTH, EMBED),
        "visual.conv1.weight": (WIDTH, 3, patch, patch),
        "token_embedding.weight": (VOCAB, WIDTH),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for tower in ("visual.", ""):
        for i in range(layers):
            shapes |= {f"{tower}transformer.resblocks.{i}.{k}": v for k, v in block.items()}
    return shapes


def clip_state(seed=0, **sizes):
    """Random weights whose numbers fp16 holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: (0.1 * torch.randn(shape, generator=generator)).half().float()
        for name, shape in clip_shapes(**sizes).items()
    }
    norms = {n: (t + 1).half().float() for n, t in state.items() if ".ln_" in f".{n}" and "weight" in n}
    return state | norms | {"logit_scale": torch.tensor(4.6055).half().float()}


def pixels(n=2, size=SIZE, seed=1):
    """fp32 [n, 3, size, size]."""
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def openai_extras():
    """The sizes that OpenAI keeps among the weights."""
    sizes = {"input_resolution": SIZE, "context_length": CONTEXT, "vocab_size": VOCAB}
    return {name: torch.tensor(value) for name, value in sizes.items()}


def ost_names(state):
    """The names that OST, ViFi-CLIP and MAXI give."""

    def renamed(name):
        if name == "logit_scale":
            return "module.logit_scale"
        if name.startswith("visual."):
            return f"module.image_encoder.{name.removeprefix('visual.')}"
        return f"module.text_encoder.{name}"

    return OrderedDict((renamed(name), tensor) for name, tensor in state.items())


def half(state):
    """Matrices in fp16, as OpenAI writes them."""
    return {name: tensor.half() for name, tensor in state.items()}


def write_openai(state, path):
    torch.save(OrderedDict(half(state) | openai_extras()), path)


def write_torchscript(state, path):
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    root = Root()
    root.sizes = [1, 2, 3]
    for name, tensor in half(state).items():
        *parents, last = name.split(".")
        node = root
        for parent in parents:
            if not hasattr(node, parent):
                node.add_module(parent, nn.Module())
            node = getattr(node, parent)
        node.register_parameter(last, nn.Parameter(tensor))
    for name, tensor in openai_extras().items():
        root.register_buffer(name, tensor)
    torch.jit.save(torch.jit.script(root.eval()), path)


def write_open_clip(state, path):
    torch.save(state, path)


def write_open_clip_training(state, path):
    ours = {f"module.{name}": nn.Parameter(tensor) for name, tensor in state.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": ours, "optimizer": {"state": {}}}, path)


def write_safetensors(state, path):
    save_file(state, path)


def ost_checkpoint(state, accuracy=72.5, **extra):
    """The whole of an OST checkpoint, a yacs CfgNode in it; write it inside `yacs`."""
    config = sys.modules["yacs.config"].CfgNode
    model = ost_names(state) | extra
    moments = {i: {"step": 9, "exp_avg": t + 1, "exp_avg_sq": t + 2} for i, t in enumerate(state.values())}
    return {
        "model": model,
        "optimizer": {"state": moments, "param_groups": [{"lr": 8e-6, "params": list(moments)}]},
        "lr_scheduler": {"t_in_epochs": False, "base_values": [8e-6]},
        "max_accuracy": accuracy,
        "epoch": 9,
        "config": config({"DATA": config({"NUM_FRAMES": 32}), "TITLE": "k400"}),
    }


class yacs:
    """A `yacs.config` module that is there only while a checkpoint is written."""

    def __enter__(self):
        module = types.ModuleType("yacs.config")
        exec(
            "class CfgNode(dict):\n"
            "    def __init__(self, *given):\n"
            "        super().__init__(*given)\n"
            "        self.__dict__['__immutable__'] = True\n"
            "        self.__dict__['__deprecated_keys__'] = set()\n",
            module.__dict__,
        )
        sys.modules |= {"yacs": types.ModuleType("yacs"), "yacs.config": module}

    def __exit__(self, *_):
        del sys.modules["yacs"], sys.modules["yacs.config"]


def write_ost(state, path, accuracy=72.5, **extra):
    with yacs():
        torch.save(ost_checkpoint(state, accuracy, **extra), path)


def write_vifi(state, path):
    prompts = {"token_prefix": torch.ones(3, 1, WIDTH), "token_suffix": torch.ones(3, 76, WIDTH)}
    prompts["complete_text_embeddings"] = torch.ones(3, 77, WIDTH)
    write_ost(state, path, np.float64(72.5), **{f"module.prompt_learner.{k}": v for k, v in prompts.items()})


def write_maxi(state, path):
    write_ost(state, path, torch.tensor(72.5))


def write_legacy(state, path):
    torch.save(OrderedDict(half(state) | openai_extras()), path, _use_new_zipfile_serialization=False)


def write_legacy_ost(state, path):
    with yacs():
        torch.save(ost_checkpoint(state), path, _use_new_zipfile_serialization=False)


WRITERS = {
    "openai": (write_openai, "openai"),
    "torchscript": (write_torchscript, "openai"),
    "open_clip": (write_open_clip, "open_clip"),
    "open_clip_training": (write_open_clip_training, "open_clip"),
    "safetensors": (write_safetensors, "open_clip"),
    "ost": (write_ost, "ost"),
    "vifi": (write_vifi, "ost"),
    "maxi": (write_maxi, "ost"),
    "legacy": (write_legacy, "openai"),
    "legacy_ost": (write_legacy_ost, "ost"),
}
