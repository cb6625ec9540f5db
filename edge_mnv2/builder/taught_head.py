"""Append a new head to a backbone, in integers: linear rows with softmax, a row for "unknown", or a measured value.

The row for "unknown" is part of the graph, so that every runtime and every command gives it without further rules:

    embedding → linear → logits ────────────────────────────┬→ concatenation → softmax
        │                  └→ maximum ─────────→ addition ──┘
        └→ linear, ReLU → L2 norm → products with prototypes → maximum → slope * (threshold - x) ─┘

Its logit is the best class's logit plus `slope * (threshold - familiarity)`: it wins exactly where the picture is less
familiar than the threshold.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Optional

import numpy as np

from edge_mnv2.builder.backbone import Backbone
from edge_mnv2.builder.float_heads import (
    ClassHead,
    Familiarity,
    Linear,
    Unknown,
    ValueHead,
    cell_states,
    unit_evidence,
)
from edge_mnv2.builder.quantization import affine, weight_scale
from edge_mnv2.tflite.ir import (
    ACTIVATION_NONE,
    ACTIVATION_RELU,
    PADDING_VALID,
    Graph,
    Operator,
    Quantization,
    Signature,
    Subgraph,
    Tensor,
)

_HEADROOM = 6.5
"""Logits above the best taught one that must still be told apart, for the row of "unknown"."""
_SMALL_SHARE = 0.3
_DEPTH = 8.0
"""Logits so far below a picture's best add less than e^-8 to a softmax, whose smallest step is 1/256."""
_MOST_PENALTY = 12.0


def append_classifier(
    backbone: Backbone, head: ClassHead, embeddings: np.ndarray, unknown: Optional[Unknown] = None
) -> None:
    """Add `head`, the row of `unknown` where there is one, and a softmax to the backbone's graph, which is changed.

    `embeddings` float (pictures, size) are those that it was taught with: they set the ranges of the integers.
    """
    chain = _Chain(backbone)
    logits = head(embeddings)
    top = float(np.max(logits)) + 0.1 * float(np.ptp(logits)) + (_HEADROOM if unknown else 0.5)
    # The least sure picture decides: where all of its logits are cut off, its classes cannot be told apart any more.
    low = max(float(np.min(logits)) - 0.1 * float(np.ptp(logits)), float(np.min(logits.max(axis=1))) - _DEPTH)
    scale = affine(low, top)
    numbers = Quantization.per_tensor(scale.scale, scale.zero_point)
    answer = chain.class_logits(head, embeddings, numbers)
    if unknown is not None:
        best = chain.maximum("logits.best", answer)
        kin = chain.familiarity(unknown.familiarity, embeddings)
        less = Linear(np.array([[-unknown.slope]]), np.array([unknown.slope * unknown.threshold]))
        steps = max(abs(unknown.slope * unknown.threshold), abs(unknown.slope * (unknown.threshold - 1)))
        penalty = chain.linear("unknown.margin", kin, less, Quantization.per_tensor(min(steps, _MOST_PENALTY) / 127))
        row = chain.add("ADD", [best, penalty], "unknown", (1, 1), numbers, "AddOptions", 2, **_PLAIN)
        rows = (1, len(head.linear.bias) + 1)
        joined = {"axis": 1, **_PLAIN}
        answer = chain.add(
            "CONCATENATION", [answer, row], "scores.logits", rows, numbers, "ConcatenationOptions", 2, **joined
        )
    shares = Quantization.per_tensor(1 / 256, -128)
    chain.finish(chain.add("SOFTMAX", [answer], "scores", answer.shape, shares, "SoftmaxOptions", 2, beta=1.0))


def append_value(backbone: Backbone, head: ValueHead, embeddings: np.ndarray, low: float, high: float) -> None:
    """Add `head` to the backbone's graph, whose output is a value from `low` to `high` in its unit.

    The integer output divides that range into 255 steps; values beyond it are cut off there.
    """
    chain = _Chain(backbone)
    # Unlike `affine`, the range need not hold 0: a value around 1000 keeps all of its steps.
    step = (high - low) / 255
    zero = round(-128 - low / step)
    apart = not -128 <= zero <= 127
    # Runtimes take no zero point outside int8: then int8 counts from the lowest value, and int32 adds that.
    numbers = Quantization.per_tensor(step, -128 if apart else zero)
    lowest = round(low / step) if apart else 0
    name = "value.above" if apart else "value"
    source, inputs, linear = chain.embedding, embeddings, head.linear
    if head.states is not None:
        source, inputs = chain.cell_states(head.states), cell_states(head.states, embeddings)
    above = Linear(linear.weights, linear.bias - lowest * step)
    rest = rounded_off(above)
    center = inputs.mean(axis=0)
    missing = (inputs - center) @ rest.T
    most = float(np.abs(missing).max())
    if most <= _SMALL_SHARE * step:
        answer = chain.linear(name, source, above, numbers, center)
    else:
        # Where rounding the weights costs more than the output's steps, what was rounded off is a second, finer row.
        coarse = chain.linear("value.coarse", source, above, numbers, center)
        fine = Linear(rest, -rest @ center)
        finer = chain.linear("value.fine", source, fine, Quantization.per_tensor(1.5 * most / 127), center)
        answer = chain.add("ADD", [coarse, finer], name, (1, 1), numbers, "AddOptions", 2, **_PLAIN)
    chain.finish(chain.lifted("value", answer, lowest + 128) if apart else answer)


def _row_scales(rows: Linear, source: Tensor) -> np.ndarray:
    """The scale of each row's int8 weights (rows,)."""
    assert source.quantization is not None
    largest = np.maximum(rows.weights.max(axis=1), -rows.weights.min(axis=1))
    return weight_scale(largest, rows.bias, float(source.quantization.scale[0])).astype(np.float64)


def rounded_off(rows: Linear) -> np.ndarray:
    """The weights (rows, size) that int8 with one scale a row leaves out."""
    scale = np.maximum(np.abs(rows.weights).max(axis=1, keepdims=True), 1e-30) / 127
    return rows.weights - np.rint(rows.weights / scale) * scale


def head_alone(backbone: Backbone, *also: str) -> Graph:
    """Only what was appended to `backbone`: from the embedding's integers to the output, then the tensors named `also`.

    It runs the same integer kernels as the whole model, at a thousandth of the work.
    """
    main = backbone.graph.main
    place = next(at for at, operator in enumerate(main.operators) if backbone.embedding in operator.outputs)
    operators = main.operators[place + 1 :]
    known = {tensor.name: tensor for operator in operators for tensor in operator.outputs}
    outputs = [*main.outputs, *(known[name] for name in also)]
    alone = Subgraph([], [backbone.embedding], outputs, operators, "head")
    alone.drop_unused()
    return Graph([alone], "head")


_PLAIN = {"fused_activation_function": ACTIVATION_NONE}


class _Chain:
    """Operators after the embedding."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._graph = backbone.graph
        source = backbone.embedding
        if source.dtype == "uint8":
            # The same steps, counted from -128: nothing is rounded.
            numbers = Quantization.per_tensor(backbone.scale, backbone.zero_point - 128)
            source = self.add("QUANTIZE", [source], "embedding.int8", source.shape, numbers, "QuantizeOptions", 1)
        self._source = source
        self._unit: Optional[tuple[Optional[Linear], Tensor]] = None

    @cached_property
    def embedding(self) -> Tensor:
        """The embedding as one row."""
        return self.row("embedding", self._source)

    def row(self, name: str, source: Tensor) -> Tensor:
        """`source` in the shape (1, size)."""
        if len(source.shape) == 2:
            return source
        shape = (1, math.prod(source.shape))
        target = Tensor.constant(f"{name}.shape", np.array(shape, np.int32))
        numbers = source.quantization or Quantization.per_tensor(1.0)
        options = {"new_shape": np.array(shape, np.int32)}
        return self.add("RESHAPE", [source, target], name, shape, numbers, "ReshapeOptions", 1, **options)

    def cell_states(self, states: Linear) -> Tensor:
        """The state of each cell of the backbone's map, one row: int8 saturates at 0 and 1, as they are meant."""
        kernel = (1, 1, 1, states.weights.shape[1])
        constants = self._constants("states", self._source, states, states.bias, kernel)
        shape = (*self._source.shape[:3], 1)
        numbers = Quantization.per_tensor(1 / 255, -128)
        options = {"padding": PADDING_VALID, "stride_w": 1, "stride_h": 1, **_PLAIN}
        cells = self.add("CONV_2D", [self._source, *constants], "states", shape, numbers, "Conv2DOptions", 3, **options)
        return self.row("states.row", cells)

    def add(
        self,
        kind: str,
        inputs: list[Tensor],
        name: str,
        shape: tuple[int, ...],
        numbers: Quantization,
        table: str,
        version: int,
        **options: Any,
    ) -> Tensor:
        """One operator and the int8 tensor that it makes."""
        output = Tensor(name, shape, "int8", None, numbers)
        self._graph.main.operators.append(Operator(kind, list(inputs), [output], table, options, version))
        return output

    def lifted(self, name: str, source: Tensor, steps: int) -> Tensor:
        """`source` in int32, `steps` of its own scale higher; its zero is 0."""
        assert source.quantization is not None
        numbers = Quantization.per_tensor(float(source.quantization.scale[0]))
        wide = self.add("CAST", [source], f"{name}.steps", source.shape, numbers, "CastOptions", 1)
        wide.dtype = "int32"
        lowest = Tensor.constant(f"{name}.lowest", np.full(source.shape, steps, np.int32), numbers)
        answer = self.add("ADD", [wide, lowest], name, source.shape, numbers, "AddOptions", 1, **_PLAIN)
        answer.dtype = "int32"
        return answer

    def center(self, embeddings: np.ndarray) -> np.ndarray:
        """The mean embedding: rounded weights are corrected so that they are right there."""
        return embeddings.mean(axis=0)

    def linear(
        self,
        name: str,
        source: Tensor,
        rows: Linear,
        numbers: Quantization,
        center: Optional[np.ndarray] = None,
        activation: int = ACTIVATION_NONE,
    ) -> Tensor:
        """A fully connected layer."""
        scale = _row_scales(rows, source)
        missing = rows.weights / scale[:, None]
        missing -= np.rint(missing)  # in place: the evidence of a thousand classes is the largest array of a lesson
        bias = rows.bias if center is None else rows.bias + (missing @ center) * scale
        weights, constant = self._constants(name, source, rows, bias, rows.weights.shape)
        return self.add(
            "FULLY_CONNECTED",
            [source, weights, constant],
            name,
            (1, len(bias)),
            numbers,
            "FullyConnectedOptions",
            4,
            fused_activation_function=activation,
        )

    def _constants(
        self, name: str, source: Tensor, rows: Linear, bias: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """int8 weights of that shape, symmetric with one scale a row, and an int32 bias."""
        assert source.quantization is not None
        scale = _row_scales(rows, source)
        whole = np.rint(rows.weights / scale[:, None]).astype(np.int8).reshape(shape)
        steps = float(source.quantization.scale[0]) * scale
        limit = 2**31 - 1
        whole_bias = np.clip(np.rint(bias / steps), -limit, limit).astype(np.int32)
        weights = Tensor.constant(f"{name}.weights", whole, Quantization.per_channel(scale, 0))
        return weights, Tensor.constant(f"{name}.bias", whole_bias, Quantization.per_channel(steps, 0))

    def maximum(self, name: str, source: Tensor) -> Tensor:
        """The largest value of a row; it keeps the row's quantization, as the kernel demands."""
        assert source.quantization is not None
        axes = Tensor.constant(f"{name}.axes", np.array([1], np.int32))
        options = {"keep_dims": True}
        return self.add("REDUCE_MAX", [source, axes], name, (1, 1), source.quantization, "ReducerOptions", 2, **options)

    def class_logits(self, head: ClassHead, embeddings: np.ndarray, numbers: Quantization) -> Tensor:
        """The logits of `head`: one linear layer, or the sum of one on the embedding and one on the evidence."""
        center = self.center(embeddings)
        if head.weights is None:
            return self.linear("logits", self.embedding, head.linear, numbers, center)
        source = self.unit_evidence(head.evidence, embeddings)
        unit = unit_evidence(head.evidence, embeddings)
        both = Linear(head.weights, np.zeros(len(head.weights)))
        parts = []
        for name, tensor, rows, inputs in (
            ("logits.embedding", self.embedding, head.linear, embeddings),
            ("logits.evidence", source, both, unit),
        ):
            values = rows(inputs)
            room = 0.1 * float(np.ptp(values))
            scale = affine(float(values.min()) - room, float(values.max()) + room)
            part = Quantization.per_tensor(scale.scale, scale.zero_point)
            parts.append(self.linear(name, tensor, rows, part, inputs.mean(axis=0)))
        return self.add("ADD", parts, "logits", (1, len(head.weights)), numbers, "AddOptions", 2, **_PLAIN)

    def unit_evidence(self, evidence: Optional[Linear], embeddings: np.ndarray) -> Tensor:
        """Rectified evidence of length one, made once for everything that reads the same."""
        if self._unit is not None and self._unit[0] is evidence:
            return self._unit[1]
        source = self.embedding
        if evidence is not None:
            high = float(np.max(evidence(embeddings), initial=1e-3)) * 1.2
            numbers = Quantization.per_tensor(high / 255, -128)
            center = self.center(embeddings)
            source = self.linear("evidence", source, evidence, numbers, center, activation=ACTIVATION_RELU)
        # The kernel knows this one output scale only.
        scale = Quantization.per_tensor(1 / 128)
        name = "evidence.unit" if self._unit is None else "embedding.unit"
        unit = self.add("L2_NORMALIZATION", [source], name, source.shape, scale, "L2NormOptions", 2, **_PLAIN)
        self._unit = evidence, unit
        return unit

    def familiarity(self, kin: Familiarity, embeddings: np.ndarray) -> Tensor:
        """The largest product of a picture's evidence with a prototype."""
        unit = self.unit_evidence(kin.evidence, embeddings)
        rows = Linear(kin.prototypes, np.zeros(len(kin.prototypes)))
        products = self.linear("kinship", unit, rows, Quantization.per_tensor(1 / 255, -128))
        return self.maximum("familiarity", products)

    def finish(self, output: Tensor) -> None:
        main = self._graph.main
        main.outputs = [output]
        main.drop_unused()
        inputs = {tensor.name: tensor for tensor in main.inputs}
        self._graph.signatures = [Signature("serving_default", inputs, {output.name: output})]
