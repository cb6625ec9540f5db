"""MobileNetV2 of `keras.applications` out of `.h5` and `.keras` files, without TensorFlow or Keras.

The HDF5 library may die on a file that nobody has seen before, so h5py reads in a child process
(`python -m edge_mnv2.builder.keras_file FILE`). The layers then get PyTorch's fields and layouts, and go the way of
every other naming.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.builder.naming import Named, named
from edge_mnv2.errors import ModelError
from edge_mnv2.installed import extra_hint
from edge_mnv2.network.blocks import NORM_EPSILON
from edge_mnv2.paths import module_command

_SECONDS = 300
_MOST_BYTES = 1 << 30
_INNER = "model.weights.h5"
_NO_PACKAGE = 4
_BACKBONE = re.compile(r"(bn_)?Conv1|Conv_1(_bn)?|(expanded_conv|block_\d+)_(expand|depthwise|project)(_BN)?")
_FIELDS = ("weight", "bias", "running_mean", "running_var")
_KINDS = {"kernel": "weight", "depthwise_kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
_KINDS.update(moving_mean="running_mean", moving_variance="running_var")
_PASSIVE = (
    *("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "ActivityRegularization"),
    *("Flatten", "GlobalAveragePooling2D", "InputLayer", "Reshape", "Softmax"),
)
_BEFORE = ("InputLayer", "Resizing", "CenterCrop", "ZeroPadding2D")


@dataclass
class _Facts:
    """What the model's configuration says: `names` of the head's layers → their place, pictures, task, size."""

    places: dict[str, int] = field(default_factory=dict)
    epsilons: dict[str, float] = field(default_factory=dict)
    scale: np.ndarray = field(default_factory=lambda: np.array(1 / 127.5))
    offset: np.ndarray = field(default_factory=lambda: np.array(-1.0))
    task: Optional[str] = None
    sigmoid: bool = False
    resolution: Optional[int] = None
    assumed: list[str] = field(default_factory=list)


def is_keras(path: Path) -> bool:
    """Whether `path` is HDF5 or a `.keras` archive."""
    if not Path(path).is_file():
        return False
    try:
        with Path(path).open("rb") as handle:
            if handle.read(4) != b"PK\x03\x04":
                handle.seek(0)
                return handle.read(4) == b"\x89HDF"
        with zipfile.ZipFile(path) as archive:
            return _INNER in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def read_keras(path: Path) -> Named:
    """The network in `path` by torchvision's names. Raises ModelError, UsageError without the package h5py."""
    source = f"weights {path}"
    config, arrays = _in_child(path, source)
    layers = _layers(config)
    facts = _facts(layers, source) if layers else _Facts(assumed=["the last layer gives logits or their softmax"])
    network = named(_tensors(arrays, layers, facts, source), source)
    if facts.sigmoid and len(network.head[-1].bias) > 1:
        raise ModelError(
            f"{source} answer with a sigmoid for each of several classes at once, which cannot be built",
            hint="convert the model with TFLiteConverter: `run` takes that .tflite",
        )
    network.mean, network.std = _normalization(facts)
    network.assumed = facts.assumed if layers else [*network.assumed, *facts.assumed]
    network.task, network.resolution = facts.task, facts.resolution
    return network


def _in_child(path: Path, source: str) -> tuple[Any, list[tuple[str, str, str, np.ndarray]]]:
    """The configuration, and (path, layer, kind, values) of every array."""
    command = module_command(__name__, str(path))
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(f"{source} cannot be read within {_SECONDS} s") from None
    except OSError as error:
        raise ModelError(f"{sys.executable} cannot be started: {error.strerror}") from error
    if done.returncode == _NO_PACKAGE:
        raise ModelError(f"{source} are a Keras file, and the package h5py is not installed", hint=extra_hint("keras"))
    if done.returncode != 0:
        raise _damaged(source, done.stderr)
    try:
        with np.load(io.BytesIO(done.stdout), allow_pickle=False) as content:
            index = json.loads(content["index"].tobytes())
            arrays = [(*row, content[f"a{number}"]) for number, row in enumerate(index["arrays"])]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(source, str(error).encode()) from None
    return index["config"], arrays


def _damaged(source: str, said: bytes) -> ModelError:
    last = said.decode(errors="replace").strip().splitlines()[-1:] or ["the HDF5 library crashes on it"]
    reason = last[0] if last[0].isprintable() else ascii(last[0])
    return ModelError(f"{source} are damaged: {reason[:200]}", hint="get the file again")


def _layers(config: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """(class, configuration) of every layer, those of models inside the model in their place."""
    inside = config.get("config") if isinstance(config, dict) else None
    listed = inside.get("layers") if isinstance(inside, dict) else None
    if not isinstance(listed, list):
        return []
    layers: list[tuple[str, Mapping[str, Any]]] = []
    for one in listed:
        if isinstance(one, dict) and isinstance(one.get("config"), dict):
            layers += _layers(one) or [(str(one.get("class_name")), one["config"])]
    return layers


def _facts(layers: list[tuple[str, Mapping[str, Any]]], source: str) -> _Facts:
    facts = _Facts()
    names = [str(config.get("name")) for _, config in layers]
    backbone = [row for row, name in enumerate(names) if _BACKBONE.fullmatch(name)]
    first, last = (backbone[0], backbone[-1]) if backbone else (0, -1)
    for kind, config in layers[:first]:
        _before(facts, kind, config)
    for kind, config in layers:
        if kind == "BatchNormalization":
            facts.epsilons[str(config.get("name"))] = float(config.get("epsilon", 1e-3))
    place, answer = 0, "linear"
    for kind, config in layers[last + 1 :]:
        name = str(config.get("name"))
        if name == "out_relu" or kind in _PASSIVE:
            answer = "softmax" if kind == "Softmax" else answer
            continue
        if kind in ("Dense", "Conv2D", "BatchNormalization"):
            facts.places[name] = place
            place += 1
            answer = str(config.get("activation", "linear"))
        elif kind == "ReLU" and config.get("max_value") is None:
            answer = "relu"
        elif kind == "Activation":
            answer = str(config.get("activation"))
        else:
            raise ModelError(f"{source}: the head's layer '{_plain(name)}' ({_plain(kind)}) cannot be built")
        if answer == "relu":
            # A place of its own: the layers are no neighbours any more.
            place += 1
        elif answer not in ("linear", "softmax", "sigmoid"):
            raise ModelError(f"{source}: the head's activation '{_plain(answer)}' cannot be built")
    if answer in ("softmax", "sigmoid"):
        facts.task = "classification"
    facts.sigmoid = answer == "sigmoid"
    return facts


def _before(facts: _Facts, kind: str, config: Mapping[str, Any]) -> None:
    """What a layer in front of the network does to pixels."""
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    if kind == "InputLayer" and isinstance(shape, list) and len(shape) == 4 and isinstance(shape[1], int):
        facts.resolution = shape[1]
    elif kind == "Rescaling":
        facts.scale, facts.offset = np.array(config.get("scale"), float), np.array(config.get("offset", 0.0), float)
    elif kind == "Normalization" and config.get("mean") is not None:
        mean, variance = np.ravel(config["mean"]).astype(float), np.ravel(config["variance"]).astype(float)
        facts.scale, facts.offset = facts.scale / np.sqrt(variance), (facts.offset - mean) / np.sqrt(variance)
    elif kind not in _BEFORE and not kind.startswith("Random"):
        facts.assumed.append(f"the layers before the network ({_plain(kind)}) leave pictures from -1 to 1")


def _normalization(facts: _Facts) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std, of 1, of `pixel * scale + offset`."""
    scale, offset = (np.broadcast_to(one, 3).astype(float) for one in (facts.scale, facts.offset))
    std = 1 / (255 * scale)
    return tuple(round(float(n), 9) for n in -offset * std), tuple(round(float(n), 9) for n in std)


def _tensors(
    arrays: list[tuple[str, str, str, np.ndarray]],
    layers: list[tuple[str, Mapping[str, Any]]],
    facts: _Facts,
    source: str,
) -> dict[str, np.ndarray]:
    """PyTorch's name and layout for each array; the head's layers are numbered in their order."""
    unnamed = _names_by_class(layers)
    values: dict[str, dict[str, np.ndarray]] = {}
    for path, layer, kind, array in arrays:
        name = layer or unnamed.get(path, "")
        if kind in values.setdefault(name, {}):
            raise ModelError(f"{source} hold two layers called '{_plain(name)}'", hint="save one network alone")
        values[name][kind] = array
    tensors: dict[str, np.ndarray] = {}
    order = sorted(values, key=lambda name: (name in facts.places, facts.places.get(name, 0)))
    for name in order:
        prefix = f"head.{facts.places[name]}" if name in facts.places else name
        for kind, array in _by_kind(values[name]).items():
            if kind == "running_var":
                array = array + np.float32(facts.epsilons.get(name, 1e-3) - NORM_EPSILON)
            tensors[f"{prefix}.{kind}"] = _pytorch_layout(array, "depthwise" in name) if kind == "weight" else array
    return tensors


def _by_kind(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fields by PyTorch's names; Keras 3 only numbers them."""
    if all(kind.isdecimal() for kind in values):
        numbered = [values[kind] for kind in sorted(values, key=int)]
        return dict(zip(_FIELDS, numbered)) if len(numbered) in (1, 2, 4) else {}
    return {_KINDS.get(kind, kind): array for kind, array in values.items()}


def _pytorch_layout(array: np.ndarray, depthwise: bool) -> np.ndarray:
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)))
    return np.ascontiguousarray(array.T) if array.ndim == 2 else array


def _names_by_class(layers: list[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Group in older `.keras` files (`layers/conv2d_3`) → the layer's name: classes are counted in their order."""
    counts: dict[str, int] = {}
    names = {}
    for kind, config in layers:
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower().replace("2_d", "2d")
        number = counts.get(snake, 0)
        counts[snake] = number + 1
        names[f"{snake}_{number}" if number else snake] = str(config.get("name"))
    return names


def _plain(text: str) -> str:
    return text[:80] if text.isprintable() else ascii(text[:80])


def _arrays(file: Any) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """(group, layer or "", kind, values) of the file's arrays, in the child process."""
    import h5py

    names: list[str] = []
    file.visit(names.append)
    total = 0
    for path in names:
        parts = path.split("/")
        if parts[0] in ("optimizer", "optimizer_weights"):
            continue
        one = file.get(path)
        if not isinstance(one, h5py.Dataset) or one.external or one.is_virtual or one.dtype.kind != "f":
            continue
        total += one.size * one.dtype.itemsize
        if one.ndim > 4 or total > _MOST_BYTES:
            raise ValueError(f"'{path}' is larger than a MobileNetV2 has anything")
        kind = parts[-1].partition(":")[0]
        if len(parts) > 2 and parts[-2] == "vars":
            layer = one.parent.attrs.get("name", "")
            yield parts[-3], layer.decode() if isinstance(layer, bytes) else str(layer), kind, one[()]
        elif len(parts) > 1:
            yield parts[-2], parts[-2], kind, one[()]


def _answer(path: str) -> int:
    try:
        import h5py
    except ImportError:
        return _NO_PACKAGE
    config: Any = None
    opened: Any = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in (_INNER, "config.json"):
                if archive.getinfo(member).file_size > _MOST_BYTES:
                    raise ValueError(f"its member {member} is too large")
            opened = io.BytesIO(archive.read(_INNER))
            config = json.loads(archive.read("config.json"))
    with h5py.File(opened, "r") as file:
        if config is None and (text := file.attrs.get("model_config")) is not None:
            config = json.loads(text)
        rows = list(_arrays(file))
    index = json.dumps({"config": config, "arrays": [row[:3] for row in rows]}).encode()
    content: dict[str, Any] = {f"a{number}": row[3] for number, row in enumerate(rows)}
    np.savez(sys.stdout.buffer, index=np.frombuffer(index, np.uint8), **content)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(_answer(sys.argv[1]))
    except Exception as problem:
        print(f"{type(problem).__name__}: {' '.join(str(problem).split())}", file=sys.stderr)
        sys.exit(1)
