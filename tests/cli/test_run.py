"""`run` as a person and a service meet it: real clips, pictures, files, signals and processes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mnv2.board import cpus
from edge_mnv2.runtime.opening import shared_by
from tests.board.trees import Tree
from tests.processes import Command
from tests.stubs import BLUE, GREEN, RED

Run = Callable[..., "tuple[int, str, str]"]

SUMMARY = [
    "model",
    "runtime",
    "delegate",
    "threads",
    "workers",
    "device",
    "source",
    "fallback",
    "frames",
    "dropped",
    "duration_s",
    "fps",
    "latency_ms",
    "stages_ms",
    "frame_age_ms",
    "rss_mb",
    "max_temp_c",
    "throttled",
    "reconnects",
    "tpu_losses",
    "write_errors",
    "ended",
]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Thirty frames at 30 FPS: ten red, ten green, ten blue."""
    path = tmp_path / "colours.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    for colour in (RED, GREEN, BLUE):
        for _ in range(10):
            writer.write(np.full((48, 64, 3), colour[::-1], np.uint8))
    writer.release()
    return path


def process(*arguments: object, **environment: str) -> Command:
    return Command(*arguments, environment={**os.environ, **environment})


def test_every_frame_of_a_clip_in_its_order(run: Run, stub: Path, clip: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    code, out, _ = run("run", "--model", stub, "--source", clip, "--every-frame", "--json", "--log", log)
    summary = json.loads(out)
    assert code == 0 and summary["frames"] == 30 and summary["dropped"] == 0 and summary["ended"] == "eof"
    assert [name for name in SUMMARY if name not in summary] == []
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(30))
    assert [line["top"][0]["label"] for line in lines] == ["red"] * 10 + ["green"] * 10 + ["blue"] * 10
    assert summary["source"] == str(clip) and summary["model"] == "colours.tflite" and summary["fallback"] is False


@pytest.mark.slow
def test_a_clip_is_paced_like_a_camera(run: Run, stub: Path, clip: Path) -> None:
    code, out, _ = run("run", "--model", stub, "--source", clip, "--json")
    summary = json.loads(out)
    assert code == 0 and 0.8 < summary["duration_s"] < 5
    assert summary["frames"] + summary["dropped"] == 30


@pytest.mark.slow
def test_a_clip_on_a_slow_board_keeps_its_own_time(
    run: Run, stub: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MNV2_SIMULATE_INFERENCE_MS", "200")
    code, out, _ = run("run", "--model", stub, "--source", clip, "--json")
    summary = json.loads(out)
    assert code == 0 and summary["duration_s"] < 2.5 and summary["dropped"] > 15
    assert summary["frames"] + summary["dropped"] == 30 and summary["frame_age_ms"]["p95"] < 100
    code, out, _ = run("run", "--model", stub, "--source", clip, "--every-frame", "--json")
    assert json.loads(out)["frames"] == 30 and json.loads(out)["duration_s"] > 5


def test_workers_keep_the_order(run: Run, stub: Path, clip: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    code, out, _ = run(
        "run", "--model", stub, "--source", clip, "--every-frame", "--workers", 3, "--log", log, "--json"
    )
    assert code == 0 and json.loads(out)["workers"] == 3
    rows = list(csv.DictReader(log.open(newline="")))
    assert [row["label"] for row in rows] == ["red"] * 10 + ["green"] * 10 + ["blue"] * 10


def test_every_frame_of_a_file_is_shared_by_a_worker_for_each_cpu(
    run: Run, stub: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "usable_cpus", lambda root="/": 3)
    monkeypatch.setattr(cpus.MemoryReader, "read", lambda self: cpus.Memory(total=4000, available=3000))

    def used(*words: object) -> tuple[int, int]:
        code, out, err = run("run", "--model", stub, "--json", *words)
        said = "3 workers of one thread share the frames (--workers 1: one, in less memory)" in err
        assert code == 0 and said == (json.loads(out)["workers"] == 3)
        return json.loads(out)["workers"], json.loads(out)["threads"]

    file = ("--source", clip, "--every-frame")
    assert used(*file) == (3, 1)
    assert used("--source", "test", "--every-frame", "--max-frames", 1)[0] == 3
    # Somebody has said something, or nobody wants every frame.
    assert used(*file, "--workers", 1)[0] == 1
    assert used(*file, "--threads", 1) == (1, 1)
    assert used(*file, "--workers", 2)[0] == 2
    assert used("--source", clip, "--max-frames", 1)[0] == 1
    monkeypatch.setattr(cpus.MemoryReader, "read", lambda self: cpus.Memory(total=430, available=300))
    assert used(*file)[0] == 1


def test_as_many_workers_as_there_is_memory_for(tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    model.touch()
    os.truncate(model, 4 << 20)
    for cpu_count, total_mb, workers in (
        (4, 430, 1),
        (4, 900, 4),
        (4, 3800, 4),
        (2, 8000, 2),
        (1, 8000, 1),
        (16, 8000, 4),
    ):
        board = Tree(tmp_path / f"{cpu_count}-{total_mb}").cpus(cpu_count).memory(total_mb * 1024)
        assert shared_by(model, board.root) == workers, (cpu_count, total_mb)
    os.truncate(model, 100 << 20)
    assert shared_by(model, Tree(tmp_path / "large").cpus(4).memory(2000 * 1024).root) == 1
    assert shared_by(model, tmp_path / "nothing") == 1


@pytest.mark.slow
def test_a_slow_model_drops_frames_and_keeps_them_fresh(run: Run, stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MNV2_SIMULATE_INFERENCE_MS", "100")
    code, out, err = run("run", "--model", stub, "--source", "test:320x240@60", "--duration", "3", "--json")
    summary = json.loads(out)
    assert code == 0 and summary["ended"] == "duration"
    # A single frame that waits would be older by a whole inference; what stops the machine makes some of them older.
    assert summary["dropped"] > 20 and summary["frame_age_ms"]["p50"] < 50 and summary["latency_ms"]["p50"] < 160
    assert "simulated" in err and "FPS" in err


def test_log_to_stdout_is_nothing_but_json_lines(stub: Path) -> None:
    with process("run", "--model", stub, "--source", "test", "--max-frames", 5, "--log", "-") as running:
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0
    assert [json.loads(line)["frame"] for line in out.splitlines()] == sorted(
        json.loads(line)["frame"] for line in out.splitlines()
    )
    assert len(out.splitlines()) == 5 and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_with_its_summary(stub: Path, number: signal.Signals) -> None:
    with process("run", "--model", stub, "--source", "test", "--json") as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "FPS" in line:
                break
        began = time.monotonic()
        running.send_signal(number)
        out, err = running.communicate(timeout=20)
    assert running.returncode == 0 and time.monotonic() - began < 5
    assert json.loads(out)["ended"] == "signal" and json.loads(out)["frames"] > 0
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_hangup_under_nohup_changes_nothing(stub: Path) -> None:
    ended = subprocess.Popen(
        [
            *("nohup", sys.executable, "-m", "edge_mnv2", "run", "--model", str(stub)),
            *("--source", "test", "--max-frames", "60", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    with ended as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "FPS" in line:
                break
        running.send_signal(signal.SIGHUP)
        out, _ = running.communicate(timeout=30)
    assert running.returncode == 0 and json.loads(out)["ended"] == "max_frames"


def test_a_reader_that_goes_away_ends_the_run(stub: Path) -> None:
    with process("run", "--model", stub, "--source", "test", "--log", "-") as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.stdout.close()
        running.stdout = None
        assert running.wait(20) in (0, 1)


def test_a_full_disk_is_said_once_and_the_run_goes_on(run: Run, stub: Path) -> None:
    code, out, err = run("run", "--model", stub, "--source", "test", "--max-frames", 20, "--log", "/dev/full", "--json")
    summary = json.loads(out)
    assert code == 8 and summary["frames"] == 20 and summary["write_errors"] > 0
    assert err.count("cannot be written") == 1


def test_a_folder_goes_on_after_a_bad_picture(run: Run, stub: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("1.png", RED), ("3.png", GREEN), ("10.png", BLUE)):
        cv2.imwrite(str(folder / name), np.full((40, 40, 3), colour[::-1], np.uint8))
    (folder / "2.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    log = tmp_path / "log.jsonl"
    code, _, err = run("run", "--model", stub, "--source", folder, "--log", log)
    assert code == 8 and "2.jpg" in err
    labels = [json.loads(line)["top"][0]["label"] for line in log.read_text().splitlines()]
    assert labels == ["red", "green", "blue"]


def test_roi_and_flip_are_applied(run: Run, stub: Path, tmp_path: Path) -> None:
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[:, :100] = RED[::-1]
    picture[:, 100:] = BLUE[::-1]
    path = tmp_path / "halves.png"
    cv2.imwrite(str(path), picture)
    for options, label in (
        (["--roi", "0,0,100,100"], "red"),
        (["--roi", "100,0,100,100"], "blue"),
        (["--roi", "0,0,100,100", "--flip", "h"], "blue"),
    ):
        log = tmp_path / "log.jsonl"
        log.unlink(missing_ok=True)
        code, _, _ = run("run", "--model", stub, "--source", path, "--log", log, *options)
        assert code == 0
        assert json.loads(log.read_text())["top"][0]["label"] == label, options


BAD = [
    (["--threads", "0"], 2, "--threads"),
    (["--threads", "-1"], 2, "--threads"),
    (["--threads", "10000"], 2, "--threads"),
    (["--threads", "many"], 2, "--threads"),
    (["--threads", "true"], 2, "--threads"),
    (["--threshold", "nan"], 2, "--threshold"),
    (["--threshold", "1.5"], 2, "--threshold"),
    (["--smooth", "1"], 2, "--smooth"),
    (["--top-k", "0"], 2, "--top-k"),
    (["--resize", "squash"], 2, "--resize"),
    (["--runtime", "torch"], 2, "--runtime"),
    (["--size", "640"], 2, "--size"),
    (["--rotate", "45"], 2, "--rotate"),
    (["--duration", "-1"], 2, "--duration"),
    (["--duration", "nan"], 2, "--duration"),
    (["--max-frames", "0"], 2, "max-frames"),
    (["--log-every", "x"], 2, "--log-every"),
    (["--json", "--log", "-"], 2, "stdout"),
    (["--camera", "0"], 2, "--camera"),
    (["--log", "/nowhere/at/all.jsonl"], 2, "/nowhere/at/all.jsonl"),
    (["--model", "mobilenet_v9"], 3, "mobilenet_v9"),
    (["--model", "/nowhere/m.tflite"], 3, "/nowhere/m.tflite"),
    (["--labels", "/nowhere/labels.txt"], 3, "/nowhere/labels.txt"),
    (["--source", "/nowhere/clip.mp4"], 4, "/nowhere/clip.mp4"),
    (["--source", "test:axb"], 2, "test:axb"),
    (["--device", "toaster"], 6, "toaster"),
    (["--device", "/nowhere/p.yaml"], 6, "/nowhere/p.yaml"),
]


@pytest.mark.parametrize(("arguments", "code", "named"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_bad_input_is_one_line(run: Run, arguments: list[str], code: int, named: str) -> None:
    source = [] if "--source" in arguments else ["--source", "test"]
    ended, out, err = run("run", *source, "--max-frames", 1, *arguments)
    assert ended == code, err
    assert out == "" and named in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if "error" in line.lower()]) == 1


def test_no_camera_is_said_with_what_was_looked_for(run: Run, stub: Path) -> None:
    if any(Path("/dev").glob("video*")):
        pytest.skip("this machine has a camera")
    for arguments in (["--camera"], ["--camera", "--max-frames", "1"]):
        code, _, err = run("run", "--model", stub, *arguments)
        assert code == 4 and "no camera found" in err
    # What is advised works for each command that says it.
    code, _, err = run("teach", "--camera", "--class", "cup", "--class", "nothing", "--out", "x.tflite")
    assert code == 4 and "or use --camera demo" in err
    assert all("--camera" in run(command, "--help")[1] for command in ("run", "teach"))


def test_the_command_line_goes_before_the_environment(run: Run, stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MNV2_MODEL", "mobilenet_v9")
    monkeypatch.setenv("EDGE_MNV2_SOURCE", "/nowhere.mp4")
    monkeypatch.setenv("EDGE_MNV2_MAX_FRAMES", "3")
    assert run("run")[0] == 3
    code, out, _ = run("run", "--model", stub, "--source", "test", "--json")
    assert code == 0 and json.loads(out)["frames"] == 3


def test_classify_names_every_bad_file_and_goes_on(run: Run, stub: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "green.png", tmp_path / "bad.png"
    cv2.imwrite(str(good), np.full((40, 40, 3), GREEN[::-1], np.uint8))
    bad.write_bytes(b"GIF89a")
    code, out, _ = run("classify", "--model", stub, bad, good, tmp_path / "none.jpg", "--json")
    results = json.loads(out)["results"]
    assert code == 8 and results[1]["top"][0]["label"] == "green" and results[1]["inference_ms"] > 0
    assert "error" in results[0] and "none.jpg" in results[2]["error"]
    assert run("classify", "--model", stub, bad, "--json")[0] == 4


def test_the_default_model_knows_a_cat_and_a_uniform(run: Run, data: Path) -> None:
    pictures = [data / "images" / name for name in ("cat.bmp", "grace_hopper.bmp")]
    code, out, _ = run("classify", *pictures, "--json")
    assert code == 0
    best = [result["top"][0]["label"] for result in json.loads(out)["results"]]
    assert any(word in best[0] for word in ("tabby", "tiger cat", "Egyptian cat"))
    assert any(word in best[1] for word in ("military uniform", "bow tie", "Windsor tie"))


@pytest.mark.slow
def test_a_whole_clip_of_the_reference_data(run: Run, data: Path) -> None:
    code, out, _ = run("run", "--source", data / "video" / "bigbuckbunny.mp4", "--every-frame", "--json")
    assert code == 0 and json.loads(out)["frames"] == 132


@pytest.mark.slow
def test_doctor_is_content_where_the_test_source_works(run: Run) -> None:
    code, out, _ = run("doctor", "--json")
    report = json.loads(out)
    assert code == 0 and report["ok"] is True
    assert {check["id"] for check in report["checks"]} >= {"python", "runtime", "numpy+opencv", "model", "disk"}
    assert all(check["fix"] for check in report["checks"] if check["status"] != "ok")


def test_names_that_are_not_utf8(stub: Path, clip: Path, tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9")
    Path(folder).mkdir()
    video = clip.rename(Path(folder) / os.fsdecode(b"b\xe9.avi"))
    model = stub.rename(Path(folder) / os.fsdecode(b"m\xe9.tflite"))
    with process("run", "--model", model, "--source", video, "--every-frame") as running:
        err = running.communicate(timeout=60)[1]
    assert running.returncode == 0 and "30 frames" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "source", [b"gst:videotestsrc name=\xe9", b"rtsp://127.0.0.1:1/\xe9", b"http://127.0.0.1:1/\xe9"]
)
def test_addresses_that_are_not_utf8(stub: Path, source: bytes) -> None:
    with process("run", "--model", stub, "--source", os.fsdecode(source)) as running:
        err = running.communicate(timeout=60)[1]
    assert running.returncode == 2 and "is not UTF-8" in err and len(err.splitlines()) == 1


LATE_FAULTS = {
    "output: {appear: 0.3, gone: 0.5}": ("output.gone", ["--appear", "0.3", "--gone", "0.5"], 2),
    "output: {allow: [red, nosuch]}": ("output.allow", ["--allow", "nosuch"], 2),
    "output: {deny: nosuch}": ("output.deny", ["--deny", "nosuch"], 2),
    "camera: {source: nope.mp4}": ("camera.source", ["--source", "nope.mp4"], 4),
    "camera: {source: 'ftp://a/b'}": ("camera.source", ["--source", "ftp://a/b"], 2),
    "runtime: {backend: tflite-runtime}": ("runtime.backend", ["--runtime", "tflite-runtime"], 2),
}


@pytest.mark.parametrize("section", LATE_FAULTS)
def test_a_fault_is_the_profile_s_where_the_value_is(
    run: Run, stub: Path, tmp_path: Path, section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "tflite-runtime" in section:
        # Whether it is installed here or not.
        monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    key, typed, code_when_typed = LATE_FAULTS[section]
    other = [] if "--source" in typed else ["--source", "test"]
    profile = tmp_path / "board.yaml"
    profile.write_text(f"extends: base\n{section}\n")
    always = ["run", "--model", stub, "--max-frames", 1]
    code, _, err = run(*always, *("" if key == "camera.source" else "--source test").split(), "--device", profile)
    assert code == 6 and f"{profile}:2: {key}: " in err and len(err.splitlines()) == 1
    code, _, err = run(*always, *other, *typed)
    assert code == code_when_typed and str(profile) not in err and len(err.splitlines()) == 1


def test_thresholds_out_of_order_are_found_by_the_check(run: Run, tmp_path: Path) -> None:
    profile = tmp_path / "board.yaml"
    profile.write_text("extends: base\noutput:\n  gone: 0.8\n")
    code, _, err = run("devices", "check", profile)
    assert code == 6 and f"{profile}:3: output.gone: " in err
    profile.write_text("extends: base\noutput:\n  gone: 0.8\n  appear: 0.8\n")
    assert run("devices", "check", profile)[0] == 0


@pytest.mark.slow
def test_pages_of_a_source_whose_name_is_not_utf8(stub: Path, clip: Path) -> None:
    pytest.importorskip("aiohttp")
    pytest.importorskip("prometheus_client")
    odd = clip.rename(clip.with_name(os.fsdecode(b"b\xe9.avi")))
    model = stub.rename(stub.with_name(os.fsdecode(b"m\xe9.tflite")))
    with process("run", "--model", model, "--source", odd, "--loop", "--web", 0) as running:
        assert running.stderr is not None
        page = ""
        for line in running.stderr:
            page = line.partition("web page: ")[2].strip() or page
            if "FPS" in line:
                break
        try:
            with urllib.request.urlopen(f"{page}metrics", timeout=10) as answer:
                assert "b\\\\udce9.avi" in answer.read().decode("utf-8")
        finally:
            running.terminate()
            running.communicate(timeout=20)


@pytest.mark.slow
def test_the_demo_goes_on_for_as_long_as_its_page_is_looked_at() -> None:
    command = [sys.executable, "-m", "edge_mnv2", "run", "--web", "0", "--duration", "11", "--json"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60)
    summary = json.loads(child.stdout)
    if not summary["fallback"]:
        pytest.skip("a camera is attached here")
    assert child.returncode == 0 and summary["ended"] == "duration", child.stderr
