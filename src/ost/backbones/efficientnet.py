"""EfficientNet-Lite2 (Tan & Le, ICML 2019; the Lite variant of 2020), for the embedded backbone.

timm has the same network, and the tests hold this one to it; but importing timm takes longer than
everything else a warm recognition does, and this is all of it that is needed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu6
from torch.nn.utils.fusion import fuse_conv_bn_eval

# kernel, stride, expansion, output channels, repeats: EfficientNet-B0 at width 1.1 and depth 1.2.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 3),
    (5, 2, 6, 48, 3),
    (3, 2, 6, 88, 4),
    (5, 1, 6, 120, 4),
    (5, 2, 6, 208, 5),
    (3, 1, 6, 352, 1),
)
STEM, HEAD, CLASSES = 32, 1280, 1000


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's "same" padding, then batch norm; the order of tensors is the file's."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = 0 if stride > 1 else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, H, W] -> [n, outputs, ceil(H / stride), ceil(W / stride)]."""
        if self.stride > 1:
            height, width = (self._missing(length) for length in x.shape[-2:])
            x = pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return self.norm(self.conv(x))

    def fold(self) -> None:
        """Let the convolution do the norm's work, as it can in evaluation."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()

    def _missing(self, length: int) -> int:
        steps = -(-length // self.stride)
        return max(0, (steps - 1) * self.stride + self.kernel - length)


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project; without the expansion in the first stage."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = ConvNorm(inputs, middle) if expansion > 1 else None
        self.depthwise = ConvNorm(middle, middle, kernel, stride, groups=middle)
        self.project = ConvNorm(middle, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, H, W] -> [n, outputs, H', W']."""
        # In place: fresh memory costs a CPU as much as the arithmetic on it.
        y = x if self.expand is None else relu6(self.expand(x), inplace=True)
        y = self.project(relu6(self.depthwise(y), inplace=True))
        return y.add_(x) if self.residual else y


class EfficientNetLite2(nn.Module):
    """fp32 [n, 3, 260, 260], pixels as (x - 127) / 128, -> logits over the 1,000 ImageNet classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM, 3, 2)
        blocks: list[Block] = []
        inputs = STEM
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for i in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, stride if i == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(inputs, HEAD)
        self.classifier = nn.Linear(HEAD, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, H, W] -> [n, 1000]."""
        return self.classifier(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """[n, 3, H, W] -> [n, 1280], what the classifier reads."""
        x = relu6(self.stem(x), inplace=True)
        return relu6(self.head(self.blocks(x)), inplace=True).mean((2, 3))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> EfficientNetLite2:
        """The network with the tensors of a state dict, taken in order."""
        # Not on torch's meta device: that imports its compiler's helpers, half the time of torch itself.
        network = cls()
        names = list(network.state_dict())
        network.load_state_dict(dict(zip(names, state.values(), strict=True)))
        network.eval()
        for module in network.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        # Channels last in memory, which with folded norms is nearly twice as fast on a CPU.
        return network.to(memory_format=torch.channels_last)
