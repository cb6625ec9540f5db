"""A model as makers' toolkits take it, and the one way through a toolkit: find it, compile in its Python, write the
result with labels and sidecar."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.builder.calibration import read_crops
from edge_mnv2.builder.compilers import CompileRequest, Say
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.runtime.answers import crops
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import model_spec
from edge_mnv2.runtime.table import TensorSpec
from edge_mnv2.runtime.toolkit import Toolkit
from edge_mnv2.tflite import graph as tflite
from edge_mnv2.tflite.ir import Graph, last_pool
from edge_mnv2.tflite.onnx_float import onnx_float
from edge_mnv2.tflite.onnx_twin import NoTwin
from edge_mnv2.zoo.labels import read_labels
from edge_mnv2.zoo.resolve import Resolved, resolve
from edge_mnv2.zoo.sidecar import check_target, companions, write_files

_WHOLE = (1.0,)
"""Windows as large as a photograph: smaller ones, enlarged, lead to coarser integers (agreement 0.87, not 0.94)."""

_LAYERS = ("FULLY_CONNECTED", "CONV_2D")
_PLAIN = {*_LAYERS, "SOFTMAX", "RESHAPE", "SQUEEZE", "QUANTIZE", "DEQUANTIZE"}


@dataclass(frozen=True)
class Source:
    """A model as a compiler takes it: `onnx` in real numbers (`tflite.onnx_float`), whose input is (q - mean) / std of
    integers q from 0 to 255; `pictures` uint8 (n, rows, columns, 3) of such integers, to choose others by.

    `inputs` and `outputs` are the tensors that take its place at run time: integers as those of the `.tflite`.
    `embedding`: it ends at the last average pool.
    """

    model: Resolved
    stem: Path
    onnx: bytes
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pictures: np.ndarray
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    embedding: bool

    def facts(self) -> str:
        """`inputs` and `outputs` as a line of JSON, for the compiled file."""
        shown = [
            [[list(one.shape), one.dtype.str, one.scale, one.zero_point] for one in specs]
            for specs in (self.inputs, self.outputs)
        ]
        return json.dumps({"edge-mnv2": shown})


@dataclass
class Compilation:
    """`source` on its way through a toolkit into the file `target`; `folder` is for what lies between."""

    source: Source
    target: Path
    folder: Path
    _toolkit: Toolkit
    _python: Path
    _tool: str
    _took_ms: Optional[int] = field(default=None, init=False)

    @property
    def log(self) -> Path:
        """What the toolkit has printed."""
        return self.folder / "log.txt"

    def run(self, function: str, order: dict[str, Any]) -> dict[str, Any]:
        """As `Toolkit.run`."""
        began = time.monotonic()
        answer = self._toolkit.run(self._python, function, order, self.log)
        self._took_ms = round((time.monotonic() - began) * 1e3)
        return answer

    def finish(
        self, content: bytes, simulated: Optional[tuple[Path, bytes]] = None, *, packed: bool = False
    ) -> dict[str, Any]:
        """Write the compiled `content` with labels, sidecar and what is `simulated`, all or none; the part of the JSON
        document that says so. `packed`: what is loaded in the end is made of it, and has another digest."""
        model = self.source.model
        part = "the embedding of " if self.source.embedding else ""
        files = companions(
            self.target,
            None if packed else content,
            f"compiled by {self._tool} from {part}{model.path.name}, sha256 {model.sha256}",
            task=model.task or "classification",
            labels=model.labels,
            unit=model.unit,
            preprocess=replace(model.preprocess, layout=None, size=None),
        )
        written = write_files([*([] if simulated is None else [simulated]), *files, (self.target, content)])
        return {
            "model": model.name,
            "out": str(self.target),
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "toolkit": self._tool,
            "pictures": len(self.source.pictures),
            "written": [str(path) for path in written],
            "compile_ms": self._took_ms,
        }


@contextlib.contextmanager
def compilation(
    request: CompileRequest, say: Say, toolkit: Toolkit, ending: str, *, plain_heads: bool = False
) -> Iterator[Compilation]:
    """Where and from what `toolkit` is to compile. `ending` follows the model's name in the file's. `plain_heads`: a
    head of more than one layer is left to the CPU, as if `request` had said `embedding`.

    Raises UsageError, ModelError, LabelsError, AcceleratorError where the toolkit is not here.
    """
    python, tool = toolkit.find(request.toolkit_python)
    source = read_source(request, say, plain_heads=plain_heads)
    target = request.out or source.stem.with_name(source.stem.name + ending)
    check_target("--out", target, Path(ending).suffix)
    say(f"{tool} quantizes with {len(source.pictures)} pictures and compiles; that takes some minutes")
    with tempfile.TemporaryDirectory(prefix="edge-mnv2-compile-") as folder:
        yield Compilation(source, target, Path(folder), toolkit, python, tool)


def read_source(request: CompileRequest, say: Say, *, plain_heads: bool = False) -> Source:
    """The model that is asked for; `plain_heads` as for `compilation`. Raises ModelError, UsageError, LabelsError."""
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
    if plain_heads and not request.embedding and not _plain_head(graph):
        say(f"the head of {model.name} is more than one layer: it is left to the CPU, as with --embedding")
        request = replace(request, embedding=True)
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
    return Source(model, stem, content, *scaling, pictures, inputs, outputs, request.embedding)


def _plain_head(graph: Graph) -> bool:
    """Whether one layer, and at most a softmax, follows the last average pool, or there is none to cut at."""
    place = last_pool(graph.main.operators)
    head = [] if place is None else [one.kind for one in graph.main.operators[place + 1 :]]
    return sum(map(head.count, _LAYERS)) <= 1 and set(head) <= _PLAIN


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
