"""First contact in a child process: every way in which it can end, over the real runtime and the stand-in library."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from edge_mnv2.errors import AcceleratorError
from edge_mnv2.runtime.edgetpu import library
from edge_mnv2.runtime.edgetpu.library import Library
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.supervised import AcceleratorLost, DeviceRefused
from edge_mnv2.runtime.supervised.contact import Target, Worker, probe
from edge_mnv2.runtime.supervised.contact import WorkerInterpreter as TpuInterpreter

COMPILED = "models/mobilenet_v1_0.25_128_quant_edgetpu.tflite"
TWIN = "models/mobilenet_v1_0.25_128_quant.tflite"


def target(standin: Path, model: Optional[Path] = None, **more: Any) -> Target:
    found = more.pop("library", None) or library.find("/", {library.VARIABLE: str(standin)})
    return Target(found, "edgetpu:usb:0", model=None if model is None else str(model), **more)


@pytest.mark.parametrize(
    ("fault", "error", "says", "cause"),
    [
        ("refuse", DeviceRefused, "opens no Edge TPU (edgetpu:usb:0): stand-in: no device", ValueError),
        ("segv", AcceleratorLost, "crashed (SIGSEGV) under", type(None)),
        ("prepare", AcceleratorError, "refuses the model: stand-in: the graph is not to its taste", RuntimeError),
        ("newer=14", AcceleratorError, "compiled for Edge TPU runtime 14, newer than", RuntimeError),
        ("error@1", AcceleratorLost, "fails when the model runs: stand-in: the device does not answer", RuntimeError),
        ("abort@1", AcceleratorLost, "gave up while running the model for the first time (F driver/usb/", type(None)),
    ],
)
def test_each_failure_is_one_line_with_a_way_out(
    tpu: pytest.MonkeyPatch,
    standin: Path,
    data: Path,
    capfd: pytest.CaptureFixture[str],
    fault: str,
    error: type,
    says: str,
    cause: type,
) -> None:
    tpu.setenv("STANDIN", fault)
    tpu.setattr("edge_mnv2.runtime.supervised.contact.SETTLE_S", 0.0)
    with pytest.raises(error) as caught:
        probe(target(standin, data / COMPILED))
    message = caught.value.message
    assert says in message
    assert "\n" not in str(caught.value) and "Node number" not in message and "custom op" not in message
    assert caught.value.hint
    assert isinstance(caught.value.__cause__, cause)
    assert caught.value.exit_code == 5
    assert capfd.readouterr() == ("", ""), "native noise and destructors stay in the child"


def test_a_crash_names_the_pair_of_versions(tpu: pytest.MonkeyPatch, standin: Path) -> None:
    tpu.setenv("STANDIN", "segv")
    known = Library(str(standin), "library folder", version="16.0", tensorflow="2.5.0")
    with pytest.raises(AcceleratorError) as caught:
        probe(target(standin, library=known))
    assert "libedgetpu 16.0 built for TensorFlow 2.5.0 crashed (SIGSEGV) under " in caught.value.message
    assert "litert" in caught.value.message or "tflite" in caught.value.message
    assert "install a libedgetpu built for TensorFlow" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("content", "says", "cause"),
    [
        (None, "cannot be loaded", OSError),
        (b"", "cannot be loaded", OSError),
        (b"no ELF file" * 9, "cannot be loaded", OSError),
        ("libz.so.1", "no Edge TPU delegate", AttributeError),
    ],
    ids=["missing", "empty", "text", "wrong library"],
)
def test_what_the_loader_says_becomes_our_error(
    tmp_path: Path, standin: Path, content: Any, says: str, cause: type
) -> None:
    path = tmp_path / "libedgetpu.so.1"
    if isinstance(content, bytes):
        path.write_bytes(content)
    # Not looked at before, as if it had changed since.
    named = Library(content if isinstance(content, str) else str(path), "library folder")
    with pytest.raises(AcceleratorError, match=says) as caught:
        probe(target(standin, library=named))
    assert isinstance(caught.value.__cause__, cause)


def test_a_device_that_refuses_once_is_asked_again(tpu: pytest.MonkeyPatch, standin: Path, tmp_path: Path) -> None:
    tpu.setenv("STANDIN", f"refuse-once={tmp_path / 'mark'}")
    tpu.setattr("edge_mnv2.runtime.supervised.contact.SETTLE_S", 0.1)
    tpu.setenv("STANDIN_VERSION", "BuildLabel(N/A), RuntimeVersion(14)")
    assert probe(target(standin))["version"] == "BuildLabel(N/A), RuntimeVersion(14)"


def test_a_library_that_never_answers_is_left_behind(tpu: pytest.MonkeyPatch, standin: Path) -> None:
    tpu.setenv("STANDIN", "stuck")
    began = time.monotonic()
    with pytest.raises(AcceleratorLost, match=r"did not answer within 0.5 s while opening the device"):
        probe(target(standin), {"create": 0.5})
    assert time.monotonic() - began < 30


def test_the_library_is_asked_for_its_own_number_of_the_device(
    tpu: pytest.MonkeyPatch, standin: Path, tmp_path: Path
) -> None:
    tpu.setenv("STANDIN_DEVICES", "pci=/dev/apex_0,usb=/sys/bus/usb/devices/2-2,usb=/sys/bus/usb/devices/2-1")
    said = probe(target(standin, option="usb:0", paths=("/sys/bus/usb/devices/2-1", "/dev/bus/usb/002/003")))
    assert said["option"] == "usb:1"
    said = probe(target(standin, option="pci:7", paths=("/sys/class/apex/apex_0", "/dev/apex_0")))
    assert said["option"] == "pci:0"
    said = probe(target(standin, option="usb:3", paths=("/sys/bus/usb/devices/9-9",)))
    assert said["option"] == "usb:3"


def test_inputs_reach_the_device_and_outputs_come_back(tpu: pytest.MonkeyPatch, standin: Path, data: Path) -> None:
    tpu_side = TpuInterpreter(target(standin, data / COMPILED))
    cpu_side = open_interpreter(data / TWIN)
    try:
        assert [
            (each.shape, each.dtype, each.scale, each.zero_point) for each in tpu_side.inputs + tpu_side.outputs
        ] == [(each.shape, each.dtype, each.scale, each.zero_point) for each in cpu_side.inputs + cpu_side.outputs]
        random = np.random.default_rng(7)
        for _ in range(20):
            values = random.integers(0, 256, tpu_side.inputs[0].shape, np.uint8)
            tpu_side.set_input(values)
            tpu_side.invoke()
            scores = tpu_side.output()
            assert scores.dtype == np.uint8 and scores.shape == tpu_side.outputs[0].shape
            assert int(scores.argmax()) == int(values.sum(dtype=np.int64)) % scores.size
        kept = tpu_side.output()
        tpu_side.set_input(values[:, ::-1] ^ 255)
        tpu_side.invoke()
        assert (kept == scores).all(), "an output is a copy"
        with pytest.raises(ValueError, match="uint8"):
            tpu_side.set_input(values.astype(np.float32))
    finally:
        tpu_side.close()


def test_the_device_is_put_down_at_the_end(tpu: pytest.MonkeyPatch, standin: Path, data: Path, tmp_path: Path) -> None:
    tpu.setenv("STANDIN_LOG", str(tmp_path / "events"))
    TpuInterpreter(target(standin, data / COMPILED, option="usb")).close()
    events = (tmp_path / "events").read_text().splitlines()
    assert events[:2] == ["opened with device=usb", "took 1 of 1 operators"]
    assert events[-1].startswith("put down")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("error@5", "fails when the model runs"),
        ("hang@5=30", "did not answer within"),
        ("abort@5", "gave up while running the model (F driver"),
        ("segv@5", "crashed (SIGSEGV)"),
    ],
)
def test_a_device_lost_in_use(tpu: pytest.MonkeyPatch, standin: Path, data: Path, fault: str, says: str) -> None:
    tpu.setenv("STANDIN", fault)
    if "hang" in fault:
        tpu.setattr("edge_mnv2.runtime.supervised.contact.STALL_S", 0.5)
    lost = TpuInterpreter(target(standin, data / COMPILED))
    values = np.full(lost.inputs[0].shape, 3, np.uint8)
    with pytest.raises(AcceleratorLost) as caught:
        for _ in range(8):
            lost.set_input(values)
            lost.invoke()
    assert says in caught.value.message
    assert (lost.inputs_set[0] == values).all(), "the inputs stay readable for whoever takes over"
    lost.close()


def test_an_answer_that_is_already_there_counts_and_none_is_not_waited_for(
    tpu: pytest.MonkeyPatch, standin: Path, data: Path
) -> None:
    worker = Worker(target(standin, data / COMPILED))
    worker.open()
    worker._connection.settimeout(60)
    began = time.monotonic()
    assert worker._late_answer() == b""
    assert time.monotonic() - began < 30
    worker.invoke(30)
    worker.close()


def _ends(pid: int) -> bool:
    for _ in range(1200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["stuck", "hang@2=60"])
def test_the_worker_ends_with_its_parent_whatever_it_is_doing(
    tpu: pytest.MonkeyPatch, standin: Path, data: Path, fault: str
) -> None:
    program = """
import sys, os, threading, time
from edge_mnv2.runtime.supervised.contact import Target, Worker
from edge_mnv2.runtime.edgetpu.library import Library
worker = Worker(Target(Library(sys.argv[1], "test"), "edgetpu:0", model=sys.argv[2]))
print(worker.pid, flush=True)
worker.open()
worker.invoke(60)
time.sleep(60)
"""
    environment = {**os.environ, "STANDIN": fault}
    command = [sys.executable, "-c", program, str(standin), str(data / COMPILED)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(1.0)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert _ends(pid)


def test_signals_to_the_whole_group_are_the_parents_business(
    tpu: pytest.MonkeyPatch, standin: Path, data: Path
) -> None:
    worker = Worker(target(standin, data / COMPILED))
    worker.open()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(worker.pid, number)
    worker.invoke(30)
    worker.close()
    assert _ends(worker.pid)
