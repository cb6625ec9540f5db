"""A plain numpy forward pass of every layer and block here: slow, short, and what the tests hold runtimes against.

Activations are float64 arrays (height, width, channels); weights are in PyTorch's layout and carry the names of
torchvision's state dict. Formulas: Goodfellow, Bengio and Courville 2016, "Deep Learning", chapter 9 (convolution,
pooling); Ioffe and Szegedy 2015, "Batch Normalization", algorithm 2 (inference); Krizhevsky 2010, "Convolutional Deep
Belief Networks on CIFAR-10" (ReLU6).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_mnv2.network.blocks import NORM_EPSILON, Block, Layer, Linear, Pool
from edge_mnv2.network.network import Head, Network

Tensors = Mapping[str, np.ndarray]


def convolution(
    x: np.ndarray,
    weights: np.ndarray,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    bias: float | np.ndarray = 0.0,
) -> np.ndarray:
    """Cross-correlation of `x` (rows, columns, inputs), zeros `padding` deep around it.

    `weights` are (outputs, inputs / groups, kernel rows, kernel columns), `bias` is (outputs,); the result is
    (rows, columns, outputs) with floor((size + 2 padding - kernel) / stride) + 1 rows.
    """
    outputs, inputs, high, wide = weights.shape
    padded = np.pad(np.asarray(x, np.float64), ((padding, padding), (padding, padding), (0, 0)))
    rows, columns = (padded.shape[0] - high) // stride + 1, (padded.shape[1] - wide) // stride + 1
    kernels = weights.astype(np.float64).reshape(groups, outputs // groups, inputs, high, wide)
    result = np.zeros((rows, columns, groups, outputs // groups))
    for row in range(high):
        for column in range(wide):
            seen = padded[row : row + stride * rows : stride, column : column + stride * columns : stride]
            parts = seen[:rows, :columns].reshape(rows, columns, groups, inputs)
            result += np.einsum("rcgi,goi->rcgo", parts, kernels[..., row, column], optimize=groups == 1)
    return result.reshape(rows, columns, outputs) + bias


def batch_normalization(
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float = NORM_EPSILON,
) -> np.ndarray:
    """Each channel (the last axis) of `x` by its trained statistics: scale (x - mean) / sqrt(variance + e) + shift."""
    scale, shift, mean, variance = (np.asarray(values, np.float64) for values in (scale, shift, mean, variance))
    return scale * (x - mean) / np.sqrt(variance + epsilon) + shift


def linear(x: np.ndarray) -> np.ndarray:
    """No activation: what leaves a linear bottleneck."""
    return x


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0.0)


def relu6(x: np.ndarray) -> np.ndarray:
    """min(max(x, 0), 6)."""
    return np.clip(x, 0.0, 6.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), written so that no exponential overflows."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def tanh(x: np.ndarray) -> np.ndarray:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)) = 2 sigmoid(2 x) - 1."""
    return 2.0 * sigmoid(2.0 * x) - 1.0


def softmax(x: np.ndarray) -> np.ndarray:
    """exp(x) over its sum along the last axis."""
    shares = np.exp(x - x.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


ACTIVATIONS = {"linear": linear, "relu": relu, "relu6": relu6, "sigmoid": sigmoid, "tanh": tanh}


def pool(x: np.ndarray, kind: str = "average", kernel: int = 0, stride: int = 1) -> np.ndarray:
    """The "average" or "max" of each window of `kernel` rows and columns, without padding; 0: of the whole picture."""
    high, wide = (kernel, kernel) if kernel else x.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(x, np.float64), (high, wide), axis=(0, 1))
    chosen = windows[::stride, ::stride]
    return chosen.max(axis=(3, 4)) if kind == "max" else chosen.mean(axis=(3, 4))


def fully_connected(x: np.ndarray, weights: np.ndarray, bias: float | np.ndarray = 0.0) -> np.ndarray:
    """weights (outputs, inputs) times `x` taken as one vector, as (1, 1, outputs)."""
    return (weights.astype(np.float64) @ np.ravel(x) + bias).reshape(1, 1, -1)


def layer(layer: Layer, x: np.ndarray, tensors: Tensors) -> np.ndarray:
    """One layer with its normalization and activation."""
    if isinstance(layer, Pool):
        return pool(x, layer.kind, layer.kernel, layer.stride)
    if isinstance(layer, Linear):
        return ACTIVATIONS[layer.activation](
            fully_connected(x, tensors[f"{layer.name}.weight"], tensors[f"{layer.name}.bias"])
        )
    plain = convolution(x, tensors[f"{layer.name}.weight"], layer.stride, layer.padding, layer.groups)
    scale, shift, mean, variance = (
        tensors[f"{layer.norm}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
    )
    return ACTIVATIONS[layer.activation](batch_normalization(plain, scale, shift, mean, variance))


def block(block: Block, x: np.ndarray, tensors: Tensors) -> np.ndarray:
    """The block's path, plus its shortcut where it has one, then the block's own activation."""
    result = x
    for step in block.path:
        result = layer(step, result, tensors)
    if block.shortcut is not None:
        waiting = x
        for step in block.shortcut:
            waiting = layer(step, waiting, tensors)
        result = result + waiting
    return ACTIVATIONS[block.activation](result)


def head(head: Head, z: np.ndarray) -> np.ndarray:
    """What the network answers, from the classifier's outputs `z`."""
    if head.softmax:
        return softmax(z)
    if head.bounds is None:
        return z
    low, high = head.bounds
    return low + (high - low) * sigmoid(z)


def forward(network: Network, x: np.ndarray, tensors: Tensors) -> np.ndarray:
    """The answer (outputs,) for a picture `x` that is normalized as the weights expect it."""
    for step in network.blocks:
        x = block(step, x, tensors)
    return head(network.head, x.reshape(-1))
