"""What a model takes and what it answers, described once for every command, with the origin of each value.

A value comes from an option, else the sidecar, the registry, the file's metadata, the graph, else it is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import numpy as np

from edge_mnv2.errors import LabelsError, ModelError, UsageError
from edge_mnv2.runtime.model_graph import Key, ModelGraph
from edge_mnv2.runtime.model_input import float_input, integer_input, said_scaling
from edge_mnv2.runtime.packed import Packed
from edge_mnv2.runtime.preprocess import InputWriter, image_layout
from edge_mnv2.runtime.probability import Values, best_only, probability, settled, shows_shares, softmaxes
from edge_mnv2.runtime.table import AnyInterpreter, TensorSpec
from edge_mnv2.zoo.model_facts import MovedThreshold

_SCORES = ("softmax", "sigmoid")
_ASK = "--task regression (a measured value) or --task classification (one logit of two classes)"


@dataclass(frozen=True)
class ModelSpec:
    """What people say about a model: options before sidecar before registry; None: they do not.

    `labels`: empty for rows without names. `mean` and `std` are in pixel units, or all below 1 for fractions of 255;
    `size` is (height, width) where the model leaves it open; `output` the name or number of the output to read.
    `origin`: who said it, by these names. `unknown`: where a taught model's "unknown" begins. `errors`: (lowest value,
    highest value, error to expect) of a regression.
    """

    labels: Optional[Sequence[str]] = None
    background: Optional[str] = None
    task: Optional[str] = None
    unit: Optional[str] = None
    resize: Optional[str] = None
    mean: Optional[tuple[float, ...]] = None
    std: Optional[tuple[float, ...]] = None
    size: Optional[tuple[int, int]] = None
    layout: Optional[str] = None
    output: Optional[str] = None
    origin: Mapping[str, str] = field(default_factory=dict)
    unknown: Optional[MovedThreshold] = None
    errors: tuple[tuple[float, ...], ...] = ()

    def source(self, *keys: str) -> str:
        """Who said the first of `keys` that anybody did."""
        return next((self.origin[key] for key in keys if key in self.origin), "option")


@dataclass(frozen=True)
class ModelInput:
    """`layout` is NHWC or NCHW; `size` (height, width), None where it is open; `mean` and `std` one number a channel.

    `as_pixels`: integers that are the pixels themselves (int8: less 128). `tensor` has the quantization. `origin` has
    layout, size, mean, std.
    """

    tensor: TensorSpec
    layout: str
    size: Optional[tuple[int, int]]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    as_pixels: bool
    origin: Mapping[str, str]

    def writer(self, tensor: TensorSpec) -> InputWriter:
        """What fills such an input; `tensor` is the interpreter's own, with its size."""
        quantized = replace(tensor, scale=self.tensor.scale, zero_point=self.tensor.zero_point)
        mean, std = (None, None) if self.as_pixels else (self.mean, self.std)
        return InputWriter(quantized, mean, std, self.layout)


@dataclass(frozen=True)
class ModelOutput:
    """The output that is read: its `position` among the model's outputs, and how many `rows` of answers it gives.

    `kind`: "softmax", "logits" (one class of several), "multilabel" (a probability for each class), "binary" (one
    probability p: those of two classes are 1 - p and p), "sigmoid" (one probability of one class), "value" (measured
    values). `logistic`: its sigmoid is still to be applied. `whole`: the number that stands for a probability of 1 (100
    for per cent). `tensor` has the quantization.
    """

    position: int
    tensor: TensorSpec
    kind: str
    rows: int
    origin: str
    logistic: bool = False
    whole: float = 1.0
    unproven: Optional[Values] = None


@dataclass(frozen=True)
class ModelIO:
    """Input, output, the names packed in the file (None: there are none), and sentences to be said once."""

    input: ModelInput
    output: ModelOutput
    labels: Optional[list[str]] = None
    labels_origin: str = ""
    notes: tuple[str, ...] = ()

    def as_document(self) -> dict[str, Any]:
        """The parts `input` and `output` of `inspect --json`. `size` is [width, height]."""
        image = self.input
        return {
            "input": {
                "layout": image.layout,
                "size": None if image.size is None else [image.size[1], image.size[0]],
                "mean": [round(n, 4) for n in image.mean],
                "std": [round(n, 4) for n in image.std],
                "from": dict(image.origin),
            },
            "output": {"kind": self.output.kind, "position": self.output.position, "from": self.output.origin},
        }


def describe(
    path: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    graph: Optional[ModelGraph],
    spec: ModelSpec = ModelSpec(),
    *,
    ask: bool = True,
) -> ModelIO:
    """What is known of a model's tensors. `graph` None: the file's inside is hidden.

    Raises ModelError where it is no picture classifier, with the reason; UsageError where people have to say something
    (`ask` False: that is a note instead).
    """
    if len(inputs) != 1:
        raise ModelError(f"{path} has {len(inputs)} inputs: it is no picture classifier")
    packed = graph.packed if graph is not None else Packed()
    image, notes = describe_input(path, inputs[0], graph, spec)
    position = _chosen_output(path, outputs, graph, spec, notes)
    try:
        rows = _rows(outputs[position])
        source, names = packed.names_for(path, position, rows) if spec.labels is None else ("", None)
    except LabelsError as error:
        if ask:
            raise
        notes.append(f"{error.message}: {error.hint}")
        source, names = "", None
    if names == []:
        notes.append(f"{path}: the names that are packed in it ({source}) cannot be read; --labels FILE names them")
    output = _output(path, position, outputs[position], graph, spec, spec.labels or names or ())
    if output is None:
        sentence = f"{path} has one output, a number that is no probability"
        if ask:
            raise UsageError(sentence, hint=f"say what it is: {_ASK}")
        notes.append(f"{sentence}: say what it is, {_ASK}")
        output = ModelOutput(position, outputs[position], "value", 1, "assumed")
    return ModelIO(image, output, names or None, f"packed in the file ({source})" if names else "", tuple(notes))


def describe_input(
    path: str, tensor: TensorSpec, graph: Optional[ModelGraph], spec: ModelSpec = ModelSpec()
) -> tuple[ModelInput, list[str]]:
    """The part of `describe` for the input `tensor`, with the sentences to be said once."""
    notes: list[str] = []
    layout, channels = image_layout(path, tensor.shape, spec.layout)
    if tensor.dtype.name not in ("uint8", "int8", "float32", "float16", "float64"):
        more = " (16x8 quantization)" if tensor.dtype.name == "int16" else ""
        raise ModelError(f"{path}: its input is {tensor.dtype.name}{more}", hint="uint8, int8 and floats can be fed")
    height, width = tensor.shape[1:3] if layout == "NHWC" else tensor.shape[2:4]
    size = spec.size if min(height, width) < 1 else (height, width)
    packed = graph.packed if graph is not None else Packed()
    words = (spec.mean, spec.std, spec.source("mean", "std")), (packed.mean, packed.std, "metadata")
    scaling = said_scaling(words, channels)
    as_pixels = False
    if tensor.dtype.kind in "ui":
        tensor = _quantized(tensor, graph, graph.inputs[0] if graph is not None and graph.inputs else None)
        values, source, as_pixels = integer_input(path, tensor, scaling, channels, notes)
    else:
        values, source = scaling if scaling is not None else float_input(path, graph, notes)
    # Every channel has its own numbers from here on.
    each = [np.broadcast_to(np.mean(one) if channels == 1 else one, channels) for one in values]
    mean, std = (tuple(map(float, one)) for one in each)
    origin = {
        "layout": "graph" if spec.layout is None else spec.source("layout"),
        "size": spec.source("size") if size is spec.size and size is not None else "graph",
        "mean": source,
        "std": source,
    }
    return ModelInput(tensor, layout, size, channels, mean, std, as_pixels, origin), notes


def measured(path: str, interpreter: AnyInterpreter, output: ModelOutput) -> ModelOutput:
    """`output`, with what two inputs show of it where the graph leaves it open.

    Raises ModelError where a softmax does not run over the classes.
    """
    tensor, position = output.tensor, output.position
    if output.kind == "logits" and output.origin == "assumed" and shows_shares(interpreter, position, tensor):
        return replace(output, kind="softmax", origin="measured")
    count = 1 if output.unproven is None else softmaxes(interpreter, position, tensor, output.unproven)
    if count == 0:
        raise _not_over_classes(path)
    return output if count == 1 else replace(output, kind="multilabel", origin="measured")


def _not_over_classes(path: str) -> ModelError:
    """An axis of length 1, the batch, or the places of a picture."""
    return ModelError(
        f"{path} has a softmax that does not run over its classes: their scores say nothing",
        hint="export it with the softmax over the axis of the classes, or without one",
    )


def _quantized(tensor: TensorSpec, graph: Optional[ModelGraph], key: Optional[Key]) -> TensorSpec:
    """`tensor` with its scale and zero point, where a graph keeps them in an operator beside it (ONNX)."""
    affine: Optional[tuple[Any, ...]] = None
    if graph is not None and key is not None and not tensor.quantized:
        affine = graph.affine(key) or graph.dequantized_as(key)
    return tensor if affine is None else replace(tensor, scale=affine[0], zero_point=affine[1])


def _chosen_output(
    path: str, outputs: Sequence[TensorSpec], graph: Optional[ModelGraph], spec: ModelSpec, notes: list[str]
) -> int:
    """The position of the output to read: the one that was asked for, else the likeliest classifier's."""
    names = [output.name for output in outputs]
    if not outputs:
        raise ModelError(f"{path} has no output that holds numbers: it is no picture classifier")
    if spec.output is not None:
        if spec.output in names:
            return names.index(spec.output)
        if spec.output.isdecimal() and int(spec.output) < len(outputs):
            return int(spec.output)
        raise UsageError(f"{path} has no output '{spec.output}'", hint=f"its outputs: {', '.join(names)}")
    if len(outputs) == 1:
        return 0
    boxes = [one.name for one in outputs if one.shape[-1:] == (4,) and sum(n != 1 for n in one.shape) == 2]
    if boxes:
        raise ModelError(f"{path} finds objects, its output '{boxes[0]}' holds boxes: it is no picture classifier")

    keys = [_key(graph, position, output) for position, output in enumerate(outputs)]
    several = [key for key, output in zip(keys, outputs) if key is not None and _rows(output) > 1]
    # What other scores are made of are features.
    features = graph.made_from(several) if graph is not None else set()

    def likelihood(position: int) -> tuple[bool, bool, bool, bool, int, int]:
        output, key = outputs[position], keys[position]
        rows, made_by = _rows(output), _made_by(graph, position, output)[0]
        scores = (rows > 0 and not best_only(made_by, rows) and output.dtype.kind == "f") or output.quantized
        shares, named = made_by.kind in _SCORES and rows > 1, len(spec.labels or ()) == rows
        return scores, named, shares, key not in features and made_by.kind != "pool", rows, -position

    best = max(range(len(outputs)), key=likelihood)
    others = ", ".join(f"{number} ({name})" for number, name in enumerate(names) if number != best)
    notes.append(
        f"{path} has {len(outputs)} outputs: {best} ({names[best]}) is read, not {others}; --model-output chooses"
    )
    return best


def _rows(output: TensorSpec) -> int:
    """Values of one row of scores, 0 where the output is something else."""
    sizes = [n for n in output.shape if n not in (1, -1)]
    return 0 if len(sizes) > 1 else sizes[0] if sizes else 1


def _made_by(graph: Optional[ModelGraph], position: int, output: TensorSpec) -> tuple[Values, str]:
    """What the output's values are, kind "" where it is unknown; and who says it."""
    key = _key(graph, position, output)
    node = graph.maker(key) if graph is not None and key is not None else None
    if graph is not None and key is not None and node is not None and node.kind != "custom":
        values = probability(graph, key) or Values(node.kind, over=graph.softmax_length(node))
        return values, "graph" if settled(values) else "assumed"
    # A compiled graph hides its last operator: a softmax or sigmoid is quantized to exactly the range 0..1.
    low, high = output.limits
    hidden = abs(low) < 1e-6 and abs(high - 1) <= 2 / 256
    return Values(("softmax" if _rows(output) > 1 else "sigmoid") if hidden else ""), "assumed"


def _key(graph: Optional[ModelGraph], position: int, output: TensorSpec) -> Optional[Key]:
    """What the graph calls the output; outputs that are no tensors stand in an ONNX graph only."""
    if graph is None or output.name in graph.outputs:
        return output.name if graph is not None else None
    return graph.outputs[position] if position < len(graph.outputs) else None


def _output(
    path: str,
    position: int,
    tensor: TensorSpec,
    graph: Optional[ModelGraph],
    spec: ModelSpec,
    names: Sequence[str],
) -> Optional[ModelOutput]:
    """The rule for outputs; None where one number leaves open what it is."""
    rows = _rows(tensor)
    if not rows:
        shown = "x".join("?" if n < 0 else str(n) for n in tensor.shape)
        raise ModelError(f"{path} has an output of shape {shown}, not one row of scores: it is no picture classifier")
    made_by, origin = _made_by(graph, position, tensor)
    if tensor.dtype.kind in "ui":
        tensor = _quantized(tensor, graph, _key(graph, position, tensor))
    value = spec.task == "regression"
    # Shares of 255 or 100, rounded.
    rounded = made_by.kind in _SCORES and rows > 1 and made_by.whole > 1 and tensor.dtype.kind in "ui"
    if tensor.dtype.kind in "uib" and not tensor.quantized and not rounded and not best_only(made_by, rows):
        raise ModelError(
            f"{path} answers with {tensor.dtype.name}, not with scores",
            hint="export it before it rounds them, compares them or takes the best one",
        )
    if best_only(made_by, rows) and not (value and (tensor.dtype.kind == "f" or tensor.quantized)):
        raise ModelError(
            f"{path} answers with the best class only, without the scores of all",
            hint="export it without its ArgMax, TopK or ReduceMax",
        )
    if value:
        return ModelOutput(position, tensor, "value", rows, spec.source("task"))
    if made_by.kind == "norm":
        hint = "export it with the classifier behind it"
        raise ModelError(f"{path} answers with an embedding of length 1, not with scores of classes", hint=hint)
    if rows > 1:
        kind = {"softmax": "softmax", "sigmoid": "multilabel"}.get(made_by.kind, "logits")
        if made_by.over == 1 and made_by.kind in ("softmax", "logsoftmax"):
            raise _not_over_classes(path)
        proven = made_by.over == rows or (made_by.over > 1 and made_by.part)
        unproven = made_by if kind == "softmax" and origin == "graph" and not (proven or rounded) else None
        return ModelOutput(position, tensor, kind, rows, origin, whole=made_by.whole, unproven=unproven)
    if made_by.kind == "softmax" and not made_by.part:
        raise ModelError(f"{path} ends in a softmax of one number, which is always 1", hint="two classes need two rows")
    if made_by.kind not in _SCORES:
        if spec.task is None:
            return None
        origin = spec.source("task")
    kind, answers = ("sigmoid", 1) if len(names) == 1 else ("binary", 2)
    return ModelOutput(position, tensor, kind, answers, origin, made_by.kind not in _SCORES, made_by.whole)
