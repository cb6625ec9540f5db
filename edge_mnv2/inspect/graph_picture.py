"""The rows and edges of a picture: of a model file, and of our network's layers."""

from __future__ import annotations

from collections.abc import Sequence

from edge_mnv2.inspect.inspection import Inspection, printable, shown_shape
from edge_mnv2.inspect.picture import PictureRow, draw, scaled
from edge_mnv2.network.layers import Convolution, Layer, Linear
from edge_mnv2.network.network import Network
from edge_mnv2.tflite.ir import Tensor

_KINDS = {
    "CONV_2D": "convolution",
    "CONV_3D": "convolution",
    "TRANSPOSE_CONV": "convolution",
    "DEPTHWISE_CONV_2D": "depthwise",
    "FULLY_CONNECTED": "matrix product",
    "BATCH_MATMUL": "matrix product",
    "ADD": "addition",
    "AVERAGE_POOL_2D": "pooling",
    "MAX_POOL_2D": "pooling",
    "MEAN": "pooling",
    "QUANTIZE": "quantization",
    "DEQUANTIZE": "quantization",
}


def shape_text(shape: Sequence[int]) -> str:
    """ "1x224x224x3"; "?" for a dynamic dimension, "scalar" for no dimension."""
    return "x".join("?" if n < 0 else str(n) for n in shape) or "scalar"


def model_picture(inspection: Inspection) -> str:
    """SVG of the first subgraph of a model file."""
    main = inspection.graph.main
    rows: list[PictureRow] = []
    makers: dict[int, int] = {}
    edges: list[tuple[int, int]] = []

    def border(word: str, tensor: Tensor) -> PictureRow:
        return PictureRow(
            word, f"{shape_text(shown_shape(tensor))} {tensor.dtype}", kind="border", tip=printable(tensor.name)
        )

    for tensor in main.inputs:
        makers[id(tensor)] = len(rows)
        rows.append(border("input", tensor))
    layers = [layer for layer in inspection.layers if layer.subgraph == 0]
    for layer, operator in zip(layers, main.operators):
        position = len(rows)
        edges += [
            (makers[id(tensor)], position) for tensor in operator.inputs if tensor is not None and id(tensor) in makers
        ]
        rows.append(
            PictureRow(
                label=f"{layer.operator} {layer.detail}".strip(),
                shape=f"{shape_text(layer.shape)} {layer.dtype}",
                parameters=layer.parameters,
                macs=layer.macs,
                kind="custom" if operator.kind == "CUSTOM" else _KINDS.get(operator.kind, "other"),
                tip=f"{layer.index}: {layer.name}",
            )
        )
        makers.update((id(tensor), position) for tensor in operator.outputs)
    for tensor in main.outputs:
        if id(tensor) in makers:
            edges.append((makers[id(tensor)], len(rows)))
        rows.append(border("output", tensor))
    return draw(printable(inspection.file.rpartition("/")[2]), _subtitle(inspection), rows, edges)


def _subtitle(inspection: Inspection) -> str:
    cost = "unknown" if inspection.macs is None else scaled(inspection.macs)
    size = "unknown" if inspection.parameters is None else scaled(inspection.parameters)
    return f"{inspection.quantization}; {cost} multiply-accumulates, {size} parameters, {scaled(inspection.bytes)}B"


def network_picture(network: Network) -> str:
    """SVG of a network that is not built yet: one row a layer, with the shortcuts of its blocks."""
    rows = [PictureRow("picture", shape_text(network.input), kind="border")]
    edges = []
    for block in network.blocks:
        entry = len(rows) - 1
        for layer in block.path:
            edges.append((len(rows) - 1, len(rows)))
            rows.append(_layer_row(layer))
        if block.shortcut is None:
            continue
        source = entry
        joined = len(rows) - 1
        for layer in block.shortcut:
            edges.append((source, len(rows)))
            source = len(rows)
            rows.append(_layer_row(layer))
        edges += [(joined, len(rows)), (source, len(rows))]
        rows.append(PictureRow("add", shape_text(block.output), 0, 0, "addition"))
    subtitle = f"{scaled(network.macs)} multiply-accumulates, {scaled(network.parameters)} parameters"
    return draw(network.name, subtitle, rows, edges)


def _layer_row(layer: Layer) -> PictureRow:
    if isinstance(layer, Convolution):
        word, kind = ("depthwise conv", "depthwise") if layer.depthwise else ("conv", "convolution")
        words = [word, f"{layer.kernel}x{layer.kernel}"]
        words += [f"/{layer.stride}"] if layer.stride > 1 else []
        words += [layer.activation] if layer.activation != "linear" else []
    elif isinstance(layer, Linear):
        words, kind = ["fully connected"], "matrix product"
    else:
        words, kind = [f"{layer.kind} pool {layer.input[0]}x{layer.input[1]}"], "pooling"
    return PictureRow(" ".join(words), shape_text(layer.output), layer.parameters, layer.macs, kind, layer.name)
