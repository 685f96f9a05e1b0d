"""EfficientNet-Lite2 (Tan & Le, ICML 2019; the Lite variant of 2020), for the embedded backbone.

timm has the same network, and the tests compare this one with it. But importing timm takes longer than
everything else a warm recognition does, and only this network is needed. It uses no torch modules: they would be
filled with random numbers, overwritten and copied before the first frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear, pad, relu6

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
STEM, HEAD, CLASSES, NORM_EPS = 32, 1280, 1000, 1e-3


class ConvNorm:
    """Convolution with TensorFlow's "same" padding, and the batch norm after it folded into its weights.

    Args:
        tensors: gives the convolution's weight, then what the norm has: gain, bias, mean, variance, a counter.
    """

    def __init__(
        self,
        tensors: Iterator[Tensor],
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        weight, gain, bias, mean, variance, _ = islice(tensors, 6)
        scale = gain * torch.rsqrt(variance + NORM_EPS)
        weight = weight.view(outputs, inputs // groups, kernel, kernel) * scale.view(-1, 1, 1, 1)
        # Channels last in memory, which with folded norms is nearly twice as fast on a CPU.
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = bias - mean * scale
        self.kernel, self.stride, self.groups = kernel, stride, groups

    def __call__(self, x: Tensor) -> Tensor:
        """Map [n, inputs, H, W] to [n, outputs, ceil(H / stride), ceil(W / stride)]."""
        if self.stride > 1:
            height, width = (self._padding(length) for length in x.shape[-2:])
            x = pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        padding = 0 if self.stride > 1 else self.kernel // 2
        return conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)

    def _padding(self, length: int) -> int:
        steps = -(-length // self.stride)
        return max(0, (steps - 1) * self.stride + self.kernel - length)


class Block:
    """Inverted residual: expand, depthwise, project; without the expansion in the first stage."""

    def __init__(
        self, tensors: Iterator[Tensor], inputs: int, outputs: int, kernel: int, stride: int, expansion: int
    ) -> None:
        middle = inputs * expansion
        self.expand = ConvNorm(tensors, inputs, middle) if expansion > 1 else None
        self.depthwise = ConvNorm(tensors, middle, middle, kernel, stride, groups=middle)
        self.project = ConvNorm(tensors, middle, outputs)
        self.residual = stride == 1 and inputs == outputs

    def __call__(self, x: Tensor) -> Tensor:
        """Map [n, inputs, H, W] to [n, outputs, H', W']."""
        # In place: on a CPU allocating memory costs as much as the arithmetic.
        y = x if self.expand is None else relu6(self.expand(x), inplace=True)
        y = self.project(relu6(self.depthwise(y), inplace=True))
        return y.add_(x) if self.residual else y


class EfficientNetLite2:
    """Classify fp32 [n, 3, 260, 260], pixels as (x - 127) / 128, into the 1,000 ImageNet classes.

    Args:
        state: the tensors of the weight file, in its order.
    """

    def __init__(self, state: Iterable[Tensor]) -> None:
        tensors = iter(state)
        self.stem = ConvNorm(tensors, 3, STEM, 3, 2)
        self.blocks: list[Block] = []
        inputs = STEM
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for i in range(repeats):
                self.blocks.append(
                    Block(tensors, inputs, outputs, kernel, stride if i == 0 else 1, expansion)
                )
                inputs = outputs
        self.head = ConvNorm(tensors, inputs, HEAD)
        weight, bias = tensors
        self._classifier = weight.view(CLASSES, HEAD), bias

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits [n, 1000] of [n, 3, H, W]."""
        return self.classifier(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Return the features [n, 1280] of [n, 3, H, W], which the classifier reads."""
        x = relu6(self.stem(x), inplace=True)
        for block in self.blocks:
            x = block(x)
        return relu6(self.head(x), inplace=True).mean((2, 3))

    def classifier(self, features: Tensor) -> Tensor:
        """Return the logits [n, 1000] of features [n, 1280]."""
        return linear(features, *self._classifier)
