"""The command line with an Edge TPU, as a person and a service meet it."""

from __future__ import annotations

import contextlib
import datetime
import json
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_mnv2.runtime.edgetpu.choice import DEFAULT_COMPILED
from edge_mnv2.runtime.supervised.lock import DeviceLock
from tests.processes import Command, until
from tests.runtime.edgetpu import trees
from tests.runtime.edgetpu.conftest import PATIENCE_S, STALL
from tests.stubs import free_port

EXTRACTOR = "models/mobilenet_v1_1.0_224_quant_embedding_extractor_edgetpu.tflite"

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture(autouse=True)
def _models(tpu: pytest.MonkeyPatch, data: Path) -> None:
    """The compiled pair is on the machine; a device that refuses gets its second chance at once."""
    tpu.setenv("EDGE_MNV2_MIRROR", str(data / "models"))
    tpu.setattr("edge_mnv2.runtime.supervised.contact.SETTLE_S", 0.0)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _longest_gap_s(lines: list[dict[str, Any]]) -> float:
    times = [datetime.datetime.fromisoformat(line["t"].replace("Z", "+00:00")).timestamp() for line in lines]
    return max(later - earlier for earlier, later in zip(times, times[1:]))


@pytest.mark.slow
def test_two_hundred_frames_on_the_device(tpu: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tpu.setenv("STANDIN_LOG", str(tmp_path / "events"))
    with Command(
        "run",
        "--delegate",
        "edgetpu",
        "--source",
        "test:640x480@100",
        "--max-frames",
        200,
        "--json",
        constants={STALL: PATIENCE_S},
    ) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert summary["delegate"] == "edgetpu:0" and summary["model"] == DEFAULT_COMPILED
    assert (summary["frames"], summary["ended"], summary["tpu_losses"]) == (200, "max_frames", 0)
    assert summary["engine_seconds"]["tpu"] > 0 and summary["engine_seconds"]["cpu"] == 0
    assert "Traceback" not in err
    assert err.count("the default one is not compiled for the Edge TPU") == 1
    assert err.count("the Edge TPU runs 66 of 66 operators") == 1
    events = (tmp_path / "events").read_text().splitlines()
    assert events[:2] == ["opened with device=", "took 1 of 1 operators"]
    # One of the worker's own, one to learn from, and the run's.
    assert events[-1] == "put down after 202"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("absent", "no Edge TPU is attached"),
        ("prepare", "refuses the model"),
        ("segv", "crashed (SIGSEGV) under"),
    ],
)
def test_unusable_at_the_start(run: Run, tpu: pytest.MonkeyPatch, fault: str, says: str) -> None:
    tpu.setenv("STANDIN", fault)
    asked = ("run", "--source", "test", "--every-frame", "--max-frames", 5, "--json")
    code, out, err = run(*asked, "--delegate", "edgetpu")
    assert (code, out) == (5, "")
    assert err.startswith("edge-mnv2: error: ") or "\nedge-mnv2: error: " in err
    assert says in err and "Traceback" not in err
    code, out, err = run(*asked, "--delegate", "auto")
    summary = json.loads(out)
    assert (code, summary["frames"], summary["tpu_losses"]) == (0, 5, 0)
    assert summary["model"] == "mobilenet_v2_1.0_224_int8" and not summary["delegate"].startswith("edgetpu")
    assert err.count("no Edge TPU: ") == 1 and says in err and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "hang_s"), [("error@30", 0), ("hang@30=60", 60), ("abort@30", 0)])
def test_a_loss_during_a_run(run: Run, tpu: pytest.MonkeyPatch, tmp_path: Path, fault: str, hang_s: int) -> None:
    tpu.setenv("STANDIN", fault)
    if hang_s:
        tpu.setattr(STALL, 0.75)
    log = tmp_path / "log.jsonl"
    source = ("--source", "test:160x120@60", "--every-frame", "--max-frames", 60)
    code, out, err = run("run", "--delegate", "edgetpu", *source, "--json", "--log", log)
    assert code == 0 and "Traceback" not in err
    summary, lines = json.loads(out), _lines(log)
    assert summary["tpu_losses"] >= 1 and summary["delegate"] == "edgetpu:0" and summary["write_errors"] == 0
    assert [line["frame"] for line in lines] == list(range(60)), "no frame and no line is lost"
    assert [line["engine"] for line in lines[:27]] == ["tpu"] * 27
    assert lines[27]["engine"] == "cpu", "the frame that met the fault has its result from the CPU"
    assert "Edge TPU lost: " in err
    if hang_s:
        assert _longest_gap_s(lines) < hang_s / 4


@pytest.mark.slow
def test_a_device_that_comes_back_is_used_again(run: Run, tpu: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone, log = tmp_path / "gone", tmp_path / "log.jsonl"
    gone.touch()
    tpu.setenv("STANDIN", f"gone={gone}")
    gone.unlink()
    arguments = ("run", "--delegate", "edgetpu", "--source", "test:160x120@60", "--log", log, "--json")
    with Command(*arguments, constants={STALL: PATIENCE_S}) as process:
        for present, engine in ((True, "tpu"), (False, "cpu"), (True, "tpu")):
            if present:
                gone.unlink(missing_ok=True)
            else:
                gone.touch()

            def begun(engine: str = engine) -> bool:
                lines = log.read_text().splitlines() if log.exists() else []
                return len(lines) > 1 and json.loads(lines[-2])["engine"] == engine

            until(begun)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    summary = json.loads(out)
    assert summary["tpu_losses"] == 1 and summary["ended"] == "signal"
    engines = [line["engine"] for line in _lines(log)]
    changes = [engine for position, engine in enumerate(engines) if position == 0 or engines[position - 1] != engine]
    assert changes == ["tpu", "cpu", "tpu"]
    assert err.count("Edge TPU back: edgetpu:0 is in use again") == 1
    assert min(summary["engine_seconds"].values()) > 0


@pytest.mark.slow
def test_the_figures_tell_of_losses_and_of_time_on_each_engine(tpu: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    pytest.importorskip("prometheus_client")
    tpu.setenv("STANDIN", "error@20")
    address = f"127.0.0.1:{free_port()}"
    figures: dict[str, float] = {}
    with Command("run", "--delegate", "edgetpu", "--source", "test", "--web", address) as process:
        for _ in range(300):
            with contextlib.suppress(OSError):
                text = urllib.request.urlopen(f"http://{address}/metrics", timeout=5).read().decode()
                rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
                figures = {name: float(value) for name, value in rows}
            if figures.get("edge_mnv2_tpu_losses_total") and figures.get(
                'edge_mnv2_engine_seconds_total{engine="cpu"}'
            ):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert figures["edge_mnv2_tpu_losses_total"] >= 1
    assert figures['edge_mnv2_engine_seconds_total{engine="tpu"}'] > 0
    assert figures['edge_mnv2_engine_seconds_total{engine="cpu"}'] > 0
    assert process.returncode == 0


def test_on_tpu_loss_exit(run: Run, tpu: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tpu.setenv("STANDIN", "error@10")
    log = tmp_path / "log.jsonl"
    source = ("--source", "test", "--every-frame", "--max-frames", 60)
    code, out, err = run("run", "--delegate", "edgetpu", "--on-tpu-loss", "exit", *source, "--json", "--log", log)
    assert code == 5
    summary = json.loads(out)
    assert (summary["ended"], summary["frames"], summary["tpu_losses"]) == ("tpu_lost", 7, 1)
    assert "edge-mnv2: error: Edge TPU lost: " in err and "Traceback" not in err
    assert len(_lines(log)) == 7


@pytest.mark.slow
def test_sigterm_while_the_device_hangs(tpu: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tpu.setenv("STANDIN", "hang@20=300")
    log = tmp_path / "log.jsonl"
    with Command("run", "--delegate", "edgetpu", "--source", "test", "--log", log, "--json") as process:
        for _ in range(600):
            if log.exists() and len(log.read_text().splitlines()) >= 18:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["ended"] == "signal"


@pytest.mark.slow
def test_the_second_run_says_who_has_the_device(run: Run, tpu: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "first.jsonl"
    words = ("run", "--delegate", "edgetpu", "--source", "test", "--log", log, "--json")
    with Command(*words, constants={STALL: PATIENCE_S}) as first:
        while not log.exists() or not log.read_text():
            time.sleep(0.05)
            assert first.poll() is None
        for delegate in ("edgetpu", "auto"):
            source = ("--source", "test", "--every-frame", "--max-frames", 5)
            code, out, err = run("run", "--delegate", delegate, *source, "--json")
            assert code == 0 and not json.loads(out)["delegate"].startswith("edgetpu")
            assert f"edgetpu:0 is used by process {first.pid} (" in err
        source = ("--source", "test", "--every-frame", "--max-frames", 5)
        code, _, err = run("run", "--delegate", "edgetpu", "--on-tpu-loss", "exit", *source)
        assert code == 5 and f"process {first.pid}" in err
        first.send_signal(signal.SIGINT)
        out, _ = first.communicate()
    summary = json.loads(out)
    assert (summary["tpu_losses"], summary["engine_seconds"]["cpu"]) == (0, 0)
    assert DeviceLock("edgetpu-0").acquire("edgetpu:0")


def test_two_workers_are_two_devices(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    source = ("--source", "test", "--every-frame", "--max-frames", 40)
    code, out, _ = run("run", "--delegate", "edgetpu", "--workers", 2, *source, "--json", "--log", log)
    summary = json.loads(out)
    assert code == 0 and (summary["workers"], summary["delegate"]) == (2, "edgetpu:0")
    assert [line["frame"] for line in _lines(log)] == list(range(40))


def test_stills(run: Run, data: Path, tpu: pytest.MonkeyPatch) -> None:
    code, out, err = run("classify", "--delegate", "edgetpu", data / "images/cat.bmp", "--json")
    assert code == 0 and json.loads(out)["model"] == DEFAULT_COMPILED
    tpu.setenv("STANDIN", "refuse")
    code, out, err = run("classify", "--model", DEFAULT_COMPILED, data / "images/cat.bmp", "--json")
    [result] = json.loads(out)["results"]
    assert code == 0 and (result["top"][0]["index"], result["top"][0]["label"]) == (286, "Egyptian cat")
    assert "no Edge TPU: " in err and "its CPU twin mobilenet_v2_1.0_224_quant is used" in err


def test_a_compiled_model_without_twin_tells_what_keeps_the_device(
    run: Run, data: Path, tmp_path: Path, tpu: pytest.MonkeyPatch
) -> None:
    lonely = tmp_path / "lonely_edgetpu.tflite"
    lonely.write_bytes((data / EXTRACTOR).read_bytes())
    tpu.setenv("STANDIN", "prepare")
    code, out, err = run("run", "--source", "test", "--max-frames", 1, "--model", lonely)
    assert (code, out) == (5, "") and "refuses the model" in err
    tpu.delenv("EDGE_MNV2_EDGETPU_LIB")
    code, out, err = run("run", "--source", "test", "--max-frames", 1, "--model", lonely)
    assert (code, out) == (3, "") and "is compiled for the Coral Edge TPU and cannot run on a CPU" in err


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--delegate", "gpu"), 2, "edgetpu"),
        (("--on-tpu-loss", "cry"), 2, "one of cpu, exit"),
        (("--delegate", "edgetpu", "--model", "mobilenet_v2_1.0_224_int8"), 5, DEFAULT_COMPILED),
    ],
)
def test_what_cannot_be_asked_for(run: Run, options: tuple[str, ...], code: int, says: str) -> None:
    ended, out, err = run("run", "--source", "test", "--max-frames", 1, *options)
    assert (ended, out) == (code, "")
    assert says in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [("", "ok", "edgetpu:0 answers: one inference in"), ("segv", "warn", "crashed (SIGSEGV)")],
)
def test_doctor_tries_the_device(run: Run, tpu: pytest.MonkeyPatch, fault: str, status: str, says: str) -> None:
    from edge_mnv2.runtime.edgetpu.choice import contact as _edgetpu_contact

    tpu.setenv("STANDIN", fault)
    row = _edgetpu_contact()
    assert (row.id, row.status) == ("edgetpu-contact", status)
    assert says in row.detail
    assert bool(row.fix) == (status == "warn")


def test_devices_accelerators(run: Run, standin: Path, tmp_path: Path, tpu: pytest.MonkeyPatch) -> None:
    tpu.delenv("EDGE_MNV2_EDGETPU_LIB")
    trees.library(tmp_path, standin)
    trees.package(tmp_path, "libedgetpu1-max", "16.0tf2.17.1-1")
    trees.stick(tmp_path, speed="480")
    trees.card(tmp_path)
    code, out, _ = run("devices", "accelerators", "--root", tmp_path, "--json")
    found = json.loads(out)
    assert code == 0
    assert [(each["name"], each["state"], each["node"]) for each in found["accelerators"]] == [
        ("pci:0", "ready", "/dev/apex_0"),
        ("usb:0", "ready", "/dev/bus/usb/002/003"),
    ]
    assert found["library"]["version"] == "16.0tf2.17.1-1" and found["library"]["clock"] == "maximum"
    [wrong] = [row for row in found["checks"] if row["status"] != "ok"]
    assert wrong["id"] == "edgetpu-link-usb:0" and "USB 3" in wrong["fix"]


def test_the_stand_in_is_not_part_of_the_package() -> None:
    import edge_mnv2

    shipped = Path(edge_mnv2.__file__).parent
    assert not [path for path in shipped.rglob("*") if path.suffix in (".c", ".so")]
    assert not list(shipped.rglob("*standin*"))
