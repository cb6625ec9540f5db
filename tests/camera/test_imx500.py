"""`--camera csi --delegate imx500`: the network runs in the sensor, for which picamera2's stand-in has a class."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

import numpy as np
import pytest

from edge_mnv2.builder.backbone import cut
from edge_mnv2.camera.frame import CameraAnswers
from edge_mnv2.camera.imx500 import Imx500Camera
from edge_mnv2.camera.settings import CameraNetwork, CameraSettings
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.preprocess import Preprocessor, crop_box
from edge_mnv2.tflite import graph
from tests.camera import picamera2_standin
from tests.camera.picamera2_standin import Scene
from tests.stubs import colour_model, stub_at

Run = Callable[..., "tuple[int, str, str]"]
SIZE = (4056, 3040)
MODES = [{"size": (2028, 1520), "fps": 30.0, "crop_limits": (0, 0, *SIZE), "bit_depth": 10}]


def scene(monkeypatch: pytest.MonkeyPatch, cameras: int = 1) -> Scene:
    """Green, with a red right half; the network answers with logits of the colours that it sees."""
    rgb = np.zeros((152, 203, 3), np.uint8)
    rgb[..., 1] = 255
    rgb[:, 102:] = (255, 0, 0)
    stage = picamera2_standin.installed(monkeypatch, rgb, cameras)
    stage.models, stage.modes, stage.array = ["imx500"] * cameras, MODES, SIZE
    stage.network = lambda seen: 8 * (seen.reshape(-1, 3).mean(0) - 127.5) / 127.5
    return stage


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = stub_at(tmp_path)
    path.write_bytes(colour_model(softmax=False))
    path.with_name("colours_imx500.rpk").write_bytes(b"RPK 8x8")
    return path


def base(model: Path, *more: object, frames: int = 5, delegate: str = "imx500") -> tuple[object, ...]:
    return ("run", "--camera", "csi", "--model", model, "--delegate", delegate, "--max-frames", frames, "--json", *more)


@pytest.mark.slow
def test_answers_come_with_the_frames(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = scene(monkeypatch)
    log = tmp_path / "log.jsonl"
    code, out, err = run(*base(model, "--roi", "0,0,0.5,1", "--log", log))
    summary = json.loads(out)
    assert code == 0 and (summary["frames"], summary["delegate"]) == (5, "imx500"), err
    assert summary["stages_ms"]["inference"]["p50"] == pytest.approx(18.0, abs=0.1)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert {row["engine"] for row in rows} == {"imx500"} and {row["top"][0]["label"] for row in rows} == {"green"}
    assert "the network answers after" in err and "17.1 ms" in err
    code, out, err = run(*base(model, "--duration", 1.5, frames=10**6))
    assert code == 0 and json.loads(out)["engine_seconds"]["imx500"] > 0.5, out
    assert not stage.in_use


@pytest.mark.parametrize(
    ("options", "region"),
    [
        ((), (0, 0, *SIZE)),
        (("--resize", "stretch"), (0, 0, *SIZE)),
        (("--roi", "0.5,0,0.5,1"), (2028, 0, 2028, 3040)),
        (("--roi", "0.5,0.25,0.25,0.5", "--resize", "stretch"), (2028, 760, 1014, 1520)),
        # A region of the turned picture is another one of the sensor.
        (("--roi", "0.5,0,0.5,1", "--rotate", "180"), (0, 0, 2028, 3040)),
        (("--roi", "0.5,0,0.5,0.5", "--flip", "v", "--resize", "stretch"), (2028, 1520, 2028, 1520)),
        (("--roi", "0.5,0,0.5,0.5", "--flip", "h", "--resize", "stretch"), (0, 0, 2028, 1520)),
    ],
)
def test_the_network_sees_what_would_be_cropped_here(
    options: tuple[str, ...], region: tuple[int, ...], run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = scene(monkeypatch)
    assert run(*base(model, *options))[0] == 0
    assert stage.device is not None
    left, top, width, height = region
    policy = "stretch" if "stretch" in options else "crop"
    inner = Preprocessor(8, 8, policy).box(width, height)
    assert np.abs(np.subtract(stage.device.roi, (left + inner[0], top + inner[1], *inner[2:]))).max() <= 5
    assert policy == "stretch" or abs(stage.device.roi[2] - crop_box(width, height, 1.0)[2]) <= 5


def test_what_is_not_known_of_a_turned_camera_is_said(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scene(monkeypatch)
    log = tmp_path / "log.jsonl"
    for options, label, said in (
        # Both halves change places, and the network's with them.
        (("--rotate", 180, "--roi", "0.55,0,0.45,1"), "green", 1),
        (("--flip", "h", "--roi", "0,0,0.45,1"), "red", 1),
        (("--rotate", 180, "--flip", "hv", "--roi", "0,0,0.45,1"), "green", 0),
        (("--roi", "0,0,0.45,1"), "green", 0),
    ):
        code, _, err = run(*base(model, *options, "--log", log, frames=2))
        assert code == 0 and err.count("is not documented") == said, err
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        assert (rows[-1]["top"][0]["label"], rows[-1]["engine"]) == (label, "imx500")


@pytest.mark.parametrize(("stall_s", "fps"), [(None, None), (None, 0.5), (0.6, None), (20, 30)])
def test_a_network_is_lost_before_its_camera_is(stall_s: Optional[float], fps: Optional[float]) -> None:
    """A camera that hands over no frame is opened again, and the network with it; the CPU never came to its turn."""
    network = CameraNetwork(Path("n.rpk"), (8, 8), lambda *_: (0, 0, 8, 8))
    camera = Imx500Camera(0, CameraSettings(network=network, stall_s=stall_s, fps=fps))
    assert 0 < camera.lost_s < camera.stall_s


@pytest.mark.slow
def test_a_lost_network_is_said_and_comes_back(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edge_mnv2.camera.imx500.LOST_S", 0.4)
    stage = scene(monkeypatch)
    answers, log, asked = stage.network, tmp_path / "log.jsonl", list[int]()

    def network(part: np.ndarray) -> Optional[np.ndarray]:
        asked.append(1)
        assert answers is not None
        # Silent from the fifteenth picture on, until the CPU has gone on.
        silent = len(asked) > 15 and (not log.exists() or '"engine": "cpu"' not in log.read_text())
        return None if silent else answers(part)

    stage.network = network
    code, out, err = run(*base(model, "--log", log, "--duration", 120, frames=60))
    engines = [json.loads(line)["engine"] for line in log.read_text().splitlines()]
    assert code == 0 and json.loads(out)["tpu_losses"] == 1, err
    assert "cpu" in engines and engines[0] == engines[-1] == "imx500"
    assert "gives no answers any more; the CPU goes on" in err and "answers again" in err
    asked.clear()
    log.unlink()
    code, out, err = run(*base(model, "--duration", 60, "--on-tpu-loss", "exit", frames=10**6))
    assert code == 5 and "gives no answers any more" in err


def test_a_taught_models_head_runs_on_the_cpu(
    run: Run, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network in the camera ends at the embedding: a head that was taught since needs no new one."""
    stage = scene(monkeypatch)
    backbone = cut(graph.read(colour_model()))
    extractor = graph.write(backbone.graph)

    def embedding(seen: np.ndarray) -> np.ndarray:
        fit = Preprocessor(8, 8, "stretch")
        with open_interpreter(extractor) as interpreter:
            interpreter.set_input(fit.to_rgb(np.ascontiguousarray(seen))[None])
            interpreter.invoke()
            return interpreter.outputs[0].dequantize(interpreter.output()).reshape(-1)

    stage.network = embedding
    # Four answers, from an embedding of three values.
    model.write_bytes(colour_model(outputs=4))
    model.with_suffix(".yaml").write_text("labels: [red, green, blue, nothing]\n")
    log = tmp_path / "log.jsonl"
    code, _, err = run(*base(model, "--roi", "0.55,0,0.45,1", "--log", log))
    assert code == 0, err
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert {row["top"][0]["label"] for row in rows} == {"red"} and rows[0]["top"][0]["score"] > 0.9


def test_an_answer_that_is_no_number_ends_the_run(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene(monkeypatch).network = lambda _seen: np.array([np.nan, 0, 1], np.float32)
    code, _, err = run(*base(model))
    assert code == 3 and "answers with NaN" in err


def test_answers_are_looked_up_while_others_come() -> None:
    camera = Imx500Camera(0, CameraSettings(network=CameraNetwork(Path("n.rpk"), (8, 8), lambda *_: (0, 0, 8, 8))))
    ended, before = threading.Event(), sys.getswitchinterval()

    def answered() -> None:
        camera._pending = CameraAnswers(())
        while not ended.is_set():
            camera._stamped(time.monotonic_ns())
            time.sleep(0)

    with ThreadPoolExecutor(1) as pool:
        sys.setswitchinterval(1e-6)
        pool.submit(answered)
        try:
            assert not any(camera._answer_at(-1) for _ in range(30_000))
        finally:
            ended.set()
            sys.setswitchinterval(before)


def test_two_cameras_each_by_its_number(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = scene(monkeypatch, cameras=2)
    stage.models = ["imx219", "imx500"]
    code, out, err = run(*base(model))
    assert code == 0 and json.loads(out)["source"].startswith("csi:1 "), err
    code, _, err = run("run", "--camera", "csi:0", *base(model)[3:])
    assert code == 4 and "csi:0 is an imx219: no network runs in it" in err
    stage.models = ["imx500", "imx500"]
    ends: list[int] = []
    holder = threading.Thread(target=lambda: ends.append(0))
    holder.start()
    holder.join()
    for number in (0, 1):
        code, out, _ = run("run", "--camera", f"csi:{number}", *base(model)[3:])
        assert code == 0 and json.loads(out)["source"].startswith(f"csi:{number} ")
        assert stage.device is not None and stage.device.camera_num == number


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"RPK 9x8", 4, "takes 9x8, and the model 8x8"),
        (b"PK\x03\x04", 4, "imx500-package -i"),
        (b"TFL3", 4, "is no network file of the IMX500"),
        (None, 2, "no such network file"),
    ],
)
def test_a_wrong_network_file_is_one_line(
    content: Optional[bytes], code: int, said: str, run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = scene(monkeypatch)
    file = model.with_name("colours_imx500.rpk")
    file.unlink() if content is None else file.write_bytes(content)
    ended, _, err = run("-q", *base(model))
    assert ended == code and said in err and err.count("\n") == 1
    assert not stage.in_use


def test_a_network_file_can_be_pinned(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scene(monkeypatch)
    folder = tmp_path / "new_imx500"
    folder.mkdir()
    network, sidecar = folder / "network.rpk", folder / "network.yaml"
    model.with_name("colours_imx500.rpk").rename(network)
    options = ("-q", *base(model, frames=1, delegate=f"imx500:{network}"))
    for content, code in ((network.read_bytes(), 0), (b"another", 3)):
        sidecar.write_text(f"sha256: {hashlib.sha256(content).hexdigest()}\n")
        ended, _, err = run(*options)
        assert ended == code and ("its sha256 is another" in err) == bool(code), err


def test_a_network_of_an_older_model_is_refused(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what `compile` says beside it, or beside the folder that it was unpacked into."""
    scene(monkeypatch)
    beside = model.with_name("colours_imx500.yaml")
    unpacked = model.with_name("colours_imx500") / "network.rpk"
    unpacked.parent.mkdir()
    unpacked.write_bytes(b"RPK 8x8")
    for what, digest, code in (
        ("", hashlib.sha256(model.read_bytes()).hexdigest(), 0),
        ("", "0" * 64, 2),
        # The backbone's part is that of every model that was taught on it.
        ("the embedding of ", "0" * 64, 0),
    ):
        beside.write_text(f"# compiled by imx500-converter 3.19 from {what}{model.name}, sha256 {digest}\n")
        for delegate in ("imx500", f"imx500:{unpacked}"):
            ended, _, err = run("-q", *base(model, frames=1, delegate=delegate))
            assert ended == code and ("has changed since" in err) == bool(code), err


def test_another_models_network_ends_the_run(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = scene(monkeypatch)
    stage.network = lambda _: np.zeros(7)
    code, _, err = run("-q", *base(model))
    assert code == 3 and "answers with 7 values, which colours.tflite cannot use" in err


def test_what_cannot_work_is_refused(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene(monkeypatch)
    options = base(model)[3:]
    code, _, err = run("run", "--source", "test", *options)
    assert code == 2 and "the network runs in a CSI camera, not in test" in err
    assert "unturned" in run(*base(model, "--rotate", 90))[2]
    code, _, err = run("-q", *base(model, "--resize", "letterbox"))
    assert code == 2 and "sees no bars around the picture" in err and err.count("\n") == 1
    # As the model's own file says.
    model.with_suffix(".yaml").write_text("labels: [red, green, blue]\npreprocess: {resize: letterbox}\n")
    assert run("-q", *base(model))[0] == 2 and run("-q", *base(model, "--resize", "crop"))[0] == 0
    code, _, err = run("classify", model, "--model", model, "--delegate", "imx500")
    assert code == 2 and "in a camera only" in err


def test_no_sensor_of_that_kind(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene(monkeypatch).models = ["imx219"]
    code, _, err = run("-q", *base(model))
    assert code == 4 and "is an imx219" in err and err.count("\n") == 1
