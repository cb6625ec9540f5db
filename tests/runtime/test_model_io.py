"""Models that people bring get right answers, or one true sentence: every kind, in every command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from PIL import Image

from edge_mnv2.errors import EdgeMnv2Error, LabelsError, ModelError, UsageError
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.model_io import ModelSpec
from edge_mnv2.tflite.ir import Quantization
from tests.runtime import brought
from tests.runtime.brought import COLOUR, FLOAT_INSIDE, GAIN, SIZE, Net
from tests.stubs import colour_model, solid

Run = Callable[..., tuple[int, str, str]]


def saved(folder: Path, content: bytes, name: str = "brought.tflite") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def answer(path: Path, colour: tuple[int, int, int] = COLOUR, spec: ModelSpec = ModelSpec()) -> np.ndarray:
    with Classifier.open(path, spec=spec) as classifier:
        return classifier.scores(solid(colour))


@pytest.mark.parametrize("kind", list(FLOAT_INSIDE))
def test_scaling_inside_is_read_from_the_graph(kind: str, tmp_path: Path) -> None:
    path = saved(tmp_path, FLOAT_INSIDE[kind]().softmax().write())
    np.testing.assert_allclose(answer(path), brought.scores(), atol=1e-4)
    with Classifier.open(path) as classifier:
        assert classifier.io.input.origin["mean"] == "graph" and classifier.io.output.kind == "softmax"
        # Only the size of weights is evidence that a person may want to judge.
        assert len(classifier.notes) == kind.startswith("folded")


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_float_input_that_the_graph_quantizes_shows_its_range(low: float, tmp_path: Path) -> None:
    scale = (1 - low) / 255
    net = Net().add("QUANTIZE", dtype="uint8", quantization=Quantization.per_tensor(scale, round(-low / scale)))
    net.add("DEQUANTIZE", dtype="float32", version=2)
    path = saved(tmp_path, (net.body() if low else net.body(2.0, -1.0)).softmax().write())
    np.testing.assert_allclose(answer(path), brought.scores(), atol=0.02)
    with Classifier.open(path) as classifier:
        assert classifier.io.input.origin["std"] == "graph" and not classifier.notes


@pytest.mark.parametrize(
    ("mean", "std", "net"),
    [
        ((127.5,), (127.5,), lambda: Net().body()),
        ((0.0,), (255.0,), lambda: Net().body(2.0, -1.0)),
        ((0.0,), (1.0,), lambda: Net().body(1 / 127.5, -1.0)),
        ((100.0, 110.0, 120.0), (50.0, 60.0, 70.0), lambda: Net().arithmetic("MUL", 1.0).body()),
    ],
)
@pytest.mark.parametrize("source", ["metadata", "sidecar", "option"])
def test_mean_and_std(source: str, mean: Any, std: Any, net: Any, tmp_path: Path, run: Run) -> None:
    content = net().softmax().write(brought.metadata(mean, std) if source == "metadata" else None)
    path, picture = saved(tmp_path, content), tmp_path / "picture.png"
    if source == "sidecar":
        path.with_suffix(".yaml").write_text(f"preprocess: {{mean: {list(mean * 3)[:3]}, std: {list(std * 3)[:3]}}}\n")
    options = [] if source != "option" else ["--mean", ",".join(map(str, mean)), "--std", ",".join(map(str, std))]
    Image.new("RGB", (30, 20), COLOUR).save(picture)
    code, out, err = run("classify", picture, "--model", path, "--json", *options)
    logits = GAIN * (np.array(COLOUR) - mean) / std
    if "MUL" not in {operator.kind for operator in net().operators}:
        logits = GAIN * (np.array(COLOUR) - 127.5) / 127.5
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    scores = {one["index"]: one["score"] for one in json.loads(out)["results"][0]["top"]}
    np.testing.assert_allclose([scores[row] for row in range(3)], expected, atol=1e-3)
    assert (code, err) == (0, "")
    code, out, _ = run("inspect", path, "--json", *options)
    assert code == 0 and json.loads(out)["input"]["from"]["mean"] == source


def test_the_order_of_who_is_asked(tmp_path: Path) -> None:
    path = saved(tmp_path, Net().arithmetic("MUL", 1 / 127.5).body().write(brought.metadata((1.0,), (2.0,))))
    with Classifier.open(path) as classifier:
        assert (classifier.io.input.mean[0], classifier.io.input.origin["mean"]) == (1.0, "metadata")
    spec = ModelSpec(mean=(3.0,), origin={"mean": "sidecar"})
    with Classifier.open(path, spec=spec) as classifier:
        assert (classifier.io.input.mean, classifier.io.input.std) == ((3.0,) * 3, (1.0,) * 3)
        assert classifier.io.input.origin["mean"] == "sidecar"


def test_fractions_as_torchvision_writes_them_are_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path, Net().body().softmax().write())
    np.testing.assert_allclose(answer(path, spec=ModelSpec(mean=(0.5,), std=(0.5,))), brought.scores(), atol=1e-4)


@pytest.mark.parametrize("options", [("--input-range", "-1,1"), ("--input-range=0,255",), ("--input-range", "0,1")])
def test_a_range_is_mean_and_std(options: tuple[str, ...], tmp_path: Path, run: Run) -> None:
    low, high = (float(n) for n in options[-1].split("=")[-1].split(","))
    # An input of LOW to HIGH becomes -1 to 1 inside; nothing in the graph may be believed here.
    factor = 2 / (high - low)
    path = saved(tmp_path, Net().body(factor, -1 - low * factor).softmax().write())
    Image.new("RGB", (30, 20), COLOUR).save(tmp_path / "p.png")
    code, out, err = run("classify", tmp_path / "p.png", "--model", path, "--json", *options)
    top = json.loads(out)["results"][0]["top"][0]
    assert (code, err) == (0, "") and top["score"] == pytest.approx(brought.scores().max(), abs=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        ("--input-range", "1,0"),
        ("--input-range", "0,1", "--mean", "3"),
        ("--mean", "1,2"),
        ("--std", "0"),
        ("--mean", "red"),
        ("--input-size", "12"),
        ("--input-size", "40x40"),
        ("--task", "guess"),
        ("--model-output", "7"),
    ],
)
def test_what_cannot_be_said(options: tuple[str, ...], tmp_path: Path, run: Run) -> None:
    path = saved(tmp_path, Net().body().softmax().write())
    Image.new("RGB", (30, 20), COLOUR).save(tmp_path / "p.png")
    code, out, err = run("classify", tmp_path / "p.png", "--model", path, *options)
    assert (code, out, err.count("\n")) == (2, "", 1), err


def test_what_is_assumed_is_said_once(tmp_path: Path, run: Run) -> None:
    path = saved(tmp_path, Net().body().softmax().write())
    code, out, err = run("run", "--source", "test", "--max-frames", 3, "--model", path, "--json")
    assert code == 0 and err.count("is assumed") == 1 and "--input-range" in err
    assert json.loads(out)["frames"] == 3


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("low", "high", "means"),
    [(-1.0, 1.0, "-1..1"), (0.0, 1.0, "0..1"), (0.0, 255.0, "0..255"), (-1.1, 1.2, "-1..1"), (0.0, 0.6, "0..1")],
)
def test_the_scale_of_an_integer_input_says_what_integers_mean(
    dtype: str, low: float, high: float, means: str, tmp_path: Path
) -> None:
    first = -128 if dtype == "int8" else 0
    scale = (high - low) / 255
    net = brought.quantized(dtype, scale, round(first - low / scale))
    factor, offset = {"-1..1": (1.0, 0.0), "0..1": (2.0, -1.0), "0..255": (1 / 127.5, -1.0)}[means]
    path = saved(tmp_path, net.body(factor, offset).softmax().write())
    colour = (140, 90, 30)
    np.testing.assert_allclose(answer(path, colour), brought.scores(colour), atol=0.03)
    with Classifier.open(path) as classifier:
        exact = high - low in (1.0, 2.0, 255.0)
        assert classifier.io.input.as_pixels == exact and len(classifier.notes) == (not exact)


@pytest.mark.parametrize(
    ("mean", "std", "scale", "zero_point", "warned", "read"),
    [
        (127.0, 128.0, 1 / 128, 127, False, "metadata"),
        (127.5, 127.5, 1 / 128, 128, False, "metadata"),
        (0.0, 255.0, 1 / 255, 0, False, "metadata"),
        (127.5, 127.5, 3 / 255, 127, True, "metadata"),
        (127.5, 127.5, 1 / 255, 0, True, "metadata"),
        (0.0, 1.0, 1 / 127.5, 127, True, "graph"),
    ],
)
def test_metadata_of_an_integer_input(
    mean: float, std: float, scale: float, zero_point: int, warned: bool, read: str, tmp_path: Path
) -> None:
    """Real input = (q - zero point) * scale; one warning where that and the metadata contradict."""
    net = brought.quantized("uint8", scale, zero_point).arithmetic("MUL", 1.0).body()
    path = saved(tmp_path, net.softmax().write(brought.metadata((mean,), (std,))))
    with Classifier.open(path) as classifier:
        assert classifier.io.input.origin["mean"] == read and len(classifier.notes) == warned
        tensor = classifier._writer(np.full((SIZE, SIZE, 3), 160, np.uint8))
    wanted = (160 - mean) / std if read == "metadata" else (160 - zero_point) * scale
    low, high = -zero_point * scale, (255 - zero_point) * scale
    real = (int(tensor.flat[0]) - zero_point) * scale
    assert real == pytest.approx(np.clip(wanted, low, high), abs=scale * 1.01)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_layouts(layout: str, dtype: str, tmp_path: Path) -> None:
    shape = (1, SIZE, SIZE + 4, 3) if layout == "NHWC" else (1, 3, SIZE, SIZE + 4)
    zero = {"float32": 0, "uint8": 127, "int8": -1}[dtype]
    quantization = None if dtype == "float32" else Quantization.per_tensor(1 / 127.5, zero)
    net = Net(dtype, shape, quantization=quantization)
    if dtype != "float32":
        net.add("DEQUANTIZE", dtype="float32", version=2)
    if layout == "NCHW":
        perm = net.constant([0, 2, 3, 1], dtype=np.int32)
        net.add("TRANSPOSE", perm, shape=(1, SIZE, SIZE + 4, 3), table="TransposeOptions")
    path = saved(tmp_path, net.body().softmax().write())
    np.testing.assert_allclose(answer(path), brought.scores(), atol=0.02)
    with Classifier.open(path) as classifier:
        assert classifier.io.input.layout == layout and classifier.input_size == (SIZE, SIZE + 4)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((4, SIZE, SIZE, 3), "4 pictures at once"),
        ((1, SIZE, SIZE, 4), "takes 4 channels"),
        ((1, SIZE, SIZE, 2), "takes 2 channels"),
        ((1, 300), "takes 1x300"),
        ((1, 5, SIZE, SIZE, 3), "takes 1x5x12x12x3"),
    ],
)
def test_other_shapes_are_refused_for_their_true_reason(shape: tuple[int, ...], says: str, tmp_path: Path) -> None:
    path = saved(tmp_path, Net(shape=shape).add("RELU").write())
    with pytest.raises(ModelError, match=says):
        Classifier.open(path)


def test_sixteen_bits_are_refused_for_their_true_reason(tmp_path: Path) -> None:
    net = Net("int16", quantization=Quantization.per_tensor(1 / 32768)).add("DEQUANTIZE", dtype="float32", version=4)
    with pytest.raises(ModelError, match="int16 \\(16x8"):
        Classifier.open(saved(tmp_path, net.body().softmax().write()))


def open_size() -> bytes:
    net = Net(shape=(1, 1, 1, 3), shape_signature=(-1, -1, -1, 3)).body().softmax()
    for tensor in net.tensors:
        if tensor.data is None and len(tensor.shape) == 4:
            tensor.shape_signature = (-1, -1, -1, 3)
    return net.write()


def test_an_open_size_is_said_with_an_option_or_the_sidecar(tmp_path: Path, run: Run) -> None:
    path = saved(tmp_path, open_size())
    Image.new("RGB", (30, 20), COLOUR).save(tmp_path / "p.png")
    code, _, err = run("classify", tmp_path / "p.png", "--model", path)
    assert code == 2 and "leaves the size of its input open" in err and "--input-size" in err and err.count("\n") == 1
    code, out, _ = run("classify", tmp_path / "p.png", "--model", path, "--json", "--input-size", "16x24")
    assert code == 0
    assert json.loads(out)["results"][0]["top"][0]["score"] == pytest.approx(brought.scores().max(), abs=1e-3)
    path.with_suffix(".yaml").write_text("preprocess: {size: [32, 16], range: [-1, 1]}\n")
    with Classifier.open(path, spec=ModelSpec(size=(16, 32))) as classifier:
        assert classifier.input_size == (16, 32)
    code, out, err = run("run", "--source", "test", "--max-frames", 2, "--model", path, "--json")
    assert code == 0 and "assumed" not in err
    code, out, _ = run("inspect", path, "--json")
    assert json.loads(out)["input"]["size"] == [32, 16]
    code, out, err = run("profile", "--model", path, "--ops", "--duration", "0.3", "--json")
    assert code == 0 and "its operators cannot run one by one" in out + err


def one_output(last: Optional[str] = "LOGISTIC") -> bytes:
    """One number: red minus blue."""
    net = Net().body(rows=3).linear(np.array([[1.0, 0.0, -1.0]]))
    return (net.add(last) if last else net).write()


def probability(colour: tuple[int, int, int]) -> float:
    return float(1 / (1 + np.exp(-GAIN * (colour[0] - colour[2]) / 127.5)))


@pytest.mark.parametrize("colour", [(200, 90, 30), (30, 90, 200), (128, 90, 128)])
def test_one_sigmoid_is_two_classes(colour: tuple[int, int, int], tmp_path: Path, run: Run) -> None:
    path = saved(tmp_path, one_output())
    expected = [1 - probability(colour), probability(colour)]
    np.testing.assert_allclose(answer(path, colour), expected, atol=1e-4)
    path.with_suffix(".yaml").write_text("labels: [blue, red]\n")
    Image.new("RGB", (30, 20), colour).save(tmp_path / "p.png")
    code, out, _ = run("classify", tmp_path / "p.png", "--model", path, "--json")
    top = json.loads(out)["results"][0]["top"]
    assert code == 0 and {one["label"]: one["score"] for one in top} == pytest.approx(
        dict(zip(("blue", "red"), expected)), abs=1e-3
    )
    path.with_suffix(".yaml").write_text("labels: [red]\n")
    with Classifier.open(path, ["red"]) as classifier:
        assert classifier.scores(solid(colour)).tolist() == pytest.approx([expected[1]], abs=1e-4)


def test_evaluate_knows_two_classes_of_one_sigmoid(tmp_path: Path, run: Run) -> None:
    path = saved(tmp_path, one_output())
    path.with_suffix(".yaml").write_text("labels: [blue, red]\n")
    for number, (name, colour) in enumerate((("red", (200, 90, 30)), ("blue", (30, 90, 200)), ("blue", (9, 0, 99)))):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), colour).save(tmp_path / "set" / name / f"{number}.png")
    code, out, err = run("evaluate", tmp_path / "set", "--model", path, "--json")
    assert code == 0 and json.loads(out)["top1"] == 1.0, err


def test_what_is_said_of_a_model_is_not_said_of_the_one_that_it_is_compared_with(tmp_path: Path, run: Run) -> None:
    silent = saved(tmp_path, Net().body(2.0, -1.0).softmax().write(), "silent.tflite")
    speaking = saved(tmp_path, Net().arithmetic("MUL", 1 / 127.5).arithmetic("ADD", -1.0).body().softmax().write())
    for number, colour in enumerate(((200, 90, 30), (30, 90, 200), (30, 140, 99))):
        (tmp_path / "set" / str(number)).mkdir(parents=True)
        Image.new("RGB", (30, 20), colour).save(tmp_path / "set" / str(number) / "p.png")
    options = ("--model", silent, "--against", speaking, "--input-range", "0,1", "--json")
    code, out, err = run("evaluate", tmp_path / "set", *options)
    assert code == 0 and "assumed" not in err, err
    assert json.loads(out)["agreement"] == 1.0


@pytest.mark.parametrize("command", ["classify", "run", "evaluate", "inspect"])
def test_one_number_is_asked_about(command: str, tmp_path: Path, run: Run) -> None:
    path = saved(tmp_path, one_output(None))
    (tmp_path / "set" / "0").mkdir(parents=True)
    Image.new("RGB", (30, 20), COLOUR).save(tmp_path / "set" / "0" / "p.png")
    line = {
        "classify": ["classify", tmp_path / "set" / "0" / "p.png", "--model", path],
        "run": ["run", "--source", "test", "--max-frames", 1, "--model", path],
        "evaluate": ["evaluate", tmp_path / "set", "--model", path],
        "inspect": ["inspect", path],
    }[command]
    code, out, err = run(*line)
    assert code == (0 if command == "inspect" else 2)
    assert "--task regression" in (out if command == "inspect" else err)
    if command == "inspect":
        kinds = [json.loads(run(*line, "--json", *more)[1])["output"] for more in ([], ["--task", "classification"])]
        assert [(one["kind"], one["from"]) for one in kinds] == [("value", "assumed"), ("binary", "option")]


def test_one_number_as_a_value_and_as_a_logit(tmp_path: Path) -> None:
    path = saved(tmp_path, one_output(None))
    value = GAIN * (COLOUR[0] - COLOUR[2]) / 127.5
    assert answer(path, spec=ModelSpec(task="regression")).tolist() == pytest.approx([value], abs=1e-3)
    with Classifier.open(path, spec=ModelSpec(task="regression", unit="mm")) as classifier:
        assert classifier.top(classifier.scores(solid(COLOUR)))[0].figure == f"{value:.4g} mm"
    expected = [1 - probability(COLOUR), probability(COLOUR)]
    assert answer(path, spec=ModelSpec(task="classification")).tolist() == pytest.approx(expected, abs=1e-4)


def test_several_sigmoids_are_several_labels(tmp_path: Path, run: Run) -> None:
    path = saved(tmp_path, Net().body().add("LOGISTIC").write())
    expected = 1 / (1 + np.exp(-GAIN * (np.array(COLOUR) - 127.5) / 127.5))
    np.testing.assert_allclose(answer(path), expected, atol=1e-4)
    assert json.loads(run("inspect", path, "--json")[1])["output"]["kind"] == "multilabel"


def test_a_softmax_of_one_number_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="always 1"):
        Classifier.open(saved(tmp_path, one_output("SOFTMAX")))


@pytest.mark.parametrize("wrapping", ["none", "reshape", "cast", "quantize", "exp and sum"])
def test_a_softmax_is_recognized_by_its_operator(wrapping: str, tmp_path: Path) -> None:
    net = Net().body()
    if wrapping == "exp and sum":
        net.add("EXP")
        powers = net.last
        net.add("SUM", net.constant([1], dtype=np.int32), shape=(1, 1), table="ReducerOptions", keep_dims=True)
        total, net.last = net.last, powers
        net.add("DIV", total, table="DivOptions")
    else:
        net.softmax()
    if wrapping == "reshape":
        net.add("RESHAPE", shape=(1, 1, 1, 3), table="ReshapeOptions", new_shape=[1, 1, 1, 3])
    elif wrapping == "cast":
        net.add("CAST", dtype="float16", table="CastOptions").add("CAST", dtype="float32", table="CastOptions")
    elif wrapping == "quantize":
        net.add("QUANTIZE", dtype="uint8", quantization=Quantization.per_tensor(1 / 256))
    path = saved(tmp_path, net.write())
    np.testing.assert_allclose(answer(path), brought.scores(), atol=0.005)


def two_outputs() -> bytes:
    net = Net().body()
    trunk = net.last
    net.linear(np.ones((1, 3))).output()
    net.last = trunk
    return net.softmax().output().write()


def test_several_outputs(tmp_path: Path, run: Run) -> None:
    path = saved(tmp_path, two_outputs())
    with Classifier.open(path) as classifier:
        assert classifier.io.output.position == 1 and "2 outputs" in classifier.notes[-1]
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), brought.scores(), atol=1e-4)
        name = classifier.interpreter.outputs[0].name
    total = GAIN * (np.sum(COLOUR) - 3 * 127.5) / 127.5
    for output in ("0", name):
        spec = ModelSpec(output=output, task="regression")
        assert answer(path, spec=spec).tolist() == pytest.approx([total], abs=1e-3)
    Image.new("RGB", (30, 20), COLOUR).save(tmp_path / "p.png")
    options = ("--model-output", name, "--task", "regression")
    code, out, err = run("classify", tmp_path / "p.png", "--model", path, "--json", *options)
    assert code == 0 and "is read" not in err
    assert json.loads(out)["results"][0]["top"][0]["score"] == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("first", ["features", "logits"])
def test_features_that_scores_are_made_of_are_not_read(first: str, tmp_path: Path) -> None:
    """Of as many or more numbers than there are classes, and whichever comes first."""
    net = Net().body().linear(np.eye(4, 3))
    features = net.last
    net.linear(np.eye(3, 4))
    net.outputs = [features, net.last] if first == "features" else [net.last, features]
    with Classifier.open(saved(tmp_path, net.write())) as classifier:
        assert classifier.io.output.position == (first == "features") and len(classifier.labels) == 3
    net = Net().body()
    pooled = net.operators[-2].outputs[0]
    net.outputs = [pooled, net.last] if first == "features" else [net.last, pooled]
    np.testing.assert_allclose(answer(saved(tmp_path, net.write())), brought.scores(), atol=1e-4)


def test_whole_numbers_are_scores_where_they_are_rounded_shares(tmp_path: Path) -> None:
    for whole in (100.0, 255.0):
        net = Net().body().softmax().arithmetic("MUL", whole).add("CAST", dtype="uint8", table="CastOptions")
        np.testing.assert_allclose(answer(saved(tmp_path, net.write())), brought.scores(), atol=1 / whole)
    for dtype in ("int32", "bool"):
        path = saved(tmp_path, Net().body().softmax().add("CAST", dtype=dtype, table="CastOptions").write())
        with pytest.raises(ModelError, match=f"answers with {dtype}, not with scores"):
            Classifier.open(path)


def test_labels_packed_in_the_file_serve_every_command(tmp_path: Path, run: Run) -> None:
    packed = brought.archive(names_txt="red\ngreen\nblue\n")
    path = saved(tmp_path, Net().body().softmax().write(brought.metadata(labels=["names.txt"]), packed))
    (tmp_path / "set" / "red").mkdir(parents=True)
    Image.new("RGB", (30, 20), COLOUR).save(tmp_path / "set" / "red" / "p.png")
    code, out, _ = run("classify", tmp_path / "set" / "red" / "p.png", "--model", path, "--json")
    assert code == 0 and json.loads(out)["results"][0]["top"][0]["label"] == "red"
    code, out, _ = run("evaluate", tmp_path / "set", "--model", path, "--json")
    assert code == 0 and json.loads(out)["top1"] == 1.0
    code, out, _ = run("inspect", path, "--json")
    assert json.loads(out)["labels"] == ["red", "green", "blue"] and "packed" in json.loads(out)["labels_from"]
    path.with_suffix(".yaml").write_text("labels: [r, g, b]\n")
    code, out, _ = run("classify", tmp_path / "set" / "red" / "p.png", "--model", path, "--json")
    assert json.loads(out)["results"][0]["top"][0]["label"] == "r", "the sidecar is asked first"


def test_packed_labels_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    packed = brought.archive(names_txt="röd\ngrön\nblå\n".encode("latin-1"))
    path = saved(tmp_path, Net().body().softmax().write(brought.metadata(labels=["names.txt"]), packed))
    with Classifier.open(path) as classifier:
        assert classifier.labels == ["0", "1", "2"]
        (said,) = [note for note in classifier.notes if "names.txt" in note]
        assert str(path) in said and "cannot be read; --labels FILE" in said
    with Classifier.open(path, ["red", "green", "blue"]) as classifier:
        assert not [note for note in classifier.notes if "names.txt" in note]


def test_labels_belong_to_their_output(tmp_path: Path) -> None:
    net = Net().body()
    trunk = net.last
    net.softmax().output()
    net.last = trunk
    net.linear(np.ones((2, 3))).softmax().output()
    packed = brought.archive(a_txt="red\ngreen\nblue", b_txt="day\nnight")
    path = saved(tmp_path, net.write(brought.metadata(labels=["a.txt", "b.txt"]), packed))
    for output, names in (("0", ["red", "green", "blue"]), ("1", ["day", "night"])):
        with Classifier.open(path, spec=ModelSpec(output=output)) as classifier:
            assert classifier.labels == names


LOOSE: dict[str, tuple[dict[str, str], Optional[list[str]]]] = {
    "the right number, first": ({"a_txt": "red\ngreen\nblue\n", "read me_txt": "By me.\nFor you.\n"}, list("rgb")),
    "the right number, last": ({"about_txt": "By me.\n", "b_txt": "red\ngreen\nblue\n"}, list("rgb")),
    "a name that tells": ({"labels_txt": "red\ngreen\nblue\n", "colours_txt": "f00\n0f0\n00f\n"}, list("rgb")),
    "the same names twice": ({"a_txt": "red\ngreen\nblue\n", "a_csv": "0,red\n1,green\n2,blue\n"}, list("rgb")),
    "with a background": ({"a_txt": "By me.\n", "b_txt": "background\nred\ngreen\nblue\n"}, list("rgb")),
    "two languages": ({"de_txt": "rot\ngrün\nblau\n", "en_txt": "red\ngreen\nblue\n"}, None),
    "none": ({"a_txt": "red\ngreen\n", "b_txt": "By me.\n"}, None),
}


@pytest.mark.parametrize("case", LOOSE)
def test_of_several_packed_texts_the_one_that_fits_has_the_labels(case: str, tmp_path: Path, run: Run) -> None:
    files, first_letters = LOOSE[case]
    path = saved(tmp_path, Net().body().softmax().write(archive=brought.archive(**files)))
    if first_letters is not None:
        with Classifier.open(path) as classifier:
            assert [name[0] for name in classifier.labels] == first_letters
        return
    with pytest.raises(LabelsError, match="2 lists packed that may be its 3 classes' names") as caught:
        Classifier.open(path)
    assert "--labels" in str(caught.value.hint)
    with Classifier.open(path, ["r", "g", "b"]) as classifier:
        assert classifier.labels == ["r", "g", "b"]
    with Classifier.open(path, []) as classifier:
        assert classifier.labels == ["0", "1", "2"]
    code, out, _ = run("inspect", path, "--json")
    assert code == 0 and "2 lists packed" in out and json.loads(out)["labels"] is None


def test_calibration_and_descriptions_are_no_labels(tmp_path: Path) -> None:
    """A calibration of scores has a line a class too."""
    packed = brought.archive(a_txt="0.9,0.1\n0.8,0.2\n0.7,0.3\n")
    for kind, names in ((4, ["0", "1", "2"]), (0, ["0.9,0.1", "0.8,0.2", "0.7,0.3"])):
        path = saved(tmp_path, Net().body().softmax().write(brought.metadata(labels=["a.txt"], kind=kind), packed))
        with Classifier.open(path) as classifier:
            assert classifier.labels == names


def test_two_outputs_may_have_the_same_labels(tmp_path: Path) -> None:
    net = Net().body().softmax().output().softmax().output()
    packed = brought.archive(a_txt="red\ngreen\nblue")
    path = saved(tmp_path, net.write(brought.metadata(labels=["a.txt", "a.txt"]), packed))
    for output in "01":
        with Classifier.open(path, spec=ModelSpec(output=output)) as classifier:
            assert classifier.labels == ["red", "green", "blue"]


def test_damaged_metadata_and_archives_are_no_reason_to_fail(tmp_path: Path) -> None:
    whole = brought.metadata((127.5,), (127.5,), ["names.txt"])
    packed = brought.archive(names_txt="red\ngreen\nblue\n")
    random = np.random.default_rng(0)
    for number in range(60):
        data = bytearray(whole if number % 2 else packed)
        for _ in range(3):
            data[random.integers(len(data))] = random.integers(256)
        parts = (bytes(data), packed) if number % 2 else (whole, bytes(data))
        try:
            scores = answer(saved(tmp_path, Net().body().softmax().write(*parts)))
        except EdgeMnv2Error:
            continue
        assert scores.shape == (3,)


def test_scales_beyond_all_arithmetic_are_no_lack_of_memory(tmp_path: Path) -> None:
    path = saved(tmp_path, colour_model("int8", input_scale=1e30))
    try:
        answer(path)
    except ModelError as error:
        # XNNPACK refuses it; runtimes without it compute something.
        assert str(path) in str(error) and "larger than" in str(error) and "\n" not in str(error)


def test_the_reader_asks_before_an_interpreter_is_opened_with_a_wrong_size(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it takes 12x12"):
        Classifier.open(saved(tmp_path, Net().body().write()), spec=ModelSpec(size=(9, 9)))
