"""On the TPU while it can, on the CPU while it cannot."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.errors import AcceleratorError, ModelError
from edge_mnv2.runtime.delegate import parse
from edge_mnv2.runtime.edgetpu import opening
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.supervised import DeviceHeld, supervisor
from edge_mnv2.runtime.supervised.lock import DeviceLock
from edge_mnv2.runtime.supervised.supervisor import SupervisedInterpreter
from tests.runtime.edgetpu import trees
from tests.runtime.edgetpu.conftest import PATIENCE_S, STALL

COMPILED = "models/mobilenet_v1_0.25_128_quant_edgetpu.tflite"
TWIN = "models/mobilenet_v1_0.25_128_quant.tflite"


@pytest.fixture(autouse=True)
def _impatient(tpu: pytest.MonkeyPatch) -> None:
    tpu.setattr(supervisor, "FIRST_RETRY_S", 0.2)
    tpu.setattr(supervisor, "SLOWEST_RETRY_S", 0.3)
    tpu.setattr(supervisor, "_LOOK_S", 0.05)
    tpu.setattr("edge_mnv2.runtime.supervised.contact.SETTLE_S", 0.0)


def _open(data: Path, spec: str = "edgetpu", *, cpu: bool = True) -> SupervisedInterpreter:
    [opened] = opening.open_supervised(parse(spec), data / COMPILED, data / TWIN if cpu else None)
    return opened


def _until(condition: Callable[[], bool], each: Callable[[], object]) -> None:
    ends = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        each()
        time.sleep(0.02)


class _Frames:
    """Frames of noise, one after another, each answered by the TPU's rule or by the CPU twin."""

    def __init__(self, interpreter: SupervisedInterpreter, data: Path) -> None:
        self.interpreter = interpreter
        self.twin = open_interpreter(data / TWIN)
        self.random = np.random.default_rng(3)
        self.engines: list[str] = []

    def __call__(self) -> str:
        values = self.random.integers(0, 256, self.interpreter.inputs[0].shape, np.uint8)
        self.interpreter.set_input(values)
        self.interpreter.invoke()
        found = self.interpreter.output()
        engine = self.interpreter.engine
        if engine == "tpu":
            assert int(found.argmax()) == int(values.sum(dtype=np.int64)) % found.size
        else:
            self.twin.set_input(values)
            self.twin.invoke()
            assert (found == self.twin.output()).all()
        self.engines.append(engine)
        return engine


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["error@6", "hang@6=30", "abort@6", "segv@6"])
def test_a_loss_costs_no_frame_and_the_device_comes_back(
    tpu: pytest.MonkeyPatch, data: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    if "hang" in fault:
        tpu.setattr(STALL, 0.4)
    tpu.setenv("STANDIN", fault)
    interpreter = _open(data)
    frames = _Frames(interpreter, data)
    assert interpreter.notes == ["the Edge TPU runs 31 of 31 operators"]
    with caplog.at_level("INFO"):
        _until(lambda: "cpu" in frames.engines, frames)
        tpu.setattr(STALL, PATIENCE_S)
        tpu.setenv("STANDIN", "")
        _until(lambda: frames.engines[-1] == "tpu", frames)
    assert frames.engines[:3] == ["tpu"] * 3 and interpreter.losses == 1
    messages = [record.message for record in caplog.records if record.levelname in ("INFO", "WARNING")]
    assert len(messages) == 2
    assert messages[0].startswith("Edge TPU lost: ") and "the CPU goes on" in messages[0]
    assert messages[1] == "Edge TPU back: edgetpu:0 is in use again"
    assert interpreter.seconds["tpu"] > 0 and interpreter.seconds["cpu"] > 0
    assert interpreter.delegate == "edgetpu:0"
    interpreter.close()


@pytest.mark.slow
def test_a_device_that_stays_away_is_asked_for_with_growing_patience(
    tpu: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    tpu.setenv("STANDIN", f"gone={gone}")
    interpreter = _open(data)
    frames = _Frames(interpreter, data)
    assert frames() == "tpu"
    gone.touch()
    assert frames() == "cpu"
    _until(lambda: interpreter._failures >= 1, frames)
    assert set(frames.engines[1:]) == {"cpu"} and interpreter.losses == 1
    gone.unlink()
    _until(lambda: frames.engines[-1] == "tpu", frames)
    interpreter.close()


@pytest.mark.parametrize(
    ("failures", "waits"), [(0, 1.0), (1, 2.0), (3, 8.0), (4, 10.0), (20, 10.0), (21, 60.0), (900, 60.0)]
)
def test_how_long_it_waits(tpu: pytest.MonkeyPatch, data: Path, failures: int, waits: float) -> None:
    tpu.setattr(supervisor, "FIRST_RETRY_S", 1.0)
    tpu.setattr(supervisor, "SLOWEST_RETRY_S", 10.0)
    assert supervisor.patience_s(failures) == waits


def test_without_a_twin_a_loss_ends_it(tpu: pytest.MonkeyPatch, data: Path) -> None:
    tpu.setenv("STANDIN", "error@5")
    interpreter = _open(data, cpu=False)
    assert interpreter.notes == ["the Edge TPU runs the whole graph"]
    with pytest.raises(AcceleratorError, match="Edge TPU lost: edgetpu:0 fails when the model runs") as caught:
        for _ in range(5):
            interpreter.invoke()
    assert caught.value.exit_code == 5 and interpreter.losses == 1
    interpreter.close()


def test_two_runs_on_one_device(tpu: pytest.MonkeyPatch, data: Path) -> None:
    first = _open(data)
    second = _open(data)
    assert first.notes == ["the Edge TPU runs 31 of 31 operators"]
    assert len(second.notes) == 1 and "edgetpu:0 is used by process" in second.notes[0]
    assert "the CPU is used until it is free" in second.notes[0]
    in_first, in_second = _Frames(first, data), _Frames(second, data)
    for _ in range(20):
        assert (in_first(), in_second()) == ("tpu", "cpu")
    assert second.delegate in ("xnnpack", "none")
    with pytest.raises(DeviceHeld):
        _open(data, cpu=False)
    first.close()
    _until(lambda: "tpu" in in_second.engines, in_second)
    assert second.delegate == "edgetpu:0" and second.losses == 0
    second.close()
    assert DeviceLock("edgetpu-0").acquire("edgetpu:0")


def test_models_that_are_no_twins_are_refused(tpu: pytest.MonkeyPatch, data: Path) -> None:
    with pytest.raises(ModelError, match="no twins: input"):
        opening.open_supervised(parse("edgetpu"), data / COMPILED, data / "models/mobilenet_v2_1.0_224_quant.tflite")
    assert DeviceLock("edgetpu-0").acquire("edgetpu:0"), "the lock was given back"


@pytest.mark.parametrize(
    ("spec", "option", "name"),
    [
        ("edgetpu", "", "edgetpu:0"),
        ("edgetpu:1", ":1", "edgetpu:1"),
        ("edgetpu:usb", "usb", "edgetpu:usb:0"),
        ("edgetpu:pci:2", "pci:2", "edgetpu:pci:2"),
    ],
)
def test_a_device_that_only_the_library_knows(
    tpu: pytest.MonkeyPatch, data: Path, tmp_path: Path, spec: str, option: str, name: str
) -> None:
    tpu.setenv("STANDIN_LOG", str(tmp_path / "events"))
    [opened] = opening.open_supervised(parse(spec), data / COMPILED, None, root=tmp_path)
    assert opened.delegate == name
    opened.close()
    assert (tmp_path / "events").read_text().splitlines()[0] == f"opened with device={option}"


@pytest.mark.parametrize(
    ("fault", "says"),
    [("absent", "no Edge TPU is attached (libedgetpu.so.1 finds none)"), ("refuse", "stand-in: no device")],
)
def test_no_device_at_the_start(tpu: pytest.MonkeyPatch, data: Path, tmp_path: Path, fault: str, says: str) -> None:
    tpu.setenv("STANDIN", fault)
    with pytest.raises(AcceleratorError) as caught:
        opening.open_supervised(parse("edgetpu"), data / COMPILED, data / TWIN, root=tmp_path)
    assert says in caught.value.message and caught.value.hint


def test_no_library_at_the_start(tpu: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> None:
    tpu.delenv("EDGE_MNV2_EDGETPU_LIB")
    with pytest.raises(AcceleratorError, match=r"libedgetpu.so.1.* is not installed") as caught:
        opening.open_supervised(parse("edgetpu"), data / COMPILED, data / TWIN, root=tmp_path)
    assert "install.sh --edgetpu" in str(caught.value.hint)


def test_what_the_kernel_shows_is_judged_before_contact(tpu: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> None:
    tpu.setenv("STANDIN", "segv")
    trees.stick(tmp_path, "2-1", mode=None)
    trees.card(tmp_path, status="DEAD")
    for spec, says in (
        ("edgetpu:usb", "device file /dev/bus/usb/002/003 is missing"),
        ("edgetpu:pci", "the chip does not answer"),
        ("edgetpu:usb:1", "there is no edgetpu:usb:1"),
    ):
        with pytest.raises(AcceleratorError, match=says) as caught:
            opening.open_supervised(parse(spec), data / COMPILED, data / TWIN, root=tmp_path)
        assert caught.value.hint


def test_a_device_that_another_program_holds(tpu: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> None:
    trees.stick(tmp_path)
    trees.process(tmp_path, 4242, "frigate.detector:coral", opens="/dev/bus/usb/002/003")
    [opened] = opening.open_supervised(parse("edgetpu"), data / COMPILED, data / TWIN, root=tmp_path)
    assert opened.engine == "cpu"
    assert "edgetpu:usb:0 is used by process 4242 (frigate.detector:coral)" in opened.notes[0]
    (tmp_path / "proc/4242/fd/7").unlink()
    frames = _Frames(opened, data)
    _until(lambda: "tpu" in frames.engines, frames)
    assert opened.delegate == "edgetpu:usb:0"
    opened.close()


@pytest.mark.slow
def test_a_stick_that_is_pulled_is_not_asked_for_until_it_shows_again(
    tpu: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / trees.stick(tmp_path)
    tpu.setenv("STANDIN", f"gone={tmp_path / 'gone'}")
    tpu.setenv("STANDIN_LOG", str(tmp_path / "events"))
    [opened] = opening.open_supervised(parse("edgetpu"), data / COMPILED, data / TWIN, root=tmp_path)
    frames = _Frames(opened, data)
    assert frames() == "tpu"
    (tmp_path / "gone").touch()
    folder.rename(tmp_path / "pulled")
    assert frames() == "cpu"
    for _ in range(30):
        assert frames() == "cpu"
        time.sleep(0.02)
    assert (tmp_path / "events").read_text().count("opened with") == 1
    (tmp_path / "pulled").rename(folder)
    (tmp_path / "gone").unlink()
    _until(lambda: frames.engines[-1] == "tpu", frames)
    opened.close()


@pytest.mark.slow
def test_one_worker_a_device(tpu: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> None:
    tpu.setenv("STANDIN_LOG", str(tmp_path / "events"))
    trees.stick(tmp_path, "2-1", number=3)
    trees.stick(tmp_path, "2-2", number=4)
    trees.stick(tmp_path, "2-3", number=5, mode=None)
    held = DeviceLock("usb-2-1")
    opened = opening.open_supervised(parse("edgetpu"), data / COMPILED, data / TWIN, count=5, root=tmp_path)
    assert [each.delegate for each in opened] == ["edgetpu:usb:0", "edgetpu:usb:1"]
    for each in opened:
        each.close()
    held.acquire("edgetpu:usb:0")
    [free] = opening.open_supervised(parse("edgetpu"), data / COMPILED, data / TWIN, root=tmp_path)
    assert (free.delegate, free.engine) == ("edgetpu:usb:1", "tpu")
    free.close()
    held.release()
