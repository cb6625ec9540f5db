"""The PyTorch module of a network: the same specification that `build` writes models from, made trainable.

Layers, strides, padding and names come from `network`; nothing about the architecture is said here again. The state
dict has torchvision's names, so torchvision's weights load, and what is trained goes straight into `build`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edge_mnv2.builder.inference import MEAN, STD
from edge_mnv2.errors import UsageError
from edge_mnv2.network.blocks import NORM_EPSILON, Convolution, Layer, Linear
from edge_mnv2.network.network import Network

DROPOUT = 0.2
"""Share of features that are left out before the classifier in training, as in torchvision's training."""

_INITIAL_SPREAD = 0.01

ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


class NetworkModule(nn.Module):
    """`network` with weights. Takes float pictures (batch, 3, height, width), normalized as `normalized` does; gives
    the classifier's outputs (batch, outputs): logits, or a regression's linear value."""

    def __init__(self, network: Network, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.network = network
        self.frozen = 0
        for layer in network.layers():
            if isinstance(layer, Convolution):
                _place(self, layer.name, _convolution(layer))
                _place(self, layer.norm, nn.BatchNorm2d(layer.channels, eps=NORM_EPSILON))
            elif isinstance(layer, Linear):
                _place(self, layer.name.rsplit(".", 1)[0] + ".0", nn.Dropout(dropout))
                _place(self, layer.name, nn.Linear(layer.weight_shape[1], layer.channels))
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.network.blocks:
            entry = x
            for layer in block.path:
                x = self.layer(layer, x)
            if block.shortcut is not None:
                for layer in block.shortcut:
                    entry = self.layer(layer, entry)
                x = entry + x
            x = ACTIVATIONS[block.activation](x)
        return x

    def layer(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """`x` through one layer with its normalization and activation; the pooled activation is (batch, channels)."""
        if isinstance(layer, Convolution):
            x = self.get_submodule(layer.norm)(self.get_submodule(layer.name)(x))
        elif isinstance(layer, Linear):
            dropout = self.get_submodule(layer.name.rsplit(".", 1)[0] + ".0")
            x = self.get_submodule(layer.name)(dropout(x))
        else:
            return x.mean((2, 3))
        return ACTIVATIONS[layer.activation](x)

    def freeze(self, until: int) -> None:
        """Keep the first `until` blocks (torchvision's `features.0` to `features.UNTIL-1`) as they are, the statistics
        of their normalizations too. Raises UsageError where there are not so many."""
        blocks = len(self._feature_blocks())
        if not 0 <= until <= blocks:
            raise UsageError(f"--freeze-until {until}", hint=f"this network has {blocks} blocks before its classifier")
        self.frozen = until
        for block in self._feature_blocks()[:until]:
            block.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> NetworkModule:
        super().train(mode)
        for block in self._feature_blocks()[: self.frozen]:
            block.eval()
        return self

    def _feature_blocks(self) -> list[nn.Module]:
        return list(self.get_submodule("features").children())


def _place(root: nn.Module, name: str, child: nn.Module) -> None:
    *parents, last = name.split(".")
    for part in parents:
        if part not in dict(root.named_children()):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, child)


def _convolution(layer: Convolution) -> nn.Conv2d:
    return nn.Conv2d(
        layer.input[2],
        layer.channels,
        layer.kernel,
        layer.stride,
        layer.padding,
        groups=layer.groups,
        bias=False,
    )


def initialize(module: nn.Module, generator: Optional[torch.Generator] = None) -> None:
    """Fresh weights: convolutions by He et al. 2015 ("Delving Deep into Rectifiers", equation 14, fan out), the
    classifier normal with standard deviation 0.01, normalizations 1 and 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0.0, _INITIAL_SPREAD, generator=generator)
            nn.init.zeros_(part.bias)


def load_tensors(module: NetworkModule, tensors: Mapping[str, np.ndarray], *, classifier: bool = True) -> None:
    """Copy a state dict in torchvision's names into `module`; without its `classifier` where that is another's."""
    chosen = {
        name: torch.from_numpy(np.array(values))
        for name, values in tensors.items()
        if classifier or not name.startswith("classifier.")
    }
    result: Any = module.load_state_dict(chosen, strict=False)
    missing = [name for name in result.missing_keys if not name.endswith("num_batches_tracked")]
    missing = [name for name in missing if classifier or not name.startswith("classifier.")]
    if missing or result.unexpected_keys:
        raise ValueError(f"the weights do not fit: {(missing + result.unexpected_keys)[:3]}")


def saved_state(module: NetworkModule) -> dict[str, torch.Tensor]:
    """The state dict as it is saved: on the CPU, in PyTorch's usual memory order."""
    return {name: values.detach().cpu().contiguous() for name, values in module.state_dict().items()}


def tensors_of(module: NetworkModule) -> dict[str, np.ndarray]:
    """The state dict as float32 arrays, as `build` takes them."""
    return {
        name: values.detach().cpu().numpy().astype(np.float32)
        for name, values in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def normalized(pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """RGB pixels 0..255 (batch, 3, height, width) as the network expects them: (pixel / 255 - mean) / std."""
    mean, std = (torch.tensor(one, dtype=dtype, device=pixels.device).view(1, 3, 1, 1) for one in (MEAN, STD))
    return (pixels.to(dtype) / 255.0 - mean) / std
