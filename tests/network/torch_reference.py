"""Writes torch_reference.json beside this file: what PyTorch and torchvision make of the seeded weights.

Run once, in an environment of its own, from the repository's root:

    pip install torch torchvision numpy
    PYTHONPATH=. python tests/network/torch_reference.py [DIRECTORY]

With DIRECTORY, the networks' state dicts are saved there too, in both of PyTorch's file formats.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from tests.network import seeded

try:
    import torchvision
except RuntimeError:
    # A torchvision built for another torch lacks its compiled operators, which detection needs and nothing here.
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops.misc import Conv2dNormActivation

NETWORKS = ((0.35, 96, 10), (1.4, 224, 10))
"""Width, resolution, classes."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RELU6 = torch.nn.ReLU6


def projection(inputs: int, outputs: int, stride: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(inputs, outputs, 1, stride, bias=False), torch.nn.BatchNorm2d(outputs))


def blocks() -> dict[str, torch.nn.Module]:
    """By the names of tests/network/test_reference.py; inputs have 7 x 7 x 8 values."""
    return {
        "convolution": Conv2dNormActivation(8, 6, 3, 2, activation_layer=RELU6),
        "depthwise separable": torch.nn.Sequential(
            Conv2dNormActivation(8, 8, 3, 2, groups=8, activation_layer=RELU6),
            Conv2dNormActivation(8, 6, 1, 1, activation_layer=RELU6),
        ),
        "residual, identity": BasicBlock(8, 8),
        "residual, projection": BasicBlock(8, 6, 2, projection(8, 6, 2)),
        "bottleneck residual, identity": Bottleneck(8, 2),
        "bottleneck residual, projection": Bottleneck(8, 3, 2, projection(8, 12, 2)),
        "inverted residual, identity": InvertedResidual(8, 8, 1, 6),
        "inverted residual, stride 2": InvertedResidual(8, 6, 2, 6),
        "inverted residual, expansion 1": InvertedResidual(8, 6, 1, 1),
    }


def single_layers() -> dict[str, torch.nn.Module]:
    return {
        "max pooling": torch.nn.MaxPool2d(3, 2),
        "average pooling": torch.nn.AvgPool2d(3, 2),
        "global average pooling": torch.nn.AdaptiveAvgPool2d(1),
        "relu": torch.nn.ReLU(),
        "relu6": torch.nn.ReLU6(),
        "sigmoid": torch.nn.Sigmoid(),
        "tanh": torch.nn.Tanh(),
    }


def load(module: torch.nn.Module) -> torch.nn.Module:
    """`module` with the seeded weights, for inference."""
    shapes = {name: tuple(values.shape) for name, values in module.state_dict().items() if values.ndim > 0}
    state = {name: torch.from_numpy(values) for name, values in seeded.tensors(shapes).items()}
    module.load_state_dict(state, strict=False)
    return module.eval()


def answer(module: torch.nn.Module, picture: np.ndarray) -> np.ndarray:
    """Of `picture` (rows, columns, channels), with channels last again."""
    with torch.no_grad():
        found = module(torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))[None]))[0].numpy()
    return found.transpose(1, 2, 0) if found.ndim == 3 else found


def rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.7g}") for value in values.reshape(-1)]


def main(folder: Path | None) -> None:
    x = seeded.activation((7, 7, 8))
    result: dict[str, object] = {
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "blocks": {
            name: rounded(answer(load(module), 3 * x if name == "relu6" else x))
            for name, module in {**blocks(), **single_layers()}.items()
        },
    }
    networks = []
    for width, resolution, classes in NETWORKS:
        model = load(torchvision.models.mobilenet_v2(width_mult=width, num_classes=classes))
        pixels = seeded.picture(resolution).astype(np.float32) / 255.0
        normalized = ((pixels - np.array(MEAN)) / np.array(STD)).astype(np.float32)
        logits = rounded(answer(model, normalized))
        networks.append({"width": width, "resolution": resolution, "classes": classes, "logits": logits})
        if folder is not None:
            for suffix, zipped in (("zip", True), ("legacy", False)):
                target = folder / f"{width}-{resolution}-{suffix}.pth"
                torch.save(model.state_dict(), target, _use_new_zipfile_serialization=zipped)
    result["networks"] = networks
    target = Path(__file__).with_suffix(".json")
    target.write_text(json.dumps(result, separators=(",", ":")).replace('],"', '],\n"') + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
