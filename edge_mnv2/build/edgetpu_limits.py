"""What Google's Edge TPU compiler asks of a model, as its documentation lists it, checked before anyone compiles."""

from __future__ import annotations

from edge_mnv2.build.graph import read
from edge_mnv2.errors import ModelError

OPERATORS = frozenset(
    (
        "ADD",
        "AVERAGE_POOL_2D",
        "CONCATENATION",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "EXPAND_DIMS",
        "FULLY_CONNECTED",
        "L2_NORMALIZATION",
        "LOGISTIC",
        "LSTM",
        "MAX_POOL_2D",
        "MAXIMUM",
        "MEAN",
        "MINIMUM",
        "MUL",
        "PACK",
        "PAD",
        "PADV2",
        "PRELU",
        "QUANTIZE",
        "REDUCE_MAX",
        "REDUCE_MIN",
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "RSQRT",
        "SLICE",
        "SOFTMAX",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "SQUARED_DIFFERENCE",
        "SQUEEZE",
        "STRIDED_SLICE",
        "SUB",
        "SUM",
        "TANH",
        "TRANSPOSE",
        "TRANSPOSE_CONV",
    )
)
MAX_DIMENSIONS = 5


def problems(model: bytes) -> list[str]:
    """Why the compiler would refuse `model` or leave parts on the CPU; empty where nothing was found."""
    graph = read(model)
    found = []
    if len(graph.subgraphs) != 1:
        found.append(f"{len(graph.subgraphs)} subgraphs instead of one")
    for operator in graph.operators:
        if operator.name not in OPERATORS:
            found.append(f"operator {operator.name} is not supported")
    for tensor in graph.main.tensors:
        if tensor.dynamic:
            found.append(f"tensor '{tensor.name}' has no fixed size")
        if len(tensor.shape) > MAX_DIMENSIONS:
            found.append(f"tensor '{tensor.name}' has {len(tensor.shape)} dimensions")
        if tensor.dtype not in ("int8", "uint8", "int32"):
            found.append(f"tensor '{tensor.name}' is {tensor.dtype}, not an integer")
        elif tensor.dtype in ("int8", "uint8") and not tensor.quantized and tensor.data is None:
            found.append(f"tensor '{tensor.name}' is not quantized")
    return list(dict.fromkeys(found))


def check_edgetpu(model: bytes) -> None:
    """Raises ModelError with the first reasons why `model` cannot be compiled for the Edge TPU."""
    found = problems(model)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ModelError(f"the model cannot be compiled for the Edge TPU: {'; '.join(found[:3])}{more}")
