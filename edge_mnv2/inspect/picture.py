"""A model file, or a network that is not built, as an SVG picture.

One row is one operator in execution order; shortcuts are lanes beside them.

Written without a drawing library on purpose. What computes a layout for graphs (Graphviz, ELK, dagre) needs a binary or
a browser engine that boards do not have; drawing packages in pure Python only spell the tags, and the layout is what
matters here. A network of this kind is a chain with shortcuts, for which rows and lanes can be read at any length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Optional
from xml.sax.saxutils import escape, quoteattr

from edge_mnv2.inspect.inspection import Inspection, printable, shown_shape
from edge_mnv2.network.blocks import Convolution, Layer, Linear
from edge_mnv2.network.network import Network
from edge_mnv2.tflite.ir import Tensor

ROW, BOX, GAP, LANE = 32, 22, 16, 14
_CHARACTER = 6.7
_BAR = 150
_NEXT, _SHORTCUT = "#495057", "#e8590c"

COLOURS = {
    "convolution": "#cfe2ff",
    "depthwise": "#b8ecd9",
    "matrix product": "#dcd3ff",
    "addition": "#ffd8a8",
    "pooling": "#d8f5a2",
    "quantization": "#fcc2d7",
    "custom": "#ffa8a8",
    "border": "#ffffff",
    "other": "#e9ecef",
}


@dataclass(frozen=True)
class PictureRow:
    """One box and what stands beside it. `macs` draws the bar; `tip` shows where the pointer rests."""

    label: str
    shape: str = ""
    parameters: Optional[int] = None
    macs: Optional[int] = None
    kind: str = "other"
    tip: str = ""


def draw(title: str, subtitle: str, rows: Sequence[PictureRow], edges: Iterable[tuple[int, int]]) -> str:
    """The picture. `edges` are (from row, to row), downwards."""
    lanes = _lanes(edges)
    lane_count = 1 + max((lane for _, _, lane in lanes), default=-1)
    left = GAP + lane_count * LANE + GAP
    box_width = max((len(row.label) for row in rows), default=0) * _CHARACTER + 2 * GAP
    shape_x = left + box_width + GAP
    number_x = shape_x + max((len(row.shape) for row in rows), default=0) * _CHARACTER + 90
    bar_x = number_x + GAP
    width = bar_x + _BAR + 120
    top = 96
    height = top + len(rows) * ROW + GAP
    centre = left + min(box_width / 2, 90)
    total = sum(row.macs or 0 for row in rows) or 1
    most = max((row.macs or 0 for row in rows), default=0) or 1

    def y(row: int) -> float:
        return top + row * ROW + ROW / 2

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label={quoteattr(title)} '
        'font-family="DejaVu Sans, Verdana, Arial, sans-serif" font-size="11">',
        f"<defs>{_arrowhead('next', _NEXT)}{_arrowhead('shortcut', _SHORTCUT)}</defs>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{GAP}" y="26" font-size="16" font-weight="bold">{escape(title)}</text>',
        f'<text x="{GAP}" y="45" fill="#495057">{escape(subtitle)}</text>',
        _legend(rows),
        f'<g fill="#868e96"><text x="{shape_x:.0f}" y="{top - 4}">output</text>'
        f'<text x="{number_x:.0f}" y="{top - 4}" text-anchor="end">parameters</text>'
        f'<text x="{bar_x:.0f}" y="{top - 4}">multiply-accumulates</text></g>',
    ]
    for start, ends, lane in lanes:
        parts.append(_edge(start, ends, lane, left, centre, y))
    for position, row in enumerate(rows):
        middle = y(position)
        parts.append(
            f"<g><title>{escape(row.tip or row.label)}</title>"
            f'<rect x="{left}" y="{middle - BOX / 2}" width="{box_width:.0f}" height="{BOX}" rx="4" '
            f'fill="{COLOURS.get(row.kind, COLOURS["other"])}" stroke="#868e96"/>'
            f'<text x="{left + 8}" y="{middle + 4}">{escape(row.label)}</text>'
            f'<text x="{shape_x:.0f}" y="{middle + 4}">{escape(row.shape)}</text>'
        )
        if row.parameters:
            parts.append(f'<text x="{number_x:.0f}" y="{middle + 4}" text-anchor="end">{row.parameters:,}</text>')
        if row.macs:
            parts.append(
                f'<rect x="{bar_x:.0f}" y="{middle - 5}" width="{max(1, _BAR * row.macs / most):.1f}" height="10" '
                f'fill="#748ffc"/><text x="{bar_x + _BAR * row.macs / most + 6:.1f}" y="{middle + 4}">'
                f"{scaled(row.macs)} ({row.macs / total:.1%})</text>"
            )
        elif row.macs is None and row.kind != "border":
            parts.append(f'<text x="{bar_x:.0f}" y="{middle + 4}" fill="#868e96">unknown</text>')
        parts.append("</g>")
    parts.append("</svg>\n")
    return "\n".join(parts)


def scaled(number: float) -> str:
    """1234567 → "1.23 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            value = number / size
            return f"{value:.{1 if value >= 10 else 2}f} {unit}"
    return f"{number:g}"


def _lanes(edges: Iterable[tuple[int, int]]) -> list[tuple[int, list[int], int]]:
    """(from row, to rows, lane); lane -1 is the straight way to the next row, 0 the lane next to the boxes.

    Short ways get the inner lanes, and two ways share a lane where they do not overlap.
    """
    targets: dict[int, list[int]] = {}
    ways = []
    for start, end in sorted(set(edges)):
        if end == start + 1:
            ways.append((start, [end], -1))
        else:
            targets.setdefault(start, []).append(end)
    taken: list[list[tuple[int, int]]] = []
    for start, ends in sorted(targets.items(), key=lambda item: (max(item[1]) - item[0], item[0])):
        low, high = min(start, *ends), max(start, *ends)
        lane = next((n for n, spans in enumerate(taken) if all(high <= a or low >= b for a, b in spans)), len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((low, high))
        ways.append((start, ends, lane))
    return ways


def _arrowhead(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
    )


def _edge(start: int, ends: Sequence[int], lane: int, left: float, centre: float, y: Callable[[int], float]) -> str:
    if lane < 0:
        line = f"M{centre:.0f} {y(start) + BOX / 2}V{y(ends[0]) - BOX / 2}"
        return f'<path d="{line}" fill="none" stroke="{_NEXT}" marker-end="url(#next)"/>'
    x = left - GAP - lane * LANE
    return "".join(
        f'<path d="M{left} {y(start) + 4}H{x + 4}q-4 0 -4 4V{y(end) - 8}q0 4 4 4H{left}" fill="none" '
        f'stroke="{_SHORTCUT}" stroke-width="1.4" marker-end="url(#shortcut)"/>'
        for end in ends
    )


def _legend(rows: Sequence[PictureRow]) -> str:
    x, parts = GAP, []
    for kind in (kind for kind in COLOURS if kind != "border" and any(row.kind == kind for row in rows)):
        parts.append(
            f'<rect x="{x}" y="58" width="12" height="12" rx="2" fill="{COLOURS[kind]}" stroke="#868e96"/>'
            f'<text x="{x + 17}" y="68">{kind}</text>'
        )
        x += 17 + int(len(kind) * _CHARACTER) + 18
    return "".join(parts)


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
