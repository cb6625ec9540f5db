"""What follows the logits in an integer model: nothing, a softmax, or a value within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.builder.backbone import cut
from edge_mnv2.builder.calibration import activation_limits, activation_ranges, spanned
from edge_mnv2.builder.comparison import WIDER, choose_share
from edge_mnv2.builder.inference import Normalization, operations
from edge_mnv2.builder.onnx_model import onnx_model
from edge_mnv2.builder.tflite_model import direct_pixels, float_model, integer_model, numbers
from edge_mnv2.errors import ModelError
from edge_mnv2.network.network import Head, mobilenet_v2
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.tflite import graph
from edge_mnv2.tflite.edgetpu_limits import verdict
from tests.network import reference, seeded

PICTURES = [seeded.picture(64, seed) for seed in range(6)]
PICTURES_OF_32 = [seeded.picture(32, seed) for seed in range(3)]


def answers(head: Head) -> tuple[bytes, np.ndarray]:
    """The integer model with `head`, and its real answers to the pictures."""
    network = mobilenet_v2(0.35, 64, 2, head)
    steps = operations(network, seeded.tensors(network.state_dict_shapes()))
    found = activation_ranges(float_model(network, steps), steps, PICTURES, regression=head.task == "regression")
    model = integer_model(network, steps, numbers(network, steps, found))
    given = []
    with open_interpreter(model, xnnpack=False) as interpreter:
        for picture in PICTURES:
            interpreter.set_input(picture[None])
            interpreter.invoke()
            given.append(interpreter.outputs[0].dequantize(interpreter.output()[0]))
    return model, np.array(given, np.float64)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, 100.0), (10.0, 30.0), (-50.0, 50.0), (-3.0, -1.0)])
def test_bounded_values(bounds: tuple[float, float]) -> None:
    low, high = bounds
    _, z = answers(Head("regression"))
    model, values = answers(Head("regression", bounds=bounds))
    assert (values >= low - 1e-6).all() and (values <= high + 1e-6).all() and values.std() > 0
    # One step of the sigmoid's 256ths, and one of an output range that has to hold 0 as well.
    step = (high - low) / 256 + (max(high, 0.0) - min(low, 0.0)) / 255
    np.testing.assert_allclose(values, low + (high - low) * reference.sigmoid(z), atol=1.01 * step)
    found = verdict(graph.read(model))
    assert found is not None and found.problems == ()
    assert {tensor.dtype for tensor in graph.read(model).tensors} <= {"uint8", "int8", "int32"}


def test_probabilities() -> None:
    _, z = answers(Head())
    _, shares = answers(Head(softmax=True))
    np.testing.assert_allclose(shares, reference.softmax(z), atol=1.01 / 256)


@pytest.mark.parametrize(
    ("widths", "share"),
    [
        ([1.0] * 12, 0.0),
        ([1000.0] + [1.0] * 11, 0.0),
        ([1.0] + [0.02] * 11, WIDER),
        ([1.0, 100.0] + [0.4, 1.0] * 5, 0.0),
    ],
)
def test_wider_ranges_only_where_they_pay(widths: list[float], share: float) -> None:
    """Of crops alike, of one odd crop a thousand times as wide, of crops that but for one show next to nothing, and of
    crops of which every second says the opposite of the others."""
    network = mobilenet_v2(0.35, 64, 2)
    steps = operations(network, seeded.tensors(network.state_dict_shapes()))
    real = float_model(network, steps)
    pictures = [seeded.picture(64, seed) for seed in range(12)]
    widest = {name: (ends.min(), ends.max()) for name, ends in activation_limits(real, steps, pictures).items()}
    limits = {name: np.outer(widths, ends) for name, ends in widest.items()}

    def integers(some: Mapping[str, np.ndarray], share: float) -> bytes:
        return integer_model(network, steps, numbers(network, steps, spanned(some, share)))

    assert choose_share(real, pictures, limits, integers) == share


# Of MNIST, of CIFAR, very dark, very light, and the two that most are trained with.
NORMALIZATIONS = [(0.1307, 0.3081), (0.49, 0.26), (0.02, 0.05), (0.9, 0.1), (0.2, 0.2), (0.456, 0.225), (0.5, 0.5)]


@pytest.mark.parametrize(("mean", "std"), NORMALIZATIONS)
@pytest.mark.parametrize("form", ["float32", "uint8", "int8", "taught", "onnx"])
def test_pixels_go_into_a_built_model_as_it_was_trained(mean: float, std: float, form: str, tmp_path: Path) -> None:
    pictures = Normalization((mean, mean * 0.9, mean * 1.05), (std, std * 0.9, std * 1.1))
    network = mobilenet_v2(0.1, 32, 3)
    steps = operations(network, seeded.tensors(network.state_dict_shapes()))
    real = float_model(network, steps, pictures)
    integers = numbers(network, steps, activation_ranges(real, steps, [seeded.picture(32, 1)]), pictures)
    path = tmp_path / ("m.onnx" if form == "onnx" else "m.tflite")
    if form == "onnx":
        pytest.importorskip("onnxruntime", reason="no onnxruntime wheel for this system")
        said = direct_pixels(integers[0]) or ()
        properties = dict(zip(("mean", "std"), map(str, said)))
        path.write_bytes(onnx_model(network, steps, integers, properties, pictures))
    elif form == "float32":
        path.write_bytes(real)
    else:
        path.write_bytes(integer_model(network, steps, integers, input_dtype="int8" if form == "int8" else "uint8"))
    if form == "taught":
        backbone = cut(graph.read(path.read_bytes())).graph
        path.write_bytes(graph.write(backbone))
    with Classifier.open(path) as classifier:
        image = classifier.io.input
        if form == "float32":
            assert (image.mean, image.std) == ((127.5,) * 3, (127.5,) * 3)
        else:
            written = image.writer(classifier.input)(pixels := seeded.picture(32, 2)).astype(int).reshape(pixels.shape)
            np.testing.assert_array_equal(written + (128 if form == "int8" else 0), pixels)
        assert classifier.notes == []


@pytest.mark.parametrize("weight", [1e-9, 1e-14, 1e-25])
@pytest.mark.parametrize("layer", ["features.3.conv.0", "features.3.conv.1", "features.18"])
def test_a_channel_that_training_switched_off_keeps_its_bias(layer: str, weight: float) -> None:
    network = mobilenet_v2(0.1, 32, 3)
    state = seeded.tensors(network.state_dict_shapes())
    # Weight decay brings the weights down and the variance with them; what is added afterwards stays.
    state[f"{layer}.0.weight"][1] *= weight
    state[f"{layer}.1.running_mean"][1] = state[f"{layer}.1.running_var"][1] = 0
    state[f"{layer}.1.bias"][1] = 0.5
    steps = operations(network, state)
    real = float_model(network, steps)
    ranges = activation_ranges(real, steps, PICTURES_OF_32)
    model = integer_model(network, steps, numbers(network, steps, ranges))
    with open_interpreter(model, xnnpack=False, preserve_all_tensors=True) as interpreter:
        interpreter.set_input(PICTURES_OF_32[0][None])
        interpreter.invoke()
        tensor = next(one for one in interpreter.tensor_details() if one["name"] == f"{layer}.1")
        scale, zero = tensor["quantization"]
        values = scale * (interpreter.tensor(tensor["index"])[..., 1].astype(float) - zero)
    np.testing.assert_allclose(values, 0.5, atol=1.01 * scale)


@pytest.mark.parametrize("wrong", [(np.nan, 1.0), (0.0, np.inf), (-np.inf, 0.0), (2.0, -1.0)])
def test_ranges_that_no_integers_can_hold_are_refused(wrong: tuple[float, float]) -> None:
    # A scale that is no number ends the process that loads the model.
    network = mobilenet_v2(0.1, 32, 3)
    steps = operations(network, seeded.tensors(network.state_dict_shapes()))
    ranges = {step.output: (-1.0, 1.0) for step in steps}
    with pytest.raises(ModelError, match="which no integers can hold"):
        numbers(network, steps, {**ranges, steps[-1].output: wrong})
