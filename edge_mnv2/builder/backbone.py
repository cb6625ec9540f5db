"""The part of a classifier that looks: everything up to a layer whose values are the embedding.

To tell classes that layer is the global average pool. A measured value often depends on where something is (a pointer,
a level), which an average over the whole picture cannot say: for values there are the maps further up too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from edge_mnv2.board.accelerators import compiled_for, rows
from edge_mnv2.errors import ModelError
from edge_mnv2.tflite.ir import PIXELS, Graph, Operator, Tensor, last_pool

_RESHAPES = ("RESHAPE", "SQUEEZE")
_LINEAR = ("FULLY_CONNECTED", "CONV_2D")
_LARGEST_MAP = 40_000
_MOST_MAPS = 4
_SAME_SCALE = 1e-5


@dataclass(frozen=True)
class Classes:
    """The linear layer that a classifier was published with: float64 `weights` (classes, size), `bias` (classes,)."""

    weights: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Backbone:
    """A graph whose only output is `embedding`: int8 or uint8, `size` values, a batch of one.

    `classes` is the classifier that was cut off; None where there was none, or none that is linear in the embedding.
    """

    graph: Graph
    embedding: Tensor
    classes: Optional[Classes] = None

    @property
    def size(self) -> int:
        return int(np.prod(self.embedding.shape))

    @property
    def scale(self) -> float:
        """Real embedding = scale * (q - zero_point)."""
        assert self.embedding.quantization is not None
        return float(self.embedding.quantization.scale[0])

    @property
    def zero_point(self) -> int:
        assert self.embedding.quantization is not None
        return int(self.embedding.quantization.zero_point[0])


def cut(graph: Graph, name: str = "the model", at: Optional[int] = None) -> Backbone:
    """Take the classifier off `graph`, which is changed: what follows the operator `at` goes (one of `layers`; None:
    the last global average pool).

    Labels, metadata and signatures described the old output and go as well. Raises ModelError, which calls the file
    `name`, where there is no such pool or where it is not an integer model.
    """
    main = graph.main
    place = last_pool(main.operators) if at is None else at
    if place is None:
        if row := compiled_for(filter(None, (operator.custom_code for operator in main.operators))):
            raise ModelError(
                f"{name} is compiled for the {row.product} {row.title}: its layers cannot be seen any more",
                hint=f"teach the same model without _{row.name} in its name",
            )
        raise ModelError(f"{name} has no global average pool before its answer", hint="teach a picture classifier")
    if len(main.inputs) != 1:
        raise ModelError(f"{name} has {len(main.inputs)} inputs: it is no picture classifier")
    embedding = main.operators[place].outputs[0]
    if embedding.dtype not in ("int8", "uint8") or not embedding.quantized:
        raise ModelError(f"{name} is a {embedding.dtype} model inside", hint="teach a full-integer int8 or uint8 model")
    classes = _classes(main.operators[place + 1 :], embedding)
    keep_only(graph, [embedding])
    return Backbone(graph, embedding, classes)


def compiled_like(compiled: Graph, original: Backbone, name: str = "the compiled model") -> Backbone:
    """`compiled`, an embedding extractor for an accelerator, in the place of the backbone that it was compiled from.

    Its output must be the original's embedding, in the same integers. Raises ModelError, which calls the file `name`.
    """
    main = compiled.main
    output = main.outputs[0] if len(main.outputs) == 1 else None
    if compiled_for(filter(None, (operator.custom_code for operator in main.operators))) is None:
        devices = " or ".join(f"the {one.product} {one.title}" for one in rows() if one.operator)
        raise ModelError(f"{name} is not compiled for {devices}", hint="see `edge-mnv2 compile`")
    backbone = Backbone(compiled, output, original.classes) if output is not None and output.quantized else None
    if backbone is None or backbone.size != original.size:
        raise ModelError(f"{name} does not end in the {original.size} values of the backbone's embedding")
    same = (backbone.embedding.dtype, backbone.zero_point) == (original.embedding.dtype, original.zero_point)
    if not same or abs(backbone.scale / original.scale - 1) > _SAME_SCALE:
        raise ModelError(
            f"{name} has its embedding in other integers than the backbone: it was compiled from another model",
            hint="compile the backbone itself, cut at its average pool",
        )
    compiled.signatures, compiled.archive = [], b""
    return backbone


def layers(graph: Graph) -> list[int]:
    """Places of the operators whose outputs can be an embedding: the last of each size of map between an eighth and a
    thirty-second of the picture, then the global average pool."""
    operators = graph.main.operators
    pool = last_pool(operators)
    side = graph.inputs[0].shape[1] if graph.inputs and len(graph.inputs[0].shape) == 4 else 0
    last: dict[tuple[int, ...], int] = {}
    for place, operator in enumerate(operators[:pool]):
        shape = operator.outputs[0].shape
        if operator.kind in ("ADD", "CONV_2D") and len(shape) == 4 and int(np.prod(shape)) <= _LARGEST_MAP:
            if side and 8 <= round(side / shape[1]) <= 32:
                # The sum at the end of a block says more than the narrow layer before it.
                if operator.kind == "ADD" or operators[last.get(shape, place)].kind != "ADD":
                    last[shape] = place
    sums = [place for place in last.values() if operators[place].kind == "ADD"]
    return sorted(sums or last.values())[-_MOST_MAPS:] + ([pool] if pool is not None else [])


def keep_only(graph: Graph, outputs: list[Tensor]) -> None:
    """Make `outputs` those of `graph`, which is changed, and drop what they do not need."""
    main = graph.main
    main.operators = _needed(main.operators, outputs)
    main.outputs = outputs
    main.drop_unused()
    graph.subgraphs = [main]
    graph.signatures, graph.archive = [], b""
    graph.metadata = {key: value for key, value in graph.metadata.items() if key in ("min_runtime_version", PIXELS)}


def _classes(following: list[Operator], embedding: Tensor) -> Optional[Classes]:
    """The widest linear layer that takes the embedding, as it is or reshaped."""
    same = {id(embedding)}
    layers: list[Classes] = []
    for operator in following:
        source = operator.inputs[0] if operator.inputs else None
        if source is None or id(source) not in same:
            continue
        if operator.kind in (*_RESHAPES, "QUANTIZE"):
            same.add(id(operator.outputs[0]))
        elif operator.kind in _LINEAR and operator.inputs[1] is not None and operator.inputs[1].data is not None:
            weights = operator.inputs[1].real()
            bias = operator.inputs[2] if len(operator.inputs) > 2 else None
            rows = weights.shape[0]
            if weights.size == rows * int(np.prod(embedding.shape)):
                layers.append(Classes(weights.reshape(rows, -1), np.zeros(rows) if bias is None else bias.real()))
    return max(layers, key=lambda classes: len(classes.bias), default=None)


def _needed(operators: list[Operator], outputs: list[Tensor]) -> list[Operator]:
    """The operators that `outputs` depend on, in their order."""
    wanted = {id(output) for output in outputs}
    needed: list[Operator] = []
    for operator in reversed(operators):
        if any(id(tensor) in wanted for tensor in operator.outputs):
            needed.append(operator)
            wanted |= {id(tensor) for tensor in operator.inputs if tensor is not None}
    return needed[::-1]
