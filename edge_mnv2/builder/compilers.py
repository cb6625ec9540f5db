"""`edge-mnv2 compile`: the table of accelerators that models are compiled for, and what all of their compilers need.

A compiler is one file with `compile_for(request, say)`, which gives the JSON document of `compile`, and one row of
`TARGETS`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.builder.calibration import read_crops
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.runtime.answers import crops
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import model_spec
from edge_mnv2.runtime.table import TensorSpec
from edge_mnv2.tflite import graph as tflite
from edge_mnv2.tflite.ir import Graph, last_pool
from edge_mnv2.tflite.onnx_float import onnx_float
from edge_mnv2.tflite.onnx_twin import NoTwin
from edge_mnv2.zoo.labels import read_labels
from edge_mnv2.zoo.resolve import Resolved, resolve
from edge_mnv2.zoo.sidecar import companions, write_files

Say = Callable[[str], None]

TARGETS: Mapping[str, str] = {
    "edgetpu": "edge_mnv2.builder.edgetpu_compile",
    "rknn": "edge_mnv2.builder.rknn_compile",
    "imx500": "edge_mnv2.builder.imx500_compile",
}
"""Word of `--target` before the colon → module. What follows the colon is the module's own: a chip."""

_WHOLE = (1.0,)
"""Windows as large as a photograph: smaller ones, enlarged, lead to coarser integers (agreement 0.87, not 0.94)."""


@dataclass(frozen=True)
class CompileRequest:
    """What `compile` was asked for. `model` (a name or a `.tflite`) or `weights` (as for `build`) is given.

    `images` are pictures to choose the integers by; None: those that ship. `quantization` is a compiler's own word.
    `embedding`: up to the last average pool; what follows runs on the CPU.
    """

    target: str
    model: Optional[str] = None
    weights: Optional[str] = None
    labels: Optional[Path] = None
    out: Optional[Path] = None
    images: Optional[Path] = None
    quantization: Optional[str] = None
    embedding: bool = False
    simulator: bool = False
    toolkit_python: Optional[Path] = None
    min_runtime_version: Optional[int] = None

    @property
    def chip(self) -> str:
        """What follows the colon of `target`."""
        return self.target.partition(":")[2]

    def only(self, **allowed: Any) -> None:
        """Raises UsageError for an option that is set and that this target has no use for."""
        for name in ("weights", "labels", "images", "quantization", "embedding", "simulator", "min_runtime_version"):
            if getattr(self, name) and name not in allowed:
                raise UsageError(f"--{name.replace('_', '-')} is not for --target {self.target}")


def compile_model(request: CompileRequest, say: Say = lambda _: None) -> dict[str, Any]:
    """Compile, write the result with labels and sidecar; the JSON document of `compile`.

    Raises UsageError, ModelError for a model that cannot be compiled, AcceleratorError where the compiler cannot run.
    """
    module = TARGETS.get(request.target.partition(":")[0])
    if module is None or (":" in request.target and not request.target.startswith("rknn:")):
        raise UsageError(f"--target {request.target}", hint="edgetpu, rknn:rk3588, rknn:rk3566, imx500")
    if (request.model is None) == (request.weights is None):
        raise UsageError("compile takes MODEL or --weights", hint="give one of them")
    document: dict[str, Any] = importlib.import_module(module).compile_for(request, say)
    return {"target": request.target, "delegate": request.target.partition(":")[0], **document}


@dataclass(frozen=True)
class Source:
    """A model as a compiler takes it: `onnx` in real numbers (`tflite.onnx_float`), whose input is (q - mean) / std of
    integers q from 0 to 255; `pictures` uint8 (n, rows, columns, 3) of such integers, to choose others by.

    `inputs` and `outputs` are the tensors that take its place at run time: integers as those of the `.tflite`.
    """

    model: Resolved
    stem: Path
    onnx: bytes
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pictures: np.ndarray
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]

    def facts(self) -> str:
        """`inputs` and `outputs` as a line of JSON, for the compiled file."""
        shown = [
            [[list(one.shape), one.dtype.str, one.scale, one.zero_point] for one in specs]
            for specs in (self.inputs, self.outputs)
        ]
        return json.dumps({"edge-mnv2": shown})

    def finish(self, target: Path, content: bytes, tool: str) -> dict[str, Any]:
        """Write the compiled `content` with labels and sidecar; the part of the JSON document that says so."""
        model = self.model
        files = companions(
            target,
            content,
            f"compiled by {tool} from {model.path.name}, sha256 {model.sha256}",
            task=model.task or "classification",
            labels=model.labels,
            unit=model.unit,
            preprocess=replace(model.preprocess, layout=None, size=None),
        )
        written = write_files([*files, (target, content)])
        return {
            "model": model.name,
            "out": str(target),
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "toolkit": tool,
            "pictures": len(self.pictures),
            "written": [str(path) for path in written],
        }


def read_source(request: CompileRequest, say: Say) -> Source:
    """The model that is asked for. Raises ModelError, UsageError, LabelsError."""
    if request.weights is not None:
        return _from_weights(request, say)
    assert request.model is not None
    model = resolve(request.model)
    if model.path.suffix != ".tflite":
        raise ModelError(f"{request.model}: a .tflite file is compiled", hint="bring the .tflite that it was made from")
    if request.labels is not None:
        model = replace(model, labels=read_labels(request.labels))
    with Classifier.open(model.path, spec=model_spec(model)) as classifier:
        image, inputs, outputs = classifier.io.input, classifier.interpreter.inputs, classifier.interpreter.outputs
        writer = image.writer(inputs[0])
    pictures = [writer(one) if inputs[0].quantized else one for one in _pictures(request, image.size or (0, 0))]
    values = np.concatenate([one.reshape(1, *inputs[0].shape[1:]) for one in pictures])
    mean, std = image.mean, image.std
    if inputs[0].quantized:
        spec = inputs[0]
        first = 128 if spec.dtype.name == "int8" else 0
        values = (values.astype(np.int16) + first).astype(np.uint8)
        channels = spec.shape[-1]
        mean, std = (float(spec.zero_point + first),) * channels, (1 / spec.scale,) * channels
    by_name = model.entry is not None and request.model == model.entry.name
    stem = (Path() if by_name else model.path.parent) / model.path.stem
    graph = tflite.read(model.path.read_bytes(), str(model.path))
    return _source(request, model, stem, graph, (mean, std), values, inputs, outputs)


def _source(
    request: CompileRequest,
    model: Resolved,
    stem: Path,
    graph: Graph,
    scaling: tuple[tuple[float, ...], tuple[float, ...]],
    pictures: np.ndarray,
    inputs: list[TensorSpec],
    outputs: list[TensorSpec],
) -> Source:
    if request.embedding:
        outputs = [_cut(graph, model.name)]
    try:
        content = onnx_float(graph)
    except NoTwin as error:
        raise ModelError(f"{model.name} cannot be compiled for {request.target}: {error.message}") from None
    if not inputs[0].quantized:
        # Whoever runs it feeds pixels; the compiler is told how they are scaled.
        inputs = [TensorSpec("image", 0, inputs[0].shape, np.dtype(np.uint8), 0.0, 0)]
    return Source(model, stem, content, *scaling, pictures, inputs, outputs)


def _cut(graph: Graph, name: str) -> TensorSpec:
    """Take off `graph` what follows the last average pool; the embedding's tensor."""
    main = graph.main
    place = last_pool(main.operators)
    if place is None:
        raise ModelError(f"{name} has no global average pool before its answer", hint="leave out --embedding")
    embedding = main.operators[place].outputs[0]
    main.operators, main.outputs = main.operators[: place + 1], [embedding]
    scaling = embedding.quantization
    if scaling is None or not embedding.quantized:
        return TensorSpec("embedding", 0, embedding.shape, np.dtype(np.float32), 0.0, 0)
    numbers = float(scaling.scale[0]), int(scaling.zero_point[0])
    return TensorSpec("embedding", 0, embedding.shape, np.dtype(embedding.dtype), *numbers)


def _from_weights(request: CompileRequest, say: Say) -> Source:
    from edge_mnv2.builder.recipe import trained_network
    from edge_mnv2.builder.request import BuildRequest

    wanted = BuildRequest(out=Path("model.tflite"), weights=request.weights or "", labels=request.labels)
    trained = trained_network(wanted, say)
    graph = tflite.read(trained.floats())
    main = graph.main
    # The compiler normalizes: the two operators that do it go, and the next one reads the picture.
    main.inputs, main.operators = [main.operators[1].outputs[0]], main.operators[2:]
    scaling = tuple(tuple(255.0 * n for n in one) for one in (trained.pictures.mean, trained.pictures.std))
    size = trained.network.input[:2]
    output = TensorSpec("logits", 0, (1, trained.network.outputs), np.dtype(np.float32), 0.0, 0)
    image = TensorSpec("image", 0, (1, *size, 3), np.dtype(np.float32), 0.0, 0)
    path = Path(trained.weights.source)
    model = Resolved(path.name, path, trained.weights.sha256, None, trained.labels, task=trained.network.head.task)
    pictures = np.stack(list(_pictures(request, (size[0], size[1]))))
    return _source(request, model, Path(trained.network.name), graph, scaling, pictures, [image], [output])  # type: ignore[arg-type]


def _pictures(request: CompileRequest, size: tuple[int, int]) -> list[np.ndarray]:
    """Pictures RGB uint8 of `size`, those of `--images` or windows of the photographs that ship."""
    if request.images is not None:
        if size[0] != size[1]:
            raise UsageError("--images is for models with a square input")
        return list(read_crops(request.images, size[0], option="--images").images)
    return list(crops(size, _WHOLE))
