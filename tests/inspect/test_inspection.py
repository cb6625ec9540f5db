"""`inspect`: anybody's file is described rightly, or refused in one line."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from edge_mnv2 import paths
from edge_mnv2.errors import ModelError
from edge_mnv2.inspect import inspection
from edge_mnv2.inspect.delegation import Delegation
from edge_mnv2.inspect.inspection import model_document
from edge_mnv2.inspect.picture import model_picture, network_picture
from edge_mnv2.network.network import Network, Stage, mobilenet_v2
from edge_mnv2.runtime.interpreter import installed_runtimes
from edge_mnv2.tflite import graph
from edge_mnv2.tflite.ir import Graph, Operator, Subgraph, Tensor
from edge_mnv2.zoo.resolve import Resolved
from tests.network.compared_blocks import residual
from tests.stubs import colour_model

CPU_V2 = {"CONV_2D": 36, "DEPTHWISE_CONV_2D": 17, "ADD": 10, "AVERAGE_POOL_2D": 1, "RESHAPE": 1, "SOFTMAX": 1}
COMPILED = {"edgetpu-custom-op": 1}
FILES = {
    "mobilenet_v1_0.25_128_quant.tflite": (
        {"CONV_2D": 15, "DEPTHWISE_CONV_2D": 13, "AVERAGE_POOL_2D": 1, "RESHAPE": 1, "SOFTMAX": 1},
        False,
        13_570_304,
        1001,
    ),
    "mobilenet_v1_0.25_128_quant_edgetpu.tflite": (COMPILED, True, None, 1001),
    "mobilenet_v1_1.0_224_quant_embedding_extractor_edgetpu.tflite": (COMPILED, True, None, None),
    "mobilenet_v2_1.0_224_inat_bird_quant.tflite": (
        {
            "CONV_2D": 35,
            "DEPTHWISE_CONV_2D": 17,
            "ADD": 10,
            "AVERAGE_POOL_2D": 1,
            "FULLY_CONNECTED": 1,
            "SOFTMAX": 1,
        },
        False,
        300_729_472,
        965,
    ),
    "mobilenet_v2_1.0_224_quant.tflite": (CPU_V2, False, 300_775_552, 1001),
    "mobilenet_v2_1.0_224_quant_edgetpu.tflite": (COMPILED, True, None, 1001),
    "model_invoking_error.tflite": ({"fake-op-double": 1}, False, None, None),
    "tf2_mobilenet_v2_1.0_224_ptq.tflite": (
        {
            "QUANTIZE": 2,
            "CONV_2D": 36,
            "DEPTHWISE_CONV_2D": 17,
            "ADD": 10,
            "MEAN": 1,
            "RESHAPE": 1,
            "SOFTMAX": 1,
        },
        False,
        300_775_552,
        1001,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_reference_files(run: Any, data: Path, name: str) -> None:
    operators, compiled, macs, labels = FILES[name]
    path = data / "models" / name
    code, out, err = run("inspect", path, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["file"] == str(path)
    assert found["bytes"] == path.stat().st_size
    assert found["operators"] == operators
    assert found["edgetpu"] is compiled
    assert found["edgetpu_compiles"] is (None if compiled else operators != {"fake-op-double": 1})
    assert found["edgetpu_operators"] == (
        None if compiled else sum(operators.values()) if found["edgetpu_compiles"] else 0
    )
    assert bool(found["edgetpu_problems"]) is (found["edgetpu_compiles"] is False)
    loads = operators not in (COMPILED, {"fake-op-double": 1})
    # tflite-runtime's wheel for x86 leaves integer models to its plain kernels.
    assert found["xnnpack"] is (loads if installed_runtimes()[0] == "litert" else False)
    assert found["macs"] == macs
    assert (found["parameters"] is None) is compiled
    assert (None if found["labels"] is None else len(found["labels"])) == labels
    assert sum(layer["macs"] or 0 for layer in found["layers"]) == (macs or 0)
    assert len(found["layers"]) == sum(operators.values())
    for tensor in (*found["inputs"], *found["outputs"]):
        assert set(tensor) == {"name", "shape", "dtype", "scale", "zero_point"}


def test_every_reference_file_is_covered(data: Path) -> None:
    assert {path.name for path in (data / "models").glob("*.tflite")} == set(FILES)


def test_inputs_and_twins(run: Any, data: Path) -> None:
    _, out, _ = run("inspect", data / "models" / "mobilenet_v2_1.0_224_quant.tflite", "--json")
    found = json.loads(out)
    assert found["inputs"] == [
        {"name": "input", "shape": [1, 224, 224, 3], "dtype": "uint8", "scale": 1 / 128, "zero_point": 128}
    ]
    assert found["outputs"][0]["scale"] == 1 / 256
    assert found["labels"][0] == "background" and found["labels"][286].startswith("Egyptian cat")
    assert found["twin"] == {
        "cpu": "mobilenet_v2_1.0_224_quant",
        "tpu": "mobilenet_v2_1.0_224_quant_edgetpu",
    }


def test_our_own_model(run: Any) -> None:
    code, out, _ = run("inspect", paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite"), "--json")
    found = json.loads(out)
    network = mobilenet_v2()
    assert (code, found["macs"]) == (0, network.macs)
    assert found["quantization"].startswith("full integer (int8)")
    assert found["quantization"].endswith("per-channel weights")
    assert len(found["labels"]) == 1000
    by_name = json.loads(run("inspect", "mobilenet_v2_1.0_224_int8", "--json")[1])
    assert by_name["operators"] == found["operators"]


def test_a_person_reads_a_table(run: Any, data: Path) -> None:
    code, out, err = run("inspect", data / "models" / "mobilenet_v2_1.0_224_quant.tflite")
    assert (code, err) == (0, "")
    for part in ("300.8 M", "full integer (uint8)", "1001 names", "DEPTHWISE_CONV_2D 3x3 /2 relu6", "not compiled"):
        assert part in out
    assert max(map(len, out.splitlines())) <= 140


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        ({"dtype": "uint8"}, "full integer (uint8), per-tensor weights"),
        ({"dtype": "int8"}, "full integer (int8), per-tensor weights"),
        ({"dtype": "float32"}, "not quantized (float32)"),
    ],
)
def test_quantization_in_words(tmp_path: Path, options: dict[str, Any], scheme: str) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(colour_model(**options))
    found = inspection.inspect(path)
    assert found.quantization == scheme
    quantized = options["dtype"] != "float32"
    assert (found.inputs[0].scale is not None) is (found.inputs[0].zero_point is not None) is quantized


def _with_float16_weights(model: Graph) -> None:
    layer = next(operator for operator in model.operators if operator.kind == "FULLY_CONNECTED")
    kernel = layer.inputs[1]
    assert kernel is not None
    half = Tensor.constant("half", kernel.array().astype(np.float16))
    wide = Tensor("wide", kernel.shape, "float32")
    layer.inputs[1] = wide
    model.operators.insert(0, Operator("DEQUANTIZE", [half], [wide], "DequantizeOptions"))
    model.main.drop_unused()


def _with_dynamic_range(model: Graph) -> None:
    from edge_mnv2.tflite.ir import Quantization

    layer = next(operator for operator in model.operators if operator.kind == "FULLY_CONNECTED")
    kernel = layer.inputs[1]
    assert kernel is not None
    layer.inputs[1] = Tensor.constant("q", kernel.array().astype(np.int8), Quantization.per_tensor(1.0))
    model.main.drop_unused()


@pytest.mark.parametrize(
    ("change", "scheme"),
    [
        (_with_float16_weights, "float16 weights"),
        (_with_dynamic_range, "dynamic range (int8 weights, float32 activations)"),
    ],
)
def test_weights_that_are_smaller_than_activations(tmp_path: Path, change: Any, scheme: str) -> None:
    model = graph.read(colour_model("float32"))
    change(model)
    path = tmp_path / "m.tflite"
    path.write_bytes(graph.write(model))
    found = inspection.inspect(path)
    assert scheme in found.quantization
    assert (found.macs, found.parameters) == (9, 12)


def test_several_subgraphs(run: Any, tmp_path: Path) -> None:
    model = graph.read(colour_model("float32"))
    second = graph.read(colour_model("float32", height=4, width=4)).main
    model.subgraphs.append(second)
    path = tmp_path / "two.tflite"
    path.write_bytes(graph.write(model))
    code, out, _ = run("inspect", path, "--json")
    found = json.loads(out)
    assert (code, found["subgraphs"], found["macs"]) == (0, 2, 9)
    assert found["operators"] == {"MEAN": 2, "FULLY_CONNECTED": 2, "SOFTMAX": 2}
    assert any("2 subgraphs" in note for note in found["notes"])
    assert "1.2" in run("inspect", path)[1]


@pytest.mark.parametrize(("signature", "macs"), [((-1, 8, 8, 3), 9), ((1, -1, -1, 3), None), ((-1, -1, -1, -1), None)])
def test_dynamic_shapes(run: Any, tmp_path: Path, signature: tuple[int, ...], macs: Optional[int]) -> None:
    model = graph.read(colour_model("float32"))
    model.inputs[0].shape_signature = signature
    if macs is None:
        # A converter notes the dynamic size on what follows too.
        image = Tensor("scaled", model.inputs[0].shape, "float32", shape_signature=signature)
        kernel = Tensor.constant("kernel", np.zeros((3, 1, 1, 3), np.float32))
        bias = Tensor.constant("zero", np.zeros(3, np.float32))
        options = {"stride_w": 1, "stride_h": 1}
        model.operators.insert(
            0, Operator("CONV_2D", [model.inputs[0], kernel, bias], [image], "Conv2DOptions", options)
        )
        model.operators[1].inputs[0] = image
        model.main.drop_unused()
    path = tmp_path / "m.tflite"
    path.write_bytes(graph.write(model))
    code, out, _ = run("inspect", path, "--json")
    found = json.loads(out)
    assert (code, found["macs"], found["inputs"][0]["shape"]) == (0, macs, list(signature))
    assert any("dynamic" in note for note in found["notes"])


def test_a_graph_of_nothing_but_a_shortcut(tmp_path: Path) -> None:
    image = Tensor("image", (1, 4), "float32")
    path = tmp_path / "m.tflite"
    path.write_bytes(graph.write(Graph([Subgraph([image], [image], [image], [])])))
    found = inspection.inspect(path)
    assert (found.operators, found.macs, found.parameters) == ({}, 0, 0)
    ElementTree.fromstring(model_picture(found))


def test_labels_inside_the_file(run: Any, tmp_path: Path) -> None:
    """TFLite metadata append a ZIP with the label list."""
    path = tmp_path / "m.tflite"
    path.write_bytes(colour_model())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "red\ngreen\nblue\n")
    code, out, _ = run("inspect", path, "--json")
    found = json.loads(out)
    assert (code, found["labels"]) == (0, ["red", "green", "blue"])
    assert "labels.txt" in found["labels_from"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><title>Sign in</title>", "HTML"),
        (b"\x1c\0\0\0TFL2" + bytes(100), "mark is missing"),
        (b"\x1c\0\0\0TFL3" + bytes(100), "damaged"),
        (None, "folder"),
    ],
)
def test_what_is_no_model(run: Any, tmp_path: Path, content: Optional[bytes], said: str) -> None:
    path = tmp_path / "m.tflite"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    code, out, err = run("inspect", path)
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert said in err and str(path) in err


@pytest.mark.parametrize("name", ["nosuchmodel", "no/such/file.tflite"])
def test_a_model_that_is_not_there(run: Any, name: str) -> None:
    code, out, err = run("inspect", name)
    assert (code, out, len(err.splitlines())) == (3, "", 1)


@pytest.mark.slow
def test_damaged_files_are_described_or_refused(data: Path, tmp_path: Path) -> None:
    """Cut, flipped, shortened in the middle: every output of what is accepted can be written."""
    from edge_mnv2.cli.inspect import _model_text

    chance = random.Random(20)
    originals = [path.read_bytes() for path in sorted((data / "models").glob("*.tflite"))]
    originals.append(paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite").read_bytes())
    path = tmp_path / "m.tflite"
    accepted = 0
    for number in range(300):
        broken = bytearray(chance.choice(originals))
        where = chance.randrange(len(broken))
        if number % 4 == 0:
            del broken[where:]
        elif number % 4 == 1:
            del broken[where : where + chance.randrange(200)]
        else:
            # Tables are near both ends of a file; the weights between them may hold anything.
            for _ in range(chance.randrange(1, 12)):
                place = chance.randrange(min(40_000, len(broken)))
                broken[-1 - place if chance.random() < 0.5 else place] = chance.choice((0, 1, 127, 128, 255))
        path.write_bytes(broken)
        try:
            found = inspection.inspect(path)
        except ModelError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            continue
        accepted += 1
        document = model_document(found, Resolved("m", path, "", None, None), Delegation())
        json.dumps(document, allow_nan=False).encode()
        _model_text(document).encode()
        ElementTree.fromstring(model_picture(found))
    assert 30 < accepted < 270


def _rows(picture: str) -> list[str]:
    space = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(picture)
    return [
        group.find(f"{space}text").text or ""
        for group in root.iter(f"{space}g")
        if group.find(f"{space}title") is not None
    ]  # type: ignore[union-attr]


def test_the_picture_has_every_operator_and_every_shortcut(run: Any, data: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.svg"
    code, _, _ = run("inspect", data / "models" / "mobilenet_v2_1.0_224_quant.tflite", "--svg", target)
    assert code == 0
    picture = target.read_text()
    rows = _rows(picture)
    assert len(rows) == 2 + 66
    assert sum(row.startswith("DEPTHWISE_CONV_2D 3x3") for row in rows) == 17
    assert (picture.count("url(#next)"), picture.count("url(#shortcut)")) == (67, 10)
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")


def test_the_picture_of_a_network_with_projected_shortcuts() -> None:
    first = residual((8, 8, 4), 4)
    second = residual((8, 8, 4), 8, 2)
    rows = _rows(network_picture(Network("two", (Stage("residual", (first, second)),))))
    assert [row.split()[0] for row in rows] == ["picture", "conv", "conv", "add", "conv", "conv", "conv", "add"]


def test_the_stage_table(run: Any, tmp_path: Path) -> None:
    code, out, err = run("inspect", "--network", "1.0,224", "--svg", tmp_path / "n.svg")
    assert (code, err) == (0, "")
    assert len([line for line in out.splitlines() if "bottleneck" in line]) == 7
    assert "300.8 M MACs" in out and "3,470,760 parameters" in out
    assert len(_rows((tmp_path / "n.svg").read_text())) == 1 + 52 + 2 + 10
    found = json.loads(run("inspect", "--network", "0.35,96", "--json")[1])
    assert found["macs"] == sum(stage["macs"] for stage in found["stages"]) == mobilenet_v2(0.35, 96).macs
    assert [stage["t"] for stage in found["stages"]] == [None, 1, 6, 6, 6, 6, 6, 6, None, None, None]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("mobilenet_v2_1.0_224_int8", "--network", "1.0,224"),
        ("--network", "wide"),
        ("--network", "1.0,x"),
        ("--network", "0,224"),
        ("--network", "-1,224"),
        ("--network", "nan,224"),
        ("--network", "1.0,0"),
        ("--network", "1.0,224", "--svg", "/no/such/folder/n.svg"),
    ],
)
def test_wrong_calls(run: Any, arguments: tuple[str, ...]) -> None:
    code, out, err = run("inspect", *arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
