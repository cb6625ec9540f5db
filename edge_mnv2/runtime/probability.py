"""Whether a graph's output is made of probabilities already, whatever comes behind its softmax or sigmoid.

Exporters and ensembles cut off the background row, clip, average, give per cent, or write the softmax out. A second
softmax over such numbers would keep the order of the classes and spoil every score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.model_graph import Key, ModelGraph, Node
from edge_mnv2.runtime.table import AnyInterpreter, TensorSpec

_LAYERS = ("linear", "conv", "depthwise", "pool", "add", "logsoftmax", "norm", "best")
"""What makes an output that is surely not one of probabilities."""
_MOST_STEPS = 12
_MANY = ("add", "mean", "concat", "mul", "div", "sub")
_PART = ("part", "clip", "max", "min", "pool", "where")


@dataclass(frozen=True)
class Values:
    """`kind`: "softmax" (probabilities of one class among several), "sigmoid" (of each by itself), else the operator
    that makes them. `whole` is the number that stands for 1. `part`: rows of a softmax may be missing. `exact` False:
    what comes behind it may change their sum. `over`: how many values it runs over, 0 where the file does not say it.
    """

    kind: str
    whole: float = 1.0
    part: bool = False
    exact: bool = True
    over: int = 0


def settled(values: Values) -> bool:
    """Whether the graph tells what the values are; else what they are like has to be looked at."""
    return values.kind in (*_LAYERS, "softmax", "sigmoid")


def best_only(values: Values, rows: int) -> bool:
    """Whether only the best classes are left. A maximum over the places of a picture leaves every class."""
    return values.kind == "best" or (values.kind == "highest" and rows == 1)


def probability(graph: ModelGraph, key: Key) -> Optional[Values]:
    """What the graph shows of tensor `key`; None where it holds no probabilities."""
    known: dict[Key, Optional[Values]] = {}

    def at(key: Key, depth: int) -> Optional[Values]:
        # A small file can use a tensor over and over.
        if key not in known:
            known[key] = _values(graph, key, depth, at)
        return known[key]

    return at(key, _MOST_STEPS)


def _values(graph: ModelGraph, key: Key, depth: int, at: Callable[[Key, int], Optional[Values]]) -> Optional[Values]:
    node = graph.maker(key)
    if node is None or not depth:
        return None
    if node.kind in ("softmax", "sigmoid"):
        return Values(node.kind, over=graph.softmax_length(node))
    makers = [maker.kind if (maker := graph.maker(one)) is not None else "" for one in node.inputs]
    if (node.kind, makers) == ("exp", ["logsoftmax"]) or (node.kind == "div" and _normalized(graph, node)):
        return Values("softmax")
    if _logistic(graph, node):
        return Values("sigmoid")
    if node.kind not in (*_PART, *_MANY):
        # The weights of a last layer are a million numbers.
        return None
    constants = [graph.constant(one) for one in node.inputs]
    computed = [one for one, constant in zip(node.inputs, constants) if constant is None]
    if node.kind in _PART and computed:
        # The condition of a `Where` stands in front.
        inner = at(computed[-1 if node.kind == "where" else 0], depth - 1)
        part, exact = inner is not None and (inner.part or node.kind == "part"), node.kind == "pool"
        return inner and replace(inner, part=part, exact=exact and inner.exact)
    if not computed:
        return None
    inner_ones = [at(one, depth - 1) for one in computed]
    operands = [one for one in inner_ones if one is not None]
    if len(operands) < len(computed):
        return None
    number = next((float(one.reshape(-1)[0]) for one in constants if one is not None and one.size == 1), None)
    if len(operands) == 1 and len(node.inputs) == 2:
        return None if number is None else _with_number(node, operands[0], number, constants[0] is None)
    return _joined(graph, node, operands) if len(computed) == len(node.inputs) else None


def shows_shares(interpreter: AnyInterpreter, position: int, tensor: TensorSpec) -> bool:
    """Whether all that the model answers in an output are shares of 1: what a graph does not tell, two inputs do.

    No logits are, by chance, all above 0 and of that sum.
    """
    tries = _tries(interpreter, position, tensor)
    return all(one.min() >= -1e-6 and abs(one.sum() - 1) <= 0.01 for one in tries)


def softmaxes(interpreter: AnyInterpreter, position: int, tensor: TensorSpec, values: Values) -> int:
    """How many softmaxes stand side by side in an output's row, as two inputs show it; 0: they run over something else
    than classes. 1 where nothing is to be seen."""
    tries = [one / values.whole for one in _tries(interpreter, position, tensor)]
    sums = [float(one.sum()) for one in tries]
    if not all(sums) or not np.isfinite(sums).all():
        return 1
    if all(np.ptp(one) < 1e-6 for one in tries) and abs(sums[0] - 1) > 0.02:
        # The softmax of one number is 1, for every class and picture; the mean of a softmax over places is as constant.
        return 0
    rows = tries[0].size
    if not values.exact:
        # Clipped, or the best of several: their sum is off, their number is not.
        if values.part or values.over < 2:
            return 1
        return 0 if rows % values.over else rows // values.over
    count = max(1, round(sums[0]))
    if max(abs(one - count) for one in sums) <= 0.02 and rows % count == 0:
        return count
    return int(all(_rounded_shares(one) for one in tries))


def _rounded_shares(scores: np.ndarray) -> bool:
    """Whether `scores` are shares of 1 in steps so coarse that their sum is off."""
    step = np.diff(np.unique([0.0, *scores.flat])).min()
    even = np.allclose(scores / step, np.round(scores / step), atol=1e-3)
    return bool(even and abs(scores.sum() - 1) <= 0.02 + scores.size * step / 2)


def _tries(interpreter: AnyInterpreter, position: int, tensor: TensorSpec) -> Iterator[np.ndarray]:
    """An output's real numbers for a black and a many-coloured input; NaN where it fails."""
    source, random = interpreter.inputs[0], np.random.default_rng(0)
    for shade in (0, 255):
        values = shade * random.random([max(n, 1) for n in source.shape])
        whole = values.astype(np.uint8).view(source.dtype) if source.dtype.kind in "ui" else values / 255
        try:
            interpreter.set_input(whole.astype(source.dtype))
            interpreter.invoke()
        except ModelError:
            # It is said where the model is run in earnest.
            yield np.array([np.nan])
            return
        yield tensor.dequantize(interpreter.output(position)).astype(float)


def _with_number(node: Node, operand: Values, number: float, first: bool) -> Optional[Values]:
    if node.kind == "sub":
        # 1 - p
        return Values("sigmoid") if not first and number == operand.whole == 1 else None
    if node.kind == "add" and abs(number) < 1e-3 * operand.whole:
        return operand
    if not 1e-6 < number < 1e6 or node.kind not in ("mul", "div") or (node.kind == "div" and not first):
        return None
    return replace(operand, whole=operand.whole * (number if node.kind == "mul" else 1 / number))


def _joined(graph: ModelGraph, node: Node, operands: list[Values]) -> Optional[Values]:
    wholes = [one.whole for one in operands]
    one_class = all(one.kind == "softmax" for one in operands)
    kind, part = ("softmax" if one_class else "sigmoid"), any(one.part for one in operands)
    if node.kind in ("add", "mean"):
        over = operands[0].over if len({one.over for one in operands}) == 1 else 0
        whole = sum(wholes) / (len(wholes) if node.kind == "mean" else 1)
        return Values(kind, whole, part, all(one.exact for one in operands), over)
    if node.kind == "concat":
        # (1 - p, p) is one class of two.
        makers = [graph.maker(one) for one in node.inputs]
        two = len(makers) == 2 and any(maker is not None and maker.kind == "sub" for maker in makers)
        return Values("softmax" if two else "sigmoid", max(wholes), part)
    return Values("sigmoid", float(np.prod(wholes)), part) if node.kind == "mul" else None


def _normalized(graph: ModelGraph, node: Node) -> bool:
    """x / sum(x), perhaps with a little more below the line: a softmax written out, sigmoids made to sum up to 1."""
    key: Key = node.inputs[1]
    for _ in range(3):
        maker = graph.maker(key)
        if maker is not None and maker.kind == "sum":
            source = graph.maker(maker.inputs[0])
            return source is not None and source is graph.maker(node.inputs[0]) and source.kind in ("exp", "sigmoid")
        if maker is None or maker.kind not in ("add", "max", "clip"):
            return False
        key = maker.inputs[0]
    return False


def _logistic(graph: ModelGraph, node: Node) -> bool:
    """1 / (1 + exp(-x)), written out."""
    if node.kind == "reciprocal":
        below: Key = node.inputs[0]
    elif node.kind == "div" and _is_one(graph, node.inputs[0]):
        below = node.inputs[1]
    else:
        return False
    added = graph.maker(below)
    if added is None or added.kind != "add" or len(added.inputs) != 2:
        return False
    makers = [graph.maker(one) for one in added.inputs]
    return any(_is_one(graph, one) for one in added.inputs) and any(
        maker is not None and maker.kind == "exp" for maker in makers
    )


def _is_one(graph: ModelGraph, key: Key) -> bool:
    constant = graph.constant(key)
    return constant is not None and constant.size == 1 and float(constant.reshape(-1)[0]) == 1
