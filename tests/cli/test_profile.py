"""`profile` as a person and a script meet it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.board import trees
from tests.processes import until
from tests.profiler.conftest import start

Run = Callable[..., "tuple[int, str, str]"]

_CONTRACT = {"board", "settings", "model_ms", "stages_ms", "end_to_end_ms", "fps", "sweep", "winner"}
_RANKS = {"p50", "p95", "p99"}


@pytest.mark.slow
def test_the_json_document(run: Run, stub: Path) -> None:
    code, out, err = run("profile", "--model", stub, "--sweep", "--duration", 1, "--json")
    assert code == 0 and "Traceback" not in err
    document = json.loads(out)
    assert set(document) >= _CONTRACT
    assert document["model_ms"].keys() == document["end_to_end_ms"].keys() == _RANKS
    assert set(document["stages_ms"]) == {"capture", "preprocess", "inference", "postprocess"}
    assert all(set(times) == _RANKS for times in document["stages_ms"].values())
    assert isinstance(document["board"], str) and document["fps"] > 0
    settings, winner = document["settings"], document["winner"]
    keys = ("model", "delegate", "threads", "workers")
    assert [winner[key] for key in keys] == [settings[key] for key in keys]
    engines = [row for row in document["sweep"] if row["compares"] == "engines"]
    usable = document["cpus_usable"]
    tried = {(row["threads"], row["workers"]) for row in engines}
    assert len(tried) == len(engines) and {(1, 1), (1, usable), (usable, 1)} <= tried
    assert any(all(row[key] == winner[key] for key in keys) for row in engines)
    assert all(row["fps"] > 0 and row["end_to_end_ms"]["p50"] > 0 and row["rounds"] >= 2 for row in engines)
    sizes = [(row["width"], row["height"]) for row in document["sweep"] if row["compares"] == "sizes"]
    assert sizes == [(640, 480), (1280, 720), (1920, 1080)]


@pytest.mark.slow
def test_a_person_reads_a_table(run: Run, stub: Path) -> None:
    code, out, err = run("profile", "--model", stub, "--sweep", "--ops", "--duration", 1, "--goal", "throughput")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 120
    for row in ("model alone", "capture", "preprocess", "inference", "postprocess", "end to end", "frame rate"):
        assert any(line.startswith(row) for line in lines), row
    assert "settings, by throughput (most frames a second)" in out
    assert sum(line.endswith("chosen") for line in lines) == 2, "one setting and one size"
    assert "FULLY_CONNECTED" in out
    assert "comparing" in err and "best: " in err


@pytest.mark.slow
def test_a_saved_profile_is_what_run_uses(
    run: Run, stub: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(isolated / "settings"))
    asked = ("--threads", 1, "--workers", 2, "--resize", "stretch")
    code, out, _ = run("profile", "--model", stub, "--sweep", *asked, "--duration", 1, "--save", "here", "--json")
    assert code == 0
    document = json.loads(out)
    path = isolated / "settings/edge-mnv2/devices/here.yaml"
    assert document["saved"] == str(path) and path.is_file()
    code, out, _ = run("run", "--source", "test", "--every-frame", "--max-frames", 5, "--json")
    summary = json.loads(out)
    assert code == 0
    assert (summary["device"], summary["model"]) == ("here", "colours.tflite")
    assert (summary["threads"], summary["workers"]) == (1, 2)
    code, out, _ = run("devices", "show", "here", "--resolved")
    assert "stretch" in out and str(path) in out
    text = path.read_text()
    assert "goal: latency" in text and summary["runtime"].split()[0] in text and '"fps":' in text and "date:" in text
    assert run("devices", "check", path)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["latency", "throughput", "power"])
def test_goals(run: Run, stub: Path, goal: str) -> None:
    code, out, _ = run("profile", "--model", stub, "--sweep", "--goal", goal, "--duration", 0.5, "--json")
    assert code == 0
    document = json.loads(out)
    value: Callable[[dict], float] = {
        "latency": lambda row: row["end_to_end_ms"]["p50"],
        "throughput": lambda row: -row["fps"],
        "power": lambda row: row["cpu_ms_per_frame"],
    }[goal]
    assert document["goal"] == goal
    engines = [row for row in document["sweep"] if row["compares"] == "engines"]
    worst = max(engines, key=value)
    assert all(row["ratio"] > 0 for row in engines)
    keys = ("delegate", "threads", "workers")
    assert any(row["ratio"] == 1 and all(row[key] == document["winner"][key] for key in keys) for row in engines)
    assert worst["ratio"] >= 1


@pytest.mark.slow
def test_pinned_to_one_cpu_it_says_why_there_is_one_thread(stub: Path, tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    online = os.sysconf("SC_NPROCESSORS_ONLN")
    if online < 2:
        pytest.skip("this machine has one CPU: nothing holds the threads down")
    report = tmp_path / "out.html"
    with start(
        *("--model", stub, "--duration", 0.5, "--json", "--report", report),
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    ) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["settings"]["threads"] == 1 and document["cpus_usable"] == 1
    why = f"threads: at most 1, because 1 of {online} CPUs may be used (CPU affinity)"
    assert why in document["notes"]
    assert document["cpus_limited_by"] == f"CPU affinity, {online} online"
    assert why in report.read_text()


def _climb(tree: trees.Tree, process: subprocess.Popen, said: list[str]) -> None:
    """Heat the board of `tree` up while the soak runs; what the process says is kept in `said`."""
    assert process.stderr is not None
    began = None
    for line in process.stderr:
        said.append(line)
        if line.startswith("soak:"):
            began = time.monotonic()
        if began is not None and " FPS" in line and "throttling" not in line:
            second = sum(" FPS |" in each for each in said)
            tree.zone(0, "cpu-thermal", 60_000 + 5_000 * second)
            if second == 3:
                tree.clock(4, 600_000)
                tree.write("sys/devices/platform/soc/soc:firmware/get_throttled", "e0006")


@pytest.mark.slow
def test_a_soak_on_a_board_that_gets_hot(stub: Path, tmp_path: Path) -> None:
    tree = trees.pi_4(tmp_path / "board").zone(0, "cpu-thermal", 60_000)
    tree.write("sys/devices/platform/soc/soc:firmware/get_throttled", "0")
    log, report = tmp_path / "soak.jsonl", tmp_path / "out.html"
    said: list[str] = []
    arguments = ("--model", stub, "--root", tree.root, "--duration", 0.3, "--soak", 0.13, "--json")
    with start(*arguments, "--log", log, "--report", report) as process:
        watcher = threading.Thread(target=_climb, args=(tree, process, said))
        watcher.start()
        assert process.stdout is not None
        out = process.stdout.read()
        watcher.join(60)
    assert process.returncode == 0, "".join(said)
    soak = json.loads(out)["soak"]
    points = soak["points"]
    assert 7.5 < soak["seconds"] < 11 and 6 <= len(points) <= 9
    # One a second, whatever stops the machine once.
    assert 0.9 < statistics.median(np.diff([point["t_s"] for point in points])) < 1.3
    assert all(point["fps"] > 0 for point in points)
    heat = [point["temp_c"] for point in points]
    assert heat == sorted(heat) and heat[0] < 75 and heat[-1] >= 80
    assert points[0]["throttled"] == [] and points[0]["cpu_mhz"] == 1800
    assert points[-1]["throttled"] == ["frequency-capped", "throttled"] and points[-1]["cpu_mhz"] == 600
    assert soak["max_temp_c"] == heat[-1] and 0 < soak["throttled_s"] < soak["seconds"]
    assert "throttled after 0:0" in soak["verdict"] and "cool the board" in soak["verdict"]
    begins = [line for line in said if "throttling begins" in line]
    assert len(begins) == 1 and " FPS: frequency-capped" in begins[0] and "°C" in begins[0]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["throttled"] == [] and lines[-1]["throttled"] == ["frequency-capped", "throttled"]
    assert lines[-1]["temp_c"] >= 80 and all(line["fps"] > 0 for line in lines)
    page = report.read_text()
    assert all(f'aria-label="{title} over time"' in page for title in ("Frame rate", "Temperature", "CPU clock"))
    assert "throttled after 0:0" in page
    chart = page[page.index('aria-label="Frame rate over time"') :]
    assert "frequency-capped, throttled" in chart[: chart.index("</svg>")]


@pytest.mark.slow
def test_a_soak_that_is_stopped_keeps_what_it_has(stub: Path, tmp_path: Path) -> None:
    log = tmp_path / "soak.jsonl"
    with start("--model", stub, "--duration", 0.3, "--soak", 600, "--log", log, "--json") as process:
        until(lambda: log.exists() and log.read_text().count("\n") > 5)
        process.terminate()
        out, err = process.communicate()
    assert process.returncode == 0, err
    soak = json.loads(out)["soak"]
    assert soak["ended"] == "signal" and soak["points"] and soak["frames"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--soak", "0"], 2, "--soak: '0' is not a number above 0"),
        (["--soak", "-1"], 2, "--soak: '-1' is not a number above 0"),
        (["--soak", "NaN"], 2, "--soak: 'NaN' is not a number above 0"),
        (["--soak", "inf"], 2, "--soak: 'inf' is not a number above 0"),
        (["--soak", "long"], 2, "--soak: 'long' is not a number above 0"),
        (["--duration", "0"], 2, "--duration: '0' is not a number of seconds"),
        (["--duration", "nan"], 2, "--duration: 'nan' is not a number of seconds"),
        (["--report", "missing/out.html"], 2, "--report missing/out.html: not a file in an existing folder"),
        (["--report", "."], 2, "--report .: not a file"),
        (["--save", "a/b"], 2, "a profile cannot be called 'a/b'"),
        (["--save", "../here"], 2, "a profile cannot be called '../here'"),
        (["--save", ""], 2, "--save: '' is not"),
        (["--save", "generic"], 2, "packaged profile"),
        (["--model", "nobody's"], 3, "unknown model 'nobody's'"),
        (["--model", "a", "--model", "b"], 2, "several models without --sweep"),
        (["--goal", "power"], 2, "--goal without --sweep"),
        (["--sweep", "--goal", "speed"], 2, "--goal: 'speed' is not one of latency, throughput, power"),
        (["--log", "x.jsonl"], 2, "--log without --soak"),
        (["--soak", "1", "--log", "-"], 2, "--log -"),
        (["--soak", "1", "--log", "missing/x.jsonl"], 2, "--log missing/x.jsonl"),
        (["--root", "missing"], 2, "--root missing: no such folder"),
        (["--threads", "0"], 2, "--threads"),
        (["--workers", "yes"], 2, "--workers"),
        (["--source", "missing.mp4"], 4, "missing.mp4: file not found"),
        (["--device", "nobody's"], 6, "nobody's"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended, out, err = run("profile", *arguments)
    assert (ended, out) == (code, "")
    assert says in err and err.count("\n") == 1 and err.startswith("edge-mnv2: error: ")
    assert list(tmp_path.iterdir()) == []


def test_profiles_side_by_side(run: Run, stub: Path, tmp_path: Path) -> None:
    files = []
    for threads in (1, 2):
        code, out, err = run("profile", "--model", stub, "--threads", threads, "--duration", 0.2, "--json")
        assert code == 0, err
        files.append(tmp_path / f"{threads}.json")
        files[-1].write_text(out)
    code, out, err = run("profile", "compare", *files, "--report", tmp_path / "side.html")
    assert code == 0 and "side.html" in err
    assert max(map(len, out.splitlines())) < 80 + len(str(tmp_path))
    assert "1 thread, 1 worker" in " ".join(out.split()) and "TIMES" in out
    assert (tmp_path / "side.html").read_text().count("<svg ") == 1
    code, out, _ = run("profile", "compare", *files, "--json")
    assert [row["file"] for row in json.loads(out)["profiles"]] == list(map(str, files))
    for words, said in (
        (("compare", files[0]), "two profiles at least"),
        (("compare", *files, "--soak", 1), "--soak does not go with"),
        (("cmp", *files), "unexpected 'cmp'"),
    ):
        code, out, err = run("profile", *words)
        assert (code, out) == (2, "") and said in err
