"""One network in the forms that people bring, each judged against its own framework: the table of
docs/bring-your-model.md.

    python benchmarks/brought_models.py PHOTOS [--keep DIR]

PHOTOS has torch_reference.csv (file,top1: what PyTorch's float network says). The weights are torchvision's; each row
wraps them as a tool writes its models and classifies every photo with the options that stand in the row. With PyTorch
installed, its own `torch.onnx.export` writes two more files.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

from edge_mnv2.builder.calibration import shipped_ranges
from edge_mnv2.builder.inference import operations
from edge_mnv2.builder.onnx_model import onnx_model
from edge_mnv2.builder.recipe import IMAGENET_ENTRY
from edge_mnv2.builder.tflite_model import float_model, integer_model, numbers
from edge_mnv2.builder.weights import read_weights
from edge_mnv2.camera.still import read_still
from edge_mnv2.network.network import mobilenet_v2
from edge_mnv2.runtime.opening import open_classifier
from edge_mnv2.settings.schema import MODEL_KEYS, ModelOptions
from edge_mnv2.tflite import graph
from edge_mnv2.tflite.ir import Graph, Operator, Tensor
from edge_mnv2.zoo.pull import fetch

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Row:
    """`says`: who says how the input is scaled; `options` are those of the command line."""

    form: str
    says: str
    content: bytes
    suffix: str = ".tflite"
    options: str = ""


def rescaled(model: bytes, steps: list[tuple[str, Any]], *, softmax: bool = False) -> Graph:
    """The float model with `steps` (MUL, ADD, ... and a constant) between its input and its first padding."""
    whole = graph.read(model)
    main = whole.main
    # The two that our own writer put there go.
    rest = main.operators[2:]
    last, operators = main.inputs[0], []
    for number, (kind, value) in enumerate(steps):
        constant = Tensor.constant(f"scaling.{number}.constant", np.asarray(value, np.float32))
        result = Tensor(f"scaling.{number}", last.shape, "float32")
        main.tensors += [constant, result]
        operators.append(Operator(kind, [last, constant], [result], f"{kind.title()}Options", {}, 1))
        last = result
    rest[0].inputs[0] = last
    main.operators[:] = [*operators, *rest]
    if softmax:
        result = Tensor("probabilities", main.outputs[0].shape, "float32")
        main.tensors.append(result)
        main.operators.append(Operator("SOFTMAX", [main.outputs[0]], [result], "SoftmaxOptions", {"beta": 1.0}))
        main.outputs[:] = [result]
    whole.signatures.clear()
    return whole


def hidden(model: bytes, factor: np.ndarray, offset: np.ndarray) -> bytes:
    """The float model, its scaling as weights of a first layer, where nothing says what it is."""
    whole = rescaled(model, [])
    main, (source, shape) = whole.main, (whole.main.inputs[0], whole.main.inputs[0].shape)
    weights = Tensor.constant("first.weights", factor.reshape(1, 1, 1, 3).astype(np.float32))
    bias, result = Tensor.constant("first.bias", offset.astype(np.float32)), Tensor("first", shape, "float32")
    main.tensors += [weights, bias, result]
    options = {"padding": 1, "stride_w": 1, "stride_h": 1, "depth_multiplier": 1}
    first = Operator("DEPTHWISE_CONV_2D", [source, weights, bias], [result], "DepthwiseConv2DOptions", options, 1)
    main.operators[0].inputs[0] = result
    main.operators.insert(0, first)
    return graph.write(whole)


def with_metadata(model: Graph, mean: float, std: float) -> bytes:
    """The model with TFLITE_METADATA that give the normalization of its input."""
    builder = flatbuffers.Builder(256)

    def numbers_of(value: float) -> int:
        builder.StartVector(4, 1, 4)
        builder.PrependFloat32(value)
        return int(builder.EndVector())

    def table(slot: int, offset: int, kind: int = 0) -> int:
        builder.StartObject(8)
        builder.PrependUint8Slot(0, kind, 0)
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        return int(builder.EndObject())

    def listed(offset: int) -> int:
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    means, stds = numbers_of(mean), numbers_of(std)
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, means, 0)
    builder.PrependUOffsetTRelativeSlot(1, stds, 0)
    unit = table(1, builder.EndObject(), kind=1)
    subgraph = table(2, listed(table(4, listed(unit))))
    builder.Finish(table(3, listed(subgraph)), file_identifier=b"M001")
    model.metadata["TFLITE_METADATA"] = bytes(builder.Output())
    return graph.write(model)


def reshaped_onnx(content: bytes, *, planes: bool, scaled: bool, softmax: bool) -> bytes:
    """Our ONNX file with a float input: NCHW (`planes`) or NHWC, with (`scaled`: of -1..1) or without its scaling."""
    import onnx

    model = onnx.load_from_string(content)
    nodes = {node.name: node for node in model.graph.node}
    image = model.graph.input[0].type.tensor_type
    image.elem_type = onnx.TensorProto.FLOAT
    if planes:
        for dimension, size in zip(image.shape.dim, (1, 3, 224, 224)):
            dimension.dim_value = size
        nodes["image.float"].input[0] = "image"
        model.graph.node.remove(nodes["image.channels_first"])
    for constant in model.graph.initializer:
        values = {"image.scale": 1 / (2 * STD), "image.shift": (0.5 - MEAN) / STD} if scaled else {}
        plain = {"image.scale": np.ones(3), "image.shift": np.zeros(3)} if not scaled else {}
        if constant.name in {**values, **plain}:
            array = {**values, **plain}[constant.name].reshape(1, 3, 1, 1).astype(np.float32)
            constant.CopyFrom(onnx.numpy_helper.from_array(array, constant.name))
    if softmax:
        last = model.graph.output[0].name
        model.graph.node.append(onnx.helper.make_node("Softmax", [last], ["Identity"]))
        model.graph.output[0].name = "Identity"
    return model.SerializeToString()


def torch_exports(weights: Path) -> Iterator[Row]:
    """What `torch.onnx.export` writes of the same network, with and without softmax."""
    try:
        import torch

        from edge_mnv2.train.module import NetworkModule, load_tensors
    except ImportError:
        return
    module = NetworkModule(mobilenet_v2())
    load_tensors(module, read_weights(weights).tensors)
    module.eval()
    options = "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
    for name, whole, said in (
        ("torch.onnx.export, NCHW", module, ""),
        ("torch.onnx.export, softmax, NCHW", torch.nn.Sequential(module, torch.nn.Softmax(1)), options),
    ):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "x.onnx")
            picture = torch.zeros(1, 3, 224, 224)
            torch.onnx.export(whole.eval(), (picture,), str(path), dynamo=False, opset_version=13)
            says = "option" if said else "assumed (of PyTorch)"
            yield Row(name, says, path.read_bytes(), ".onnx", said)


def rows(weights: Path) -> Iterator[Row]:
    network, read = mobilenet_v2(), read_weights(weights)
    steps = operations(network, read.tensors)
    whole = float_model(network, steps)
    torch = [("MUL", 1 / (255 * STD)), ("ADD", -MEAN / STD)]
    keras = [("MUL", 1 / 127.5), ("ADD", -1.0), ("MUL", 1 / (2 * STD)), ("ADD", (0.5 - MEAN) / STD)]
    to_signed, to_fraction = (1 / (2 * STD), (0.5 - MEAN) / STD), (1 / STD, -MEAN / STD)

    def tflite(scaling: list[tuple[str, Any]], softmax: bool = True) -> bytes:
        return graph.write(rescaled(whole, scaling, softmax=softmax))

    yield Row("float .tflite, Rescaling inside, softmax", "graph", tflite(keras))
    yield Row("float .tflite, mean and std inside, of 0..255", "graph", tflite(torch, softmax=False))
    of_fraction = [("SUB", MEAN), ("DIV", STD)]
    yield Row("float .tflite, mean and std inside, of 0..1", "graph", tflite(of_fraction))
    yield Row("float .tflite, -1..1, nothing in the file", "assumed", hidden(whole, *to_signed))
    yield Row(
        "float .tflite, 0..1, nothing in the file", "option", hidden(whole, *to_fraction), options="--input-range 0,1"
    )
    yield Row(
        "float .tflite, mean and std, nothing in the file",
        "option",
        tflite([], softmax=False),
        options="--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
    )
    described = with_metadata(rescaled(whole, of_fraction, softmax=True), 0.0, 255.0)
    yield Row("float .tflite, 0..1, metadata", "metadata", described)
    integers = numbers(network, steps, shipped_ranges(network, read))
    for dtype in ("uint8", "int8"):
        yield Row(f"{dtype} .tflite", "graph", integer_model(network, steps, integers, input_dtype=dtype))
    coarse = graph.read(integer_model(network, steps, integers, input_dtype="uint8"))
    yield Row("uint8 .tflite, mean and std in its metadata", "metadata", with_metadata(coarse, 114.5, 57.6))
    plain = onnx_model(network, steps)
    yield Row("uint8 .onnx, NHWC", "graph", plain, ".onnx")
    yield Row("int8 .onnx, NHWC", "graph", onnx_model(network, steps, integers), ".onnx")
    for planes in (False, True):
        for softmax in (False, True):
            form = f"float .onnx, {'NCHW' if planes else 'NHWC'}{', softmax' if softmax else ''}"
            content = reshaped_onnx(plain, planes=planes, scaled=not softmax, softmax=softmax)
            said = "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225" if softmax else ""
            yield Row(form, "option" if said else "graph", content, ".onnx", said)
    yield from torch_exports(weights)


def parsed(options: str) -> ModelOptions:
    words = options.split()
    named = {option.name: key.partition(".")[2] for key, option in MODEL_KEYS.items()}
    return ModelOptions(
        **{
            named[name.lstrip("-")]: MODEL_KEYS[f"model.{named[name.lstrip('-')]}"].kind.parse(value)
            for name, value in zip(words[::2], words[1::2])
        }
    )


def agreement(path: Path, options: str, answers: Callable[[], Iterator[tuple[Path, int]]]) -> float:
    """The share of photos with the reference's top-1."""
    classifier, _, _ = open_classifier(str(path), parsed(options), threads=2)
    with classifier:
        same = [int(classifier.scores(read_still(photo)).argmax()) == top for photo, top in answers()]
    return sum(same) / len(same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every Nth photo only")
    parser.add_argument("--keep", type=Path, help="write the models into this folder")
    given = parser.parse_args()

    def answers() -> Iterator[tuple[Path, int]]:
        with (given.photos / "torch_reference.csv").open() as table:
            for number, row in enumerate(csv.DictReader(table)):
                if number % given.every == 0:
                    yield given.photos / row["file"], int(row["top1"])

    print("| model | how pictures are scaled, said by | option | same top-1 as PyTorch |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        for number, row in enumerate(rows(Path(fetch(IMAGENET_ENTRY)))):
            path = folder / f"{number:02d}{row.suffix}"
            path.write_bytes(row.content)
            option = f"`{row.options}`" if row.options else ""
            print(f"| {row.form} | {row.says} | {option} | {agreement(path, row.options, answers):.3f} |", flush=True)


if __name__ == "__main__":
    main()
