"""Untrained weights with the statistics of trained ones, the same on every machine.

For tests, and for the PyTorch script beside this file, which runs without this package's test dependencies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def tensors(shapes: Mapping[str, tuple[int, ...]], seed: int = 1) -> dict[str, np.ndarray]:
    """A float32 state dict: kernels that keep the variance, normalizations that move it a little."""
    # RandomState's streams are frozen; those of default_rng may change with a release of numpy.
    chance = np.random.RandomState(seed)
    found = {}
    for name, shape in shapes.items():
        if name.endswith("running_var"):
            values = chance.uniform(0.5, 1.5, shape)
        elif name.endswith(("running_mean", "bias")):
            values = chance.uniform(-0.2, 0.2, shape)
        elif len(shape) == 1:
            values = chance.uniform(0.7, 1.3, shape)
        else:
            values = chance.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
        found[name] = values.astype(np.float32)
    return found


def activation(shape: tuple[int, int, int], seed: int = 2) -> np.ndarray:
    """Float32 (rows, columns, channels), as a normalized picture or a layer's output could be."""
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def picture(resolution: int, seed: int = 3) -> np.ndarray:
    """RGB uint8 (resolution, resolution, 3): coarse patches, because noise alone tells one input from no other."""
    patches = np.random.RandomState(seed).randint(0, 256, (8, 8, 3))
    place = np.arange(resolution) * 8 // resolution
    return patches[place][:, place].astype(np.uint8)


def write_safetensors(path: Path, state: Mapping[str, np.ndarray]) -> Path:
    """`state` as a .safetensors file."""
    header, blob, start = {}, [], 0
    for name, values in state.items():
        content = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [start, start + len(content)]}
        blob.append(content)
        start += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blob))
    return path
