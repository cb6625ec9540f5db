"""The simulated int8 network against the file that `build` writes, and what training for it is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `train`)")

from edge_mnv2.builder.calibration import rounded_ranges  # noqa: E402
from edge_mnv2.builder.inference import operations  # noqa: E402
from edge_mnv2.builder.tflite_model import integer_model, numbers  # noqa: E402
from edge_mnv2.errors import UsageError  # noqa: E402
from edge_mnv2.network.network import Head, mobilenet_v2  # noqa: E402
from edge_mnv2.runtime.interpreter import Interpreter, open_interpreter  # noqa: E402
from edge_mnv2.train.integer_network import quantized_multiplier, requantized  # noqa: E402
from edge_mnv2.train.module import NetworkModule, load_tensors, normalized  # noqa: E402
from edge_mnv2.train.qat import calibrated  # noqa: E402
from edge_mnv2.train.simulation import Simulation  # noqa: E402
from edge_mnv2.train.training_loop import TrainingPhase  # noqa: E402
from edge_mnv2.train.training_request import TrainRequest  # noqa: E402
from edge_mnv2.train.training_run import train  # noqa: E402
from tests.network import seeded  # noqa: E402
from tests.train.test_training_run import TINY, Quiet, colours, run, same_weights, seeded_weights  # noqa: E402

__all__ = ["colours", "seeded_weights"]

_PICTURES = 100


def pictures(resolution: int, count: int = _PICTURES) -> np.ndarray:
    return np.stack([seeded.picture(resolution, seed) for seed in range(count)])


def tensor(images: np.ndarray) -> torch.Tensor:
    return normalized(torch.from_numpy(images).permute(0, 3, 1, 2))


def file_answers(interpreter: Interpreter, images: np.ndarray) -> np.ndarray:
    """Integers (pictures, outputs)."""
    found = []
    for image in images:
        interpreter.set_input(image[None])
        interpreter.invoke()
        found.append(interpreter.output().reshape(-1).astype(int).copy())
    return np.array(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures to calibrate with."""
    found = tmp_path_factory.mktemp("calibration")
    for seed in range(12):
        Image.fromarray(seeded.picture(80, 500 + seed)).save(found / f"{seed}.png")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "width,resolution,head",
    [(0.35, 32, Head()), (0.75, 47, Head()), (0.35, 64, Head("regression")), (0.35, 96, Head())],
    ids=["0.35-32", "0.75-47", "0.35-64-regression", "0.35-96"],
)
def test_the_simulated_network_is_the_file(width: float, resolution: int, head: Head, folder: Path) -> None:
    network = mobilenet_v2(width, resolution, 1 if head.task == "regression" else 7, head)
    tensors = seeded.tensors(network.state_dict_shapes())
    module = NetworkModule(network)
    load_tensors(module, tensors)
    ranges = calibrated(module, folder)
    simulation, images = Simulation(module, ranges), pictures(resolution)
    with torch.inference_mode():
        found = torch.cat([simulation(tensor(images[start : start + 25])) for start in range(0, _PICTURES, 25)])
    steps = operations(network, tensors)
    model = integer_model(network, steps, numbers(network, steps, rounded_ranges(ranges)))
    with open_interpreter(model, xnnpack=False) as interpreter:
        spec, real = interpreter.outputs[0], file_answers(interpreter, images)
    simulated = np.rint(found.numpy() / spec.scale + spec.zero_point).astype(int)
    assert len(np.unique(real, axis=0)) > 20
    # To the last bit, with means over 1, 4 and 9 cells.
    np.testing.assert_array_equal(simulated, real)


def test_training_sees_the_files_weights_and_nearly_its_activations(folder: Path) -> None:
    network = mobilenet_v2(0.35, 32, 7)
    module = NetworkModule(network)
    load_tensors(module, seeded.tensors(network.state_dict_shapes()))
    simulation, images = Simulation(module, calibrated(module, folder)), tensor(pictures(32, 32))
    with torch.no_grad():
        exact, straight = simulation(images), simulation.straight_through(images)
        module.eval()
        plain = module(images)
    assert float((exact - straight).square().mean()) < 0.5 * float((exact - plain).square().mean())
    simulation.straight_through(images).square().sum().backward()
    assert all(bool(one.grad.abs().sum() > 0) for name, one in module.named_parameters() if "classifier" not in name)


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.999999, 1.7, 3e-4, 2.0**-31])
def test_requantization_is_a_product_rounded_twice(factor: float) -> None:
    # The second rounding can add half of what the first one left.
    values = torch.tensor([0, 1, -1, 7, -7, 1000, -1000, 123_456_789, -123_456_789])
    found = requantized(values, quantized_multiplier(np.array([factor])))
    exact = values.double() * factor
    assert float((found.double() - exact).abs().max()) <= 0.75 + 1e-9 * float(exact.abs().max())


class Interrupted(Exception):
    pass


class StopsWithinQat(Quiet):
    def epoch(self, entry: dict[str, Any], phase: TrainingPhase, seconds_left: float) -> None:
        if phase.name == "qat":
            raise Interrupted


@pytest.mark.slow
def test_a_run_with_qat_builds_what_it_measured_and_goes_on_after_a_stop(
    colours: Path, seeded_weights: Path, tmp_path: Path
) -> None:
    fields = {"weights": str(seeded_weights), "epochs": 2, "freeze_until": 10, "qat": 2, "learning_rate": 0.005}
    out = tmp_path / "out"
    document = run(colours, out, **fields)
    report = document["quantization"]
    assert set(report) == {"float", "post_training_int8", "qat_int8"} and report["float"]["agreement"] == 1.0
    assert all(Path(one["model"]).is_file() and 0 <= one["top1"] <= 1 for one in report.values())
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [entry["course"] for entry in entries] == ["float"] * 2 + ["qat"] * 2
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert state["course"] == "qat" and state["positions"]["qat"]["epoch"] == 2
    kept = {name: (out / name).read_bytes() for name in ("qat.pth", "qat.ranges.json", "qat_int8.tflite")}
    again = run(colours, out, resume=True)
    assert again["quantization"] == report
    assert all((out / name).read_bytes() == content for name, content in kept.items())
    other = tmp_path / "other"
    request = TrainRequest(colours, other, **{**TINY, **fields})
    with pytest.raises(Interrupted):
        train(request, say=lambda line: None, watcher=StopsWithinQat())
    run(colours, other, resume=True)
    assert same_weights(out / "last.pth", other / "last.pth") and same_weights(out / "qat.pth", other / "qat.pth")


@pytest.mark.slow
def test_qat_answers_more_like_its_parent_than_the_usual_way_does(
    colours: Path, seeded_weights: Path, tmp_path: Path
) -> None:
    """On pictures that took no part: a narrow network whose post-training int8 file loses much."""
    out, chance = tmp_path / "out", np.random.default_rng(9)
    run(colours, out, weights=str(seeded_weights), epochs=8, freeze_until=12, learning_rate=0.002, qat=24)
    shades = chance.uniform(30, 220, (200, 1, 1, 3))
    images = np.clip(shades + chance.normal(0, 40, (200, 32, 32, 3)), 0, 255).astype(np.uint8)
    shares = {}
    for name in ("float", "post_training_int8", "qat_int8"):
        with open_interpreter(out / f"{name}.tflite", xnnpack=False) as interpreter:
            spec, found = interpreter.outputs[0], []
            for image in (images.astype(np.float32) / 127.5 - 1.0) if name == "float" else images:
                interpreter.set_input(image[None])
                interpreter.invoke()
                found.append(spec.dequantize(interpreter.output().reshape(-1)).copy())
        shares[name] = torch.from_numpy(np.array(found)).softmax(1)
    parent = shares.pop("float")
    distance = {name: float((parent * (parent / one).log()).sum(1).mean()) for name, one in shares.items()}
    agreement = {name: float((parent.argmax(1) == one.argmax(1)).float().mean()) for name, one in shares.items()}
    assert distance["qat_int8"] < distance["post_training_int8"]
    # Of 200 shades between the colours some lie on a boundary, where any rounding decides.
    assert agreement["qat_int8"] >= agreement["post_training_int8"] - 0.02


def test_ranges_of_other_weights_or_sizes_are_refused(folder: Path, tmp_path: Path) -> None:
    from edge_mnv2.builder.recipe import build
    from edge_mnv2.builder.request import BuildRequest

    shapes = mobilenet_v2(0.35, 32, 3).state_dict_shapes()
    one = seeded.write_safetensors(tmp_path / "one.safetensors", seeded.tensors(shapes))
    other = seeded.write_safetensors(tmp_path / "other.safetensors", seeded.tensors(shapes, seed=2))
    first = BuildRequest(tmp_path / "a.tflite", str(one), resolution=32, calibration=folder)
    build(first)
    ranges = tmp_path / "a.ranges.json"
    report = build(BuildRequest(tmp_path / "b.tflite", str(one), resolution=32, ranges=ranges))
    assert (tmp_path / "b.tflite").read_bytes() == (tmp_path / "a.tflite").read_bytes() and report.comparison is None
    with pytest.raises(UsageError, match=r"are not those that the ranges in .* belong to"):
        build(BuildRequest(tmp_path / "c.tflite", str(other), resolution=32, ranges=ranges))
    with pytest.raises(UsageError, match="are for 32 pixels, the model takes 64: --resolution 32"):
        build(BuildRequest(tmp_path / "c.tflite", str(one), resolution=64, ranges=ranges))
    with pytest.raises(UsageError, match="leave out --float"):
        build(BuildRequest(tmp_path / "c.tflite", str(one), resolution=32, ranges=ranges, floating=True))
