"""What Google's Edge TPU compiler asks of a model, checked before anyone compiles.

Source: "TensorFlow models on the Edge TPU" (coral.ai/docs/edgetpu/models-intro), model requirements and table 1. The
compiler's own judgement is more than its documentation: see `edgetpu_compiler` for what it really did.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.errors import ModelError
from edge_mnv2.tflite.graph import read
from edge_mnv2.tflite.ir import ACTIVATION_NONE, Graph, Operator, Tensor
from edge_mnv2.tflite.model_file import EDGETPU_OP

OPERATORS = frozenset((
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS", "FULLY_CONNECTED",
    "L2_NORMALIZATION", "LOGISTIC", "LSTM", "MAX_POOL_2D", "MAXIMUM", "MEAN", "MINIMUM", "MUL", "PACK", "PAD",
    "PADV2", "PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE",
    "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT",
    "SQUARED_DIFFERENCE", "SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TRANSPOSE", "TRANSPOSE_CONV",
))  # fmt: skip
INNERMOST = 3
"""Only so many innermost dimensions of an activation may be greater than 1."""

SOFTMAX_ELEMENTS = 16_000
_EIGHT_BITS = ("int8", "uint8")
_NO_FUSED_ACTIVATION = ("AVERAGE_POOL_2D", "CONCATENATION", "MAX_POOL_2D")
_CONSTANT_PARAMETERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


@dataclass(frozen=True)
class Verdict:
    """Whether the compiler would take a model, by its documentation.

    `operators` counts those of the model, `mapped` those that would run on the Edge TPU: one run of supported
    operators, because the compiler makes a single piece and leaves everything behind it to the CPU. `problems` says why
    the others would not.
    """

    operators: int
    mapped: int
    problems: tuple[str, ...]

    @property
    def compiles(self) -> bool:
        """Whether anything would run on the Edge TPU."""
        return self.mapped > 0


def verdict(graph: Graph) -> Optional[Verdict]:
    """What the compiler would make of `graph`; None where it is compiled already."""
    if any(operator.name == EDGETPU_OP for operator in graph.operators):
        return None
    reasons = [operator_problem(operator) for operator in graph.operators]
    mapped, position = 0, 0
    while position < len(reasons) and reasons[position] is not None:
        position += 1
    while position < len(reasons) and reasons[position] is None:
        mapped, position = mapped + 1, position + 1
    several = [f"{len(graph.subgraphs)} subgraphs instead of one"] if len(graph.subgraphs) != 1 else []
    counted = Counter(reason for reason in reasons if reason is not None)
    problems = several + [f"{reason} ({count} times)" if count > 1 else reason for reason, count in counted.items()]
    if any(reason is None for reason in reasons[position:]):
        problems.append("operators behind the first of these run on the CPU too")
    return Verdict(len(reasons), 0 if several else mapped, tuple(problems))


def operator_problem(operator: Operator) -> Optional[str]:
    """Why `operator` cannot run on the Edge TPU, None where it can."""
    if operator.name not in OPERATORS:
        return f"operator {operator.name} is not supported"
    for tensor in (*(source for source in operator.inputs if source is not None), *operator.outputs):
        problem = _tensor_problem(operator, tensor)
        if problem is not None:
            return f"{operator.name} {problem}"
    return _own_limit(operator)


def _tensor_problem(operator: Operator, tensor: Tensor) -> Optional[str]:
    if tensor.dynamic:
        return "works on a tensor without a fixed size"
    if tensor.data is not None:
        return "has floating-point parameters" if tensor.dtype.startswith(("float", "bfloat")) else None
    if tensor.dtype not in _EIGHT_BITS:
        return f"works on {tensor.dtype}, not on 8-bit integers"
    if not tensor.quantized:
        return "works on a tensor without quantization"
    if any(size > 1 for size in tensor.shape[:-INNERMOST]):
        return f"works on a tensor of shape {list(tensor.shape)}: only the {INNERMOST} innermost may be above 1"
    if operator.kind in _CONSTANT_PARAMETERS and tensor in operator.inputs[1:]:
        return "has parameters that are computed, not constant"
    return None


def _own_limit(operator: Operator) -> Optional[str]:
    fused = operator.options.get("fused_activation_function", ACTIVATION_NONE)
    if operator.kind in _NO_FUSED_ACTIVATION and fused != ACTIVATION_NONE:
        return f"{operator.name} with a fused activation"
    source = operator.inputs[0] if operator.inputs else None
    if operator.kind == "SOFTMAX" and source is not None and source.shape and source.shape[-1] > SOFTMAX_ELEMENTS:
        return f"SOFTMAX of {source.shape[-1]} values: at most {SOFTMAX_ELEMENTS}"
    if operator.kind in ("MEAN", "PAD") and source is not None:
        along = _axes(operator, len(source.shape))
        if along is not None and any(axis == 0 for axis in along) and len(source.shape) == 4:
            return f"{operator.name} along the batch"
    return None


def _axes(operator: Operator, rank: int) -> Optional[set[int]]:
    """The axes that a reduction or padding changes, None where they are not constant."""
    axes = operator.inputs[1] if len(operator.inputs) > 1 else None
    if axes is None or axes.data is None:
        return None
    try:
        values = axes.array()
    except ModelError:
        return None
    if operator.kind == "PAD":
        return {axis for axis, around in enumerate(values) if around.any()}
    return {int(axis) % rank for axis in values.reshape(-1)} if rank else set()


def check(model: bytes) -> None:
    """Raises ModelError with the first reasons why not all of `model` would run on the Edge TPU."""
    judgement = verdict(read(model))
    if judgement is not None and judgement.problems:
        more = f" and {len(judgement.problems) - 3} more" if len(judgement.problems) > 3 else ""
        raise ModelError(f"the model cannot be compiled for the Edge TPU: {'; '.join(judgement.problems[:3])}{more}")
