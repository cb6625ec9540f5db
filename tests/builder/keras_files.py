"""Files as Keras writes them, without Keras: the older HDF5 layout, and `.keras` archives of version 3.

The layouts and configurations are those of Keras 3.15's own files of `keras.applications.MobileNetV2`, shortened.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Layer = tuple[str, str, dict[str, Any]]
"""Class, name, and more of its configuration."""

_KINDS = {"weight": "kernel", "bias": "bias", "running_mean": "moving_mean", "running_var": "moving_variance"}


def layer_name(name: str) -> tuple[str, str]:
    """torchvision's name → Keras's layer, and the field."""
    part = name.split(".")
    field = part[-1]
    if part[0] == "classifier":
        return "predictions", field
    if part[1] in ("0", "18"):
        layers = {"0": ("Conv1", "bn_Conv1"), "18": ("Conv_1", "Conv_1_bn")}[part[1]]
        return layers[int(part[2])], field
    index, rest = int(part[1]), part[3:]
    steps = ("depthwise", "project") if index == 1 else ("expand", "depthwise", "project")
    whole = len(rest) == 3
    step = int(rest[0]) if whole else len(steps) - 1
    norm = int(rest[1]) if whole else int(rest[0]) - step
    block = "expanded_conv" if index == 1 else f"block_{index - 1}"
    return f"{block}_{steps[step]}{'_BN' if norm else ''}", field


def arrays(state: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Layer → kind → values in Keras's layout."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, values in state.items():
        layer, field = layer_name(name) if name.startswith(("features.", "classifier.")) else tuple(name.split("."))
        norm = layer.endswith(("_BN", "_bn")) or layer.startswith(("bn_", "batch"))
        kind = {"weight": "gamma", "bias": "beta"}.get(field, _KINDS[field]) if norm else _KINDS[field]
        if values.ndim == 4:
            values = values.transpose((2, 3, 0, 1) if "depthwise" in layer else (2, 3, 1, 0))
        layers.setdefault(layer, {})[kind] = values.T if values.ndim == 2 else values
    return layers


def config(layers: Sequence[Layer], size: int) -> dict[str, Any]:
    """A model's configuration: `layers` in their order, those of the backbone where one is called so."""
    listed: list[dict[str, Any]] = [
        {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": [None, size, size, 3]}}
    ]
    for kind, name, more in layers:
        if kind == "backbone":
            inner = [
                {"class_name": "Conv2D", "config": {"name": "Conv1", "activation": "linear"}},
                {"class_name": "BatchNormalization", "config": {"name": "bn_Conv1", "epsilon": 1e-3}},
                {"class_name": "Conv2D", "config": {"name": "Conv_1", "activation": "linear"}},
                {"class_name": "BatchNormalization", "config": {"name": "Conv_1_bn", "epsilon": 1e-3}},
                {"class_name": "ReLU", "config": {"name": "out_relu", "max_value": 6.0}},
            ]
            listed.append({"class_name": "Functional", "config": {"name": name, "layers": inner}})
        else:
            listed.append({"class_name": kind, "config": {"name": name, **more}})
    return {"class_name": "Functional", "config": {"name": "model", "layers": listed}}


def write_h5(path: Path, state: Mapping[str, np.ndarray], model: Any) -> Path:
    """The HDF5 file of `model.save("m.h5")`."""
    with h5py.File(path, "w") as file:
        if model is not None:
            file.attrs["model_config"] = json.dumps(model)
        group = file.create_group("model_weights")
        for layer, values in arrays(state).items():
            for kind, array in values.items():
                group.create_dataset(f"{layer}/{layer}/{kind}:0", data=array)
        file.create_dataset("optimizer_weights/adam/m:0", data=np.zeros(3, np.float32))
    return path


def write_keras(path: Path, state: Mapping[str, np.ndarray], model: Any, *, named: bool = True) -> Path:
    """The archive of `model.save("m.keras")`; early ones of version 3 number their groups only (`named` False)."""
    content = io.BytesIO()
    order = ("kernel", "gamma", "bias", "beta", "moving_mean", "moving_variance")
    with h5py.File(content, "w") as file:
        for number, (layer, values) in enumerate(arrays(state).items()):
            group = file.create_group(f"layers/{layer if not named else f'layer_{number}'}/vars")
            if named:
                group.attrs["name"] = layer
            for place, kind in enumerate(sorted(values, key=order.index)):
                group.create_dataset(str(place), data=values[kind])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("model.weights.h5", content.getvalue())
    return path
