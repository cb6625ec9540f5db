"""Whole runs on tiny pictures: files, resuming after a kill, what stops a run."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `train`)")

from edge_mnv2.builder.recipe import build  # noqa: E402
from edge_mnv2.builder.request import BuildRequest  # noqa: E402
from edge_mnv2.builder.weights import read_weights  # noqa: E402
from edge_mnv2.datasets.labelled_pictures import Example  # noqa: E402
from edge_mnv2.errors import ModelError, SourceError, TrainingError, UsageError  # noqa: E402
from edge_mnv2.network.network import Network, mobilenet_v2  # noqa: E402
from edge_mnv2.train.setup import check_batch, picture_bytes, write_labels  # noqa: E402
from edge_mnv2.train.training_data import TrainingData  # noqa: E402
from edge_mnv2.train.training_loop import out_of_memory  # noqa: E402
from edge_mnv2.train.training_request import TrainRequest  # noqa: E402
from edge_mnv2.train.training_run import train  # noqa: E402
from edge_mnv2.zoo.labels import parse_labels, read_labels  # noqa: E402
from edge_mnv2.zoo.sidecar import companions  # noqa: E402
from tests.network import seeded  # noqa: E402

COLOURS = {"blue": (30, 40, 220), "green": (40, 200, 60), "red": (220, 30, 40)}
TINY = {"width": 0.35, "resolution": 32, "batch": 8, "threads": 1, "augment": "crop"}


class Quiet:
    def step(self, *_: Any) -> None: ...

    def epoch(self, *_: Any) -> None: ...


def run(folder: Path, out: Path, lines: list[str] | None = None, chosen: tuple = (), **fields: Any) -> dict[str, Any]:
    said = lines if lines is not None else []
    request = TrainRequest(folder, out, **{**TINY, **fields})
    return train(request, say=said.append, watcher=Quiet(), chosen=chosen)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen noisy pictures of each of three colours."""
    folder, chance = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(16):
            pixels = np.clip(np.array(colour) + chance.normal(0, 40, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def seeded_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features that tell colours apart without having been trained, so that few steps are enough."""
    shapes = mobilenet_v2(0.35, 32, 5).state_dict_shapes()
    return seeded.write_safetensors(tmp_path_factory.mktemp("weights") / "w.safetensors", seeded.tensors(shapes))


@pytest.fixture(scope="module")
def trained(
    colours: Path, seeded_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("trained") / "out"
    return out, run(colours, out, epochs=8, weights=str(seeded_weights), freeze_until=17, learning_rate=0.01)


def test_a_run_learns_and_leaves_what_build_takes(
    trained: tuple[Path, dict[str, Any]], colours: Path, tmp_path: Path
) -> None:
    out, document = trained
    assert document["top1"] >= 0.8 and document["ended"] == "epochs" and document["failed"] == []
    assert document["pictures"] == {"train": 39, "validation": 9} and document["classes"] == 3
    assert (out / "labels.txt").read_text().split() == list(COLOURS)
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in entries] == list(range(1, 9))
    best = [entry for entry in entries if entry["best"]][-1]
    assert best["epoch"] == document["best_epoch"] and best["validation"]["top1"] == document["top1"]
    page = (out / "curves.html").read_text()
    assert page.count("<svg") == 3 and "<script" not in page and "Learning rate" in page
    report = build(
        BuildRequest(
            tmp_path / "m.tflite",
            weights=str(out / "best.pth"),
            resolution=32,
            labels=out / "labels.txt",
            calibration=colours,
        )
    )
    assert report.network.name == "mobilenet_v2_0.35_32"
    assert report.comparison is not None and report.comparison.agreement is not None
    assert report.comparison.agreement > 0.4


def test_workers_change_nothing(trained: tuple[Path, dict[str, Any]], colours: Path, tmp_path: Path) -> None:
    run(colours, tmp_path / "one", epochs=1, workers=1)
    run(colours, tmp_path / "none", epochs=1)
    assert same_weights(tmp_path / "one" / "last.pth", tmp_path / "none" / "last.pth")
    assert not same_weights(tmp_path / "one" / "last.pth", trained[0] / "last.pth")


def same_weights(one: Path, other: Path) -> bool:
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


KILLED = {"epochs": 3, "optimizer": "momentum", "checkpoint_every": 3, "seed": 3, "batch": 4}


@pytest.mark.slow
def test_killed_at_a_random_step_and_resumed_is_as_if_nothing_had_happened(colours: Path, tmp_path: Path) -> None:
    run(colours, tmp_path / "whole", **KILLED)
    out = tmp_path / "killed"
    options = {**TINY, **KILLED}
    command = [sys.executable, "-m", "edge_mnv2", "train", str(colours), "--out", str(out), "--resume"]
    for name, value in options.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    chance, seen = random.Random(), set()
    wanted = chance.randint(1, 6)
    while process.poll() is None and len(seen) < wanted:
        with contextlib.suppress(FileNotFoundError):
            seen.add((out / "checkpoint.pt").stat().st_mtime_ns)
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.05))
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert end.returncode == 0 and "going on in epoch" in end.stderr, end.stderr
    assert same_weights(out / "last.pth", tmp_path / "whole" / "last.pth")
    assert same_weights(out / "best.pth", tmp_path / "whole" / "best.pth")
    assert timeless(out) == timeless(tmp_path / "whole")


def timeless(out: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


@pytest.mark.slow
def test_a_folder_with_a_run_is_not_overwritten_and_resuming_keeps_what_was_asked_for(
    trained: tuple[Path, dict[str, Any]], colours: Path, tmp_path: Path
) -> None:
    out, _ = trained
    with pytest.raises(UsageError, match="holds a run already: --resume"):
        run(colours, out)
    with pytest.raises(UsageError, match=r"--width 0\.5: the run in .* began with 0\.35"):
        run(colours, out, resume=True, width=0.5, chosen=("width",))
    before = (out / "last.pth").read_bytes()
    document = run(colours, out, resume=True)
    assert document["epochs"] == 8 and (out / "last.pth").read_bytes() == before
    picture = next((colours / "red").iterdir())
    other = tmp_path / "other"
    for name in COLOURS:
        (other / name).mkdir(parents=True)
        for number in range(4):
            (other / name / f"{number}.png").write_bytes(picture.read_bytes())
    with pytest.raises(UsageError, match="holds other pictures"):
        run(other, out, resume=True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ModelError, match="damaged or no checkpoint"):
        run(colours, tmp_path / "damaged", resume=True)
    lines: list[str] = []
    run(colours, tmp_path / "fresh", lines, resume=True, epochs=1)
    assert any("beginning anew" in line for line in lines)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_best(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss is not finite any more in epoch \d+, step \d+") as caught:
        run(colours, tmp_path / "out", epochs=30, optimizer="sgd", learning_rate=1e30, schedule="constant")
    assert "--learning-rate 0.1" in str(caught.value) and caught.value.exit_code == 1
    good = tmp_path / "good"
    run(colours, good, epochs=1)
    kept = (good / "best.pth").read_bytes()
    state = torch.load(good / "checkpoint.pt", weights_only=True)
    state["request"]["epochs"], state["request"]["learning_rate"] = 3, 1e30
    torch.save(state, good / "checkpoint.pt")
    with pytest.raises(TrainingError, match="the best network is that of epoch 1"):
        run(colours, good, resume=True)
    assert (good / "best.pth").read_bytes() == kept


def test_early_end_after_epochs_without_progress(colours: Path, tmp_path: Path) -> None:
    document = run(colours, tmp_path / "out", epochs=20, patience=2, learning_rate=1e-9, augment="none")
    assert document["ended"] == "patience" and document["epochs"] < 20


def test_weights_of_a_file_begin_the_run_and_other_widths_are_named(
    colours: Path, seeded_weights: Path, tmp_path: Path
) -> None:
    weights = seeded_weights
    lines: list[str] = []
    run(colours, tmp_path / "out", lines, weights=str(weights), epochs=1, freeze_until=19, width=None)
    assert any("0.35" in line and "from w.safetensors" in line for line in lines)
    after = read_weights(tmp_path / "out" / "last.pth")
    assert after.outputs == 3 and after.width == 0.35
    for name, values in read_weights(weights).tensors.items():
        if name.startswith("features."):
            assert np.array_equal(after.tensors[name], values), name
    with pytest.raises(ModelError, match=r"have width 0\.35, --width says 0\.5"):
        run(colours, tmp_path / "b", weights=str(weights), width=0.5)
    with pytest.raises(UsageError, match=r"width 1\.0 only, not 0\.5"):
        run(colours, tmp_path / "b", weights="imagenet", width=0.5)


@pytest.mark.parametrize(
    ("network", "renamed"),
    [
        (
            mobilenet_v2(0.35, 32, 3, hidden=(16,)),
            {"classifier.1": "classifier.3", "classifier.hidden.0": "classifier.1"},
        ),
        (mobilenet_v2(0.1, 32, 3, divisor=4), {}),
    ],
    ids=["head of two layers", "channels by four"],
)
def test_weights_of_other_shapes_that_build_takes_begin_a_run_too(
    network: Network, renamed: dict[str, str], colours: Path, tmp_path: Path
) -> None:
    state = {}
    for name, values in seeded.tensors(network.state_dict_shapes()).items():
        layer, _, field = name.rpartition(".")
        state[f"{renamed.get(layer, layer)}.{field}"] = values
    weights = seeded.write_safetensors(tmp_path / "w.safetensors", state)
    before = read_weights(weights)
    assert before.outputs == 3
    run(colours, tmp_path / "out", weights=str(weights), epochs=1, freeze_until=19, width=None)
    after = read_weights(tmp_path / "out" / "last.pth")
    assert (after.outputs, after.hidden, after.divisor) == (3, (), before.divisor)
    for name, values in before.tensors.items():
        if name.startswith("features."):
            assert np.array_equal(after.tensors[name], values), name


def test_names_of_classes_are_read_as_they_were_written(tmp_path: Path) -> None:
    # Read plainly, the second list would even change places.
    for names in (("0 pot", "1 cup"), ("cup,1", "pot,0"), ("cup", "pot")):
        folder = tmp_path / names[0]
        examples = [Example(folder / f"{row}.png", f"{row}.png", row) for row in range(2)]
        folder.mkdir()
        write_labels(folder, TrainingData(folder, folder, names, examples, examples))
        assert read_labels(folder / "labels.txt") == list(names)
        files = dict(companions(tmp_path / "m.tflite", b"", "test", task="classification", labels=names))
        assert parse_labels(files[tmp_path / "m.labels.txt"]) == list(names)


def test_pictures_that_cannot_be_read_are_named_once_and_left_out(colours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in COLOURS:
        (folder / name).mkdir(parents=True)
        for picture in (colours / name).iterdir():
            (folder / name / picture.name).write_bytes(picture.read_bytes())
    (folder / "red" / "3.png").write_bytes((colours / "red" / "3.png").read_bytes()[:200])
    (folder / "blue" / "5.png").write_bytes(b"")
    lines: list[str] = []
    document = run(folder, tmp_path / "out", lines, epochs=2)
    assert sorted(entry["file"] for entry in document["failed"]) == ["blue/5.png", "red/3.png"]
    assert sum("left out" in line for line in lines) == 2
    for picture in folder.rglob("*.png"):
        picture.write_bytes(b"no picture")
    with pytest.raises(SourceError, match="none of the training pictures"):
        run(folder, tmp_path / "none", epochs=1)


@pytest.mark.slow
def test_a_measured_value_is_learned(seeded_weights: Path, tmp_path: Path) -> None:
    folder, chance, rows = tmp_path / "set", np.random.default_rng(0), ["file,value"]
    folder.mkdir()
    for number in range(40):
        grey = 20 + 5 * number
        pixels = np.clip(grey + chance.normal(0, 5, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{1000 + 10 * grey}")
    (folder / "labels.csv").write_text("\n".join(rows))
    document = run(
        folder,
        tmp_path / "out",
        task="regression",
        epochs=20,
        weights=str(seeded_weights),
        freeze_until=19,
        learning_rate=5e-4,
    )
    # Always answering the mean would be off by the spread of the values, 577.
    assert document["rmse"] < 400 and document["mae"] <= document["rmse"] and document["top1"] is None
    weights = read_weights(tmp_path / "out" / "best.pth")
    assert weights.outputs == 1 and not (tmp_path / "out" / "labels.txt").exists()


def test_a_batch_that_cannot_fit_names_one_that_does() -> None:
    network = mobilenet_v2(1.0, 224, 10)
    check_batch(network, 32, None)
    check_batch(network, 32, 64 << 30)
    with pytest.raises(
        UsageError, match=r"--batch 4096 at 224 pixels needs about [\d.]+ GB, 4.0 GB are free"
    ) as caught:
        check_batch(network, 4096, 4 << 30)
    fits = int(str(caught.value).split("--batch ")[-1].split()[0])
    check_batch(network, fits, 4 << 30)
    assert fits * picture_bytes(network) < 4 << 30


def test_running_out_of_memory_tries_what_would_fit() -> None:
    tried: list[int] = []

    def attempt(pictures: int) -> None:
        tried.append(pictures)
        if pictures > 8:
            torch.empty(1 << 60, dtype=torch.uint8)

    assert "--batch 8 fits" in str(out_of_memory(64, attempt))
    assert tried == [32, 16, 8]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_run_with_a_checkpoint(colours: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "edge_mnv2", "train", str(colours), "--out", str(out), "--epochs", "500"]
    for name, value in TINY.items():
        command += ["--" + name, str(value)]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (out / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    answer, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume` goes on from here" in said
    document = json.loads(answer)
    assert document["ended"] == "signal" and document["epochs"] >= 1
    assert torch.load(out / "checkpoint.pt", weights_only=True)["positions"]["float"]["epoch"] >= 1


def test_the_picture_size_in_memory_is_of_the_right_order() -> None:
    """Bytes that PyTorch keeps for the way back, against the estimate."""
    from edge_mnv2.train.module import NetworkModule

    network = mobilenet_v2(0.35, 96, 10)
    kept: dict[int, int] = {}

    def note(values: torch.Tensor) -> torch.Tensor:
        kept[values.data_ptr()] = values.numel() * values.element_size()
        return values

    module: Callable = NetworkModule(network)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
        module(torch.randn(4, 3, 96, 96))
    assert sum(kept.values()) / 4 == pytest.approx(picture_bytes(network), rel=0.5)


@pytest.mark.slow
def test_adagrad_is_a_plain_pytorch_loop(colours: Path, tmp_path: Path) -> None:
    """Bit for bit, in the same memory layout. In another one sums are rounded otherwise, and AdaGrad's first step is
    the sign of each gradient: two such loops differ in the fourth digit of the loss."""
    from edge_mnv2.train.batches import Order, Pictures, make_loader
    from edge_mnv2.train.module import NetworkModule, normalized, saved_state
    from edge_mnv2.train.optimizers import rate_at
    from edge_mnv2.train.training_data import Augmentation, read_training_data

    run(colours, tmp_path / "out", epochs=1, optimizer="adagrad", augment="none", weights="none", seed=1)
    torch.manual_seed(1)
    data = read_training_data(colours, "classification", 0.2, 1)
    module = NetworkModule(mobilenet_v2(0.35, 32, 3)).to(memory_format=torch.channels_last)
    order = Order(len(data.train), 8, seed=1)
    kernels = [one for one in module.parameters() if one.ndim > 1]
    others = [one for one in module.parameters() if one.ndim <= 1]
    optimizer = torch.optim.Adagrad([{"params": kernels, "weight_decay": 1e-4}, {"params": others}], lr=0.01)
    module.train()
    for step, batch in enumerate(make_loader(Pictures(data.train, 32, 1, Augmentation.parse("none")), order, 0)):
        for group in optimizer.param_groups:
            group["lr"] = rate_at("cosine", 0.01, step, order.batches())
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(normalized(batch.pixels)), batch.truth).backward()
        optimizer.step()
    ours, plain = torch.load(tmp_path / "out" / "last.pth", weights_only=True), saved_state(module)
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def values_table(folder: Path, values: list[float]) -> Path:
    folder.mkdir()
    for number in range(len(values)):
        Image.fromarray(np.full((32, 32, 3), 20 * number, np.uint8)).save(folder / f"{number}.png")
    rows = "".join(f"{number}.png,{value}\n" for number, value in enumerate(values))
    (folder / "labels.csv").write_text("file,value\n" + rows)
    return folder


@pytest.mark.parametrize("smallest", [0.0, 1e-9, -0.004])
def test_relative_errors_of_values_near_zero_are_refused(tmp_path: Path, smallest: float) -> None:
    folder = values_table(tmp_path / "set", [smallest, 4, 5, 6, 7, 8, 9, 10])
    with pytest.raises(UsageError, match=r"divides by the value, and 0\.png has .*: --loss rmse or mse"):
        run(folder, tmp_path / "out", task="regression", loss="mape")


@pytest.mark.parametrize(
    "values", [[1e200, -2e200, 3e200], [1.0, 1e30, 2.0], [1e9, 1e9 + 1, 1e9 + 2], [0.0, 1e-13, 2e-13]]
)
def test_values_that_no_network_resolves_are_refused(tmp_path: Path, values: list[float]) -> None:
    folder = values_table(tmp_path / "set", values * 4)
    with pytest.raises(UsageError, match=r"has values from .* in which they differ by something between"):
        run(folder, tmp_path / "out", task="regression")


@pytest.mark.slow
def test_relative_errors_of_small_values_are_named(tmp_path: Path) -> None:
    folder, lines = values_table(tmp_path / "set", [0.1, 4, 5, 6, 7, 8, 9, 10]), []
    document = run(folder, tmp_path / "out", lines, task="regression", loss="mape", epochs=1, batch=4)
    assert any("0.png with the value 0.1 counts as much as" in line for line in lines)
    assert document["mape"] is not None and document["rmse"] is not None


@pytest.mark.slow
def test_a_class_of_one_picture_does_not_give_an_accuracy(colours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name, count in (("blue", 6), ("green", 6), ("red", 1)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes((colours / name / f"{number}.png").read_bytes())
    lines: list[str] = []
    document = run(folder, tmp_path / "out", lines, epochs=1)
    assert document["unvalidated"] == ["red"] and any("no validation picture of red" in line for line in lines)
    for path in list((folder / "green").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UsageError, match="an accuracy means nothing"):
        run(folder, tmp_path / "other", epochs=1)


def test_weights_that_are_no_numbers_are_named(colours: Path, tmp_path: Path) -> None:
    tensors = seeded.tensors(mobilenet_v2(0.35, 32, 3).state_dict_shapes())
    tensors["features.0.0.weight"][0] = np.nan
    broken = seeded.write_safetensors(tmp_path / "w.safetensors", tensors)
    with pytest.raises(ModelError, match=r"'features\.0\.0\.weight' holds NaN"):
        run(colours, tmp_path / "out", weights=str(broken))


@pytest.mark.slow
def test_a_network_that_learned_nothing_is_named(colours: Path, tmp_path: Path) -> None:
    document = run(colours, tmp_path / "out", epochs=1, learning_rate=1e-12, weights="none", augment="none")
    assert document["top1"] <= 0.5
    if document["top1"] <= 1 / 3:
        assert "no better than the answer" in document["warnings"][0]
    from sklearn.metrics import f1_score

    from edge_mnv2.evaluate.metrics import macro_f1

    truth, predicted = np.repeat([0, 1, 2], 3), np.zeros(9, int)
    assert macro_f1(truth, predicted) == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert 0 <= document["macro_f1"] <= document["top1"] + 1e-9 and document["balanced_top1"] is not None
