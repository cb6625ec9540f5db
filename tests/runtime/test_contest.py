"""Runtimes against each other on one model: twins, equal answers, the race, and those that crash, hang or differ."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from PIL import Image

from edge_mnv2 import paths
from edge_mnv2.board.cpus import resolve_threads
from edge_mnv2.builder.calibration import activation_ranges
from edge_mnv2.builder.inference import operations
from edge_mnv2.builder.keras_file import read_keras
from edge_mnv2.builder.tflite_model import float_model, integer_model, numbers
from edge_mnv2.doctor import checks
from edge_mnv2.errors import ModelError
from edge_mnv2.inspect import delegation
from edge_mnv2.network.network import Head, Network, mobilenet_v2
from edge_mnv2.profiler import sweep
from edge_mnv2.runtime import contest, table
from edge_mnv2.runtime.answers import compare, crops, difference, opened, time_ratios
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.contest import Contest, chosen, known, wanted
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import resolve
from tests.network import seeded
from tests.processes import until
from tests.runtime.brought import archive
from tests.stubs import colour_model

pytest.importorskip("onnxruntime", reason="no onnxruntime wheel for this system")

Run = Callable[..., "tuple[int, str, str]"]

STAND_IN = '''
"""Runtimes that behave badly, and one that is quick: it answers from memory where it has seen the picture."""
import os, signal, sys, time
from edge_mnv2.runtime import onnx_runtime
from edge_mnv2.runtime.table import Runtime, row as row_of

def one(name):
    return Runtime(name, "standin_runtimes", "standin_runtimes", ("standin-runtimes",), (".onnx",), "pip", twins=True)

crashes, hangs, differs, quick, falls = (one(name) for name in ("crashes", "hangs", "differs", "quick", "falls"))

def open_model(row, path, *, threads, accelerate, input_size):
    if row.name == "crashes" or (row.name == "falls" and sys.argv[1] == "race"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if row.name == "hangs":
        time.sleep(600)
    inner = onnx_runtime.open_model(row_of("onnxruntime"), path, threads=threads, accelerate=False, input_size=None)
    inner.runtime = f"{row.name} 1.0"
    invoke, output, answers = inner.invoke, inner.output, {}
    if row.name == "differs":
        inner.output = lambda position=0: output(position)[:, ::-1].copy()
    if row.name == "quick":
        def from_memory():
            key = inner._fed["image"].tobytes()
            if key not in answers:
                invoke()
                answers[key] = inner._answers
            inner._answers = answers[key]
        inner.invoke = from_memory
    return inner
'''


@pytest.fixture
def small(data: Path) -> Path:
    return data / "models" / "mobilenet_v1_0.25_128_quant.tflite"


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], table.Runtime]]:
    """Install a package with runtimes; the function that is handed out leaves only one of them in the contest."""
    folder = tmp_path / "packages"
    metadata = folder / "standin_runtimes-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "standin_runtimes").mkdir()
    (folder / "standin_runtimes" / "__init__.py").write_text(STAND_IN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: standin-runtimes\nVersion: 1.0\n")
    words = "\n".join(f"{name} = standin_runtimes:{name}" for name in ("crashes", "hangs", "differs", "quick", "falls"))
    (metadata / "entry_points.txt").write_text(f"[edge_mnv2.runtimes]\n{words}\n")
    monkeypatch.syspath_prepend(str(folder))
    here = str(Path(__file__).resolve().parents[2])
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{here}")
    monkeypatch.delenv(contest.SWITCH, raising=False)

    def only(name: str) -> table.Runtime:
        row = table.row(name)
        monkeypatch.setattr(contest, "rivals", lambda path, accelerate=True: [row])
        return row

    yield only


def test_crops_are_many_and_of_the_size() -> None:
    pictures = list(crops((96, 128)))
    assert len(pictures) >= 200
    assert {(picture.shape, picture.dtype.name) for picture in pictures} == {((96, 128, 3), "uint8")}
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


SURE = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])


@pytest.mark.parametrize(
    ("rival", "reason"),
    [
        (SURE, ""),
        (SURE[:, ::-1], "names another class in 1 of 2"),
        (np.array([[0.7, 0.2, 0.1], [0.35, 0.4, 0.25]]), "off by -0.025"),
        (SURE + np.array([0.005, -0.005, 0]), ""),
        (SURE + 0.02, "off by +0.020"),
        (np.full((2, 3), np.nan), "not finite"),
    ],
)
def test_answers_of_one_class_are_compared(rival: np.ndarray, reason: str) -> None:
    assert reason in compare(SURE, rival, one_class=True)
    assert bool(compare(SURE, rival, one_class=True)) == bool(reason)


@pytest.mark.parametrize(("shift", "equal"), [(0.0, True), (0.05, True), (2.0, False)])
def test_values_are_compared_by_their_range(shift: float, equal: bool) -> None:
    values = np.linspace(20, 30, 50)[:, None]
    assert (compare(values, values + shift, one_class=False) == "") == equal


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_twin_answers_as_the_model(small: Path, runtime: str) -> None:
    if table.row(runtime).version() is None:
        pytest.skip(f"{runtime} is not installed")
    assert difference(str(small), runtime) == ""


def test_a_damaged_twin_is_made_again(small: Path) -> None:
    with Classifier.open(small, runtime="onnxruntime") as one:
        right = one.scores(next(crops((128, 128))))
    twin = next((paths.cache_dir() / "twins").glob("*.onnx"))
    content = bytearray(twin.read_bytes())
    content[len(content) // 2] ^= 255
    twin.write_bytes(content)
    with Classifier.open(small, runtime="onnxruntime") as one:
        assert np.array_equal(one.scores(next(crops((128, 128)))), right)


def test_a_twin_without_a_cache(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGE_MNV2_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with Classifier.open(small, runtime="onnxruntime") as one:
        assert one.interpreter.inputs[0].scale > 0


def test_a_float_model_has_no_twin(tmp_path: Path, run: Run) -> None:
    model = tmp_path / "colours.tflite"
    model.write_bytes(colour_model("float32"))
    with pytest.raises(ModelError, match="no ONNX twin can be made: MEAN computes in float32"):
        Classifier.open(model, runtime="onnxruntime")
    code, _, err = run("classify", "--model", model, "--runtime", "onnxruntime", tmp_path)
    assert code == 3 and "onnxruntime cannot run colours.tflite: no ONNX twin can be made" in err
    assert "--runtime litert" in err


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_twin_on_the_command_line(tmp_path: Path, run: Run, runtime: str, dtype: str) -> None:
    if table.row(runtime).version() is None:
        pytest.skip(f"{runtime} is not installed")
    model, red = tmp_path / "colours.tflite", tmp_path / "red.png"
    model.write_bytes(colour_model(dtype))
    Image.new("RGB", (40, 30), (250, 10, 10)).save(red)
    code, out, err = run("classify", red, "--model", model, "--runtime", runtime, "--json")
    assert code == 0, err
    assert json.loads(out)["results"][0]["top"][0]["index"] == 0
    code, out, err = run("run", "--source", "test", "--max-frames", 3, "--model", model, "--runtime", runtime, "--json")
    assert code == 0 and json.loads(out)["runtime"].startswith(runtime), err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"), [("crashes", "crashed (SIGSEGV)"), ("hangs", "did not answer"), ("differs", "another class")]
)
def test_who_behaves_badly_is_left_out_once(
    small: Path, stand_ins: Callable[[str], table.Runtime], monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    stand_ins(name)
    monkeypatch.setattr(contest, "_ANSWERS_TIMEOUT_S", 4.0 if name == "hangs" else 60.0)
    assert wanted(small, 1)
    result = Contest(small).run(1)
    assert result is not None and result.winner is None and reason in result.left_out[name]
    monkeypatch.setattr(Contest, "_ask", lambda *_: pytest.fail("it is compared again"))
    began = time.monotonic()
    assert Contest(small).run(1) == result and not wanted(small, 1)
    assert time.monotonic() - began < 0.5
    with pytest.raises(ModelError, match=f"{name} cannot run"):
        chosen(small, name, 1)
    assert chosen(small, "auto", 1) == ("auto", [])


@pytest.mark.slow
def test_the_quickest_wins_and_is_remembered(
    small: Path, stand_ins: Callable[[str], table.Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins("quick")
    assert chosen(small, "auto", 1) == ("auto", [])
    result = Contest(small).run(1)
    assert result is not None and result.winner == "quick" and result.ratio > 1.2
    assert known(small, 1) == result and known(small, 2) is None
    name, notes = chosen(small, "auto", 1)
    assert name == "quick" and len(notes) == 1 and "equal answers" in notes[0]
    assert chosen(small, "litert", 1) == ("litert", [])
    monkeypatch.setenv(contest.SWITCH, "off")
    assert chosen(small, "auto", 1) == ("auto", [])


@pytest.mark.slow
def test_who_crashes_in_the_race_of_all_takes_nobody_with_it(
    small: Path, stand_ins: Callable[[str], table.Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins("quick")
    rows = [table.row("falls"), table.row("quick")]
    monkeypatch.setattr(contest, "rivals", lambda path, accelerate=True: rows)
    result = Contest(small).run(1)
    assert result is not None and result.winner == "quick" and result.left_out == {"falls": "it crashed (SIGSEGV)"}


@pytest.mark.slow
def test_a_new_version_races_again(
    small: Path, stand_ins: Callable[[str], table.Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins("quick")
    Contest(small).run(1)
    monkeypatch.setattr(contest, "processor", lambda: "another processor")
    assert known(small, 1) is None and wanted(small, 1)


@pytest.mark.slow
def test_a_damaged_memory_is_forgotten(small: Path, stand_ins: Callable[[str], table.Runtime]) -> None:
    stand_ins("quick")
    Contest(small).run(1)
    memory = next((paths.cache_dir() / "runtimes").glob("*.json"))
    for content in ("", "[]", '{"a": 1}', '{"a": {"refused": 1, "ratios": {}}}', "{" * 1000):
        memory.write_text(content)
        assert known(small, 1) is None


@contextlib.contextmanager
def ending_after(words: str) -> Iterator[None]:
    """The run of the block ends as by Ctrl-C, four seconds after it has said `words`."""
    timers: list[threading.Timer] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage() and not timers:
                timers.append(threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGINT)))
                timers[0].start()

    ear, product = Ear(), logging.getLogger("edge_mnv2")
    product.addHandler(ear)
    try:
        yield
    finally:
        product.removeHandler(ear)
        for timer in timers:
            timer.cancel()


@pytest.mark.slow
def test_a_contest_beside_a_run(
    small: Path, stand_ins: Callable[[str], table.Runtime], monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    stand_ins("quick")
    monkeypatch.setattr(contest, "_DELAY_S", 0.0)
    arguments = ("run", "--source", "test", "--model", str(small), "--threads", "1", "--json")
    with ending_after("used from now on"):
        code, out, err = run(*arguments, "--duration", "60")
    first = json.loads(out)
    assert code == 0 and first["runtime"] == "quick 1.0" and first["frames"] > 100 and first["swaps"] == 0
    assert err.count("used from now on") == 1
    code, out, err = run(*arguments, "--max-frames", "3")
    assert json.loads(out)["runtime"] == "quick 1.0" and err.count("times as fast as litert") == 1
    code, out, err = run(*arguments, "--max-frames", "3", "--runtime", "litert")
    assert json.loads(out)["runtime"].startswith("ai-edge-litert") and "times as fast" not in err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quick", "crashes"])
def test_a_file_is_classified_by_one_runtime_to_its_end(
    name: str,
    small: Path,
    data: Path,
    stand_ins: Callable[[str], table.Runtime],
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
) -> None:
    stand_ins(name)
    monkeypatch.setattr(contest, "_DELAY_S", 0.0)
    clip = data / "video" / "bikes.mp4"
    arguments = ("run", "--source", str(clip), "--model", str(small), "--threads", "1", "--json")
    said = "used from the next start on" if name == "quick" else "is left out for this model"
    with ending_after(said):
        code, out, err = run(*arguments, "--loop", "--duration", "60")
    assert code == 0 and json.loads(out)["runtime"].startswith("ai-edge-litert") and json.loads(out)["frames"] > 50
    if name == "quick":
        assert err.count("used from the next start on") == 1
    else:
        assert err.count("the runtime crashes is left out for this model: it crashed") == 1


@pytest.mark.slow
def test_a_run_that_ends_ends_its_contest(
    small: Path, stand_ins: Callable[[str], table.Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins("hangs")
    monkeypatch.setattr(contest, "_DELAY_S", 0.0)
    with contest.BesideRun(small, 1) as beside:
        until(lambda: beside._contest._child is not None)
        began = time.monotonic()
    assert time.monotonic() - began < 4
    assert known(small, 1) is None


def test_a_stop_ends_a_child_that_is_being_started(
    small: Path, stand_ins: Callable[[str], table.Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, started = Contest(small), subprocess.Popen

    def stopped_meanwhile(*arguments: Any, **more: Any) -> Any:
        one.stop()
        return started(*arguments, **more)

    monkeypatch.setattr(subprocess, "Popen", stopped_meanwhile)
    began = time.monotonic()
    with pytest.raises(contest.Stopped):
        one.equal(stand_ins("hangs"))
    # The child, and who waits for it, would have five minutes.
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_child_says_nothing_about_a_runtime(
    small: Path, stand_ins: Callable[[str], table.Runtime], number: signal.Signals
) -> None:
    row, one = stand_ins("hangs"), Contest(small)

    def signalled() -> None:
        # As systemd sends it: the child gets it too, and is the first to end.
        while (child := one._child) is None:
            time.sleep(0.01)
        groups.append(os.getpgid(child.pid))
        child.send_signal(number)

    groups: list[int] = []
    threading.Thread(target=signalled, daemon=True).start()
    with pytest.raises(contest.Stopped):
        one.equal(row)
    assert contest.refused(small, row) is None
    assert groups != [os.getpgid(0)], "Ctrl-C on a terminal reaches it too"


@pytest.mark.parametrize("sidecar", ["", "task: regression\n", "labels: [one, two, many]\n"])
def test_what_a_model_is_for_does_not_matter_to_the_comparison(sidecar: str, tmp_path: Path) -> None:
    network = mobilenet_v2(0.1, 32, 1, Head("regression"))
    steps = operations(network, seeded.tensors(network.state_dict_shapes()))
    pictures = [seeded.picture(32, seed) for seed in range(2)]
    ranges = activation_ranges(float_model(network, steps), steps, pictures, regression=True)
    model = tmp_path / "m.tflite"
    model.write_bytes(integer_model(network, steps, numbers(network, steps, ranges)))
    if sidecar:
        (tmp_path / "m.yaml").write_text(sidecar)
    reason = difference(str(model), "onnxruntime")
    # Untrained weights make much of every rounding.
    assert not reason or "off by" in reason


@pytest.mark.parametrize("lists", [{"a_txt": "one\ntwo"}, {"a_txt": "no\nno", "b_txt": "too\nmany\nlists"}])
def test_names_that_do_not_fit_do_not_matter_to_the_comparison(lists: dict, small: Path, tmp_path: Path) -> None:
    """`--labels` names the rows then."""
    model = tmp_path / "m.tflite"
    model.write_bytes(small.read_bytes() + archive(**lists))
    with opened(str(model), ["onnxruntime"]) as pair:
        assert [len(one.labels) for one in pair] == [1001, 1001]


@pytest.mark.slow
def test_what_lies_in_the_current_folder_is_not_taken_for_a_library(
    small: Path, stand_ins: Callable[[str], table.Runtime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "random", "statistics", "signal"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('a file of the user')\n")
    monkeypatch.chdir(tmp_path)
    row, one = stand_ins("crashes"), Contest(small)
    assert one.equal(row) == "it crashed (SIGSEGV)"
    assert delegation.find(small).runtime is not None
    assert Path(checks.run_python("import random; print(random.__file__)").output).parent == Path(os.__file__).parent
    weights = tmp_path / "empty.h5"
    weights.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ModelError) as error:
        read_keras(weights)
    assert "a file of the user" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_default_model_answers_the_same(runtime: str) -> None:
    if table.row(runtime).version() is None:
        pytest.skip(f"{runtime} is not installed")
    model = str(paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite"))
    assert difference(model, runtime) == ""
    assert 0.05 < time_ratios(model, [runtime], 1)[0] < 20


def test_no_contest_that_cannot_be_remembered(
    small: Path, stand_ins: Callable[[str], table.Runtime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins("quick")
    assert wanted(small, 1)
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGE_MNV2_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert not wanted(small, 1)
    monkeypatch.delenv("EDGE_MNV2_CACHE_DIR")
    monkeypatch.setenv(contest.SWITCH, "off")
    assert not wanted(small, 1)


@pytest.mark.slow
def test_a_sweep_races_runtimes_and_saves_the_winner(
    small: Path, stand_ins: Callable[[str], table.Runtime], monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    quick, differs = (table.row(name) for name in ("quick", "differs"))
    stand_ins("quick")
    monkeypatch.setattr(sweep, "rivals", lambda path, accelerate=True: [quick, differs])
    asked = (
        "--threads",
        "1",
        "--workers",
        "1",
        "--source",
        str(next(paths.packaged("models", "photographs").glob("*"))),
    )
    code, out, err = run("profile", "--sweep", "--duration", "4", "--model", small, *asked, "--save", "here", "--json")
    assert code == 0, err
    document = json.loads(out)
    runtimes = {row["runtime"] for row in document["sweep"] if row["compares"] == "engines"}
    assert len(runtimes) == 2 and "quick 1.0" in runtimes and document["winner"]["runtime"] == "quick 1.0"
    assert any(note.startswith("differs takes no part: it names another class") for note in document["notes"])
    monkeypatch.setenv(contest.SWITCH, "off")
    code, out, err = run("run", "--source", "test", "--max-frames", 3, "--json")
    assert code == 0 and json.loads(out)["runtime"] == "quick 1.0", err
    code, out, err = run("profile", "--sweep", "--duration", "1", "--model", small, *asked, "--json")
    assert {row["runtime"] for row in json.loads(out)["sweep"]} == {"quick 1.0"}, "what the profile in force says"


@pytest.mark.slow
def test_doctor_says_who_is_fastest(
    stand_ins: Callable[[str], table.Runtime], monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    def fastest() -> str:
        document = json.loads(run("doctor", "--json")[1])
        return next(check["detail"] for check in document["checks"] if check["id"] == "fastest")

    row = stand_ins("quick")
    monkeypatch.setattr(checks, "rivals", contest.rivals)
    assert fastest().startswith("litert; the first run of some seconds compares others with it")
    path, threads = resolve(DEFAULT_MODEL).path, resolve_threads("auto")[0]
    contest._remember(path, row, "", {str(threads): 1.5})
    assert fastest().startswith("quick, 1.50 times as fast as litert with equal answers")
    contest._remember(path, row, "it names another class in 3 of 206 test pictures", {})
    assert "no other with equal answers is faster; quick is left out: it names another class in 3" in fastest()


def test_a_twin_runtime_in_a_profile_is_no_obstacle_to_what_needs_the_model_itself(small: Path) -> None:
    with open_interpreter(small, runtime="onnxruntime") as interpreter:
        assert interpreter.runtime.startswith("ai-edge-litert")


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        mobilenet_v2(0.35, 96, 7),
        mobilenet_v2(0.5, 97, 3),
        mobilenet_v2(1.4, 64, 5, Head(softmax=True)),
        mobilenet_v2(0.35, 64, 2, Head("regression", bounds=(-10.0, 30.0))),
    ],
    ids=["narrow", "odd", "wide", "values"],
)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_width_that_is_built_answers_the_same_or_is_refused(
    tmp_path: Path, network: Network, runtime: str
) -> None:
    if table.row(runtime).version() is None:
        pytest.skip(f"{runtime} is not installed")
    steps = operations(network, seeded.tensors(network.state_dict_shapes()))
    pictures = [seeded.picture(network.input[0], seed) for seed in range(4)]
    ranges = activation_ranges(
        float_model(network, steps), steps, pictures, regression=network.head.task == "regression"
    )
    model = tmp_path / "built.tflite"
    model.write_bytes(integer_model(network, steps, numbers(network, steps, ranges)))
    (tmp_path / "built.yaml").write_text(f"task: {network.head.task}\n")
    reason = difference(str(model), runtime)
    # Random weights make the most of every rounding, and OpenVINO joins additions with convolutions before it rounds.
    assert not reason or (runtime == "openvino" and ("another class" in reason or "off by" in reason))
