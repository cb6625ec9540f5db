"""`--runtime rknn`: by a stand-in of the board's package, and (soak) by the maker's own simulator."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_mnv2 import paths
from edge_mnv2.runtime import table, toolkit
from edge_mnv2.runtime.opening import open_classifiers
from edge_mnv2.runtime.rknn import TOOLKIT, facts_of
from edge_mnv2.settings.profile import resolve
from tests.runtime import rknnlite_standin
from tests.stubs import colour_model

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A compiled model with its CPU twin beside it, on a board with an NPU."""
    rknnlite_standin.installed(tmp_path, monkeypatch)
    table._installed_version.cache_clear()
    path = tmp_path / "colours_rk3588.rknn"
    path.write_bytes(rknnlite_standin.compiled(colour_model()))
    path.with_suffix(".yaml").write_text("labels: [red, green, blue]\n")
    (tmp_path / "colours.tflite").write_bytes(colour_model())
    (tmp_path / "colours.yaml").write_text("labels: [red, green, blue]\n")
    Image.new("RGB", (30, 20), (20, 200, 30)).save(tmp_path / "green.png")
    yield path
    table._installed_version.cache_clear()


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_it_answers_with_the_integers_of_the_model(dtype: str, run: Run, model: Path) -> None:
    model.write_bytes(rknnlite_standin.compiled(colour_model(dtype)))
    tflite = model.with_name("colours.tflite")
    tflite.write_bytes(colour_model(dtype))
    inputs, outputs = facts_of(model)
    assert inputs[0].dtype == dtype and outputs is not None and outputs[0].quantized
    rows = []
    for path in (model, tflite):
        code, out, err = run("classify", model.with_name("green.png"), "--model", path, "--json")
        assert code == 0, err
        rows.append([(one["label"], one["score"]) for one in json.loads(out)["results"][0]["top"]])
    assert rows[0] == rows[1] and rows[0][0][0] == "green"


@pytest.mark.slow
def test_a_run_says_what_ran_it_and_on_which_core(run: Run, model: Path) -> None:
    base = ("run", "--source", "test", "--max-frames", 3, "--json", "--model")
    for arguments, delegate in (
        ((model,), "rknn:auto"),
        ((model, "--delegate", "rknn:2"), "rknn:2"),
        # The model itself, by the runtime or by the delegate: what was compiled from it lies beside it.
        ((model.with_name("colours.tflite"), "--runtime", "rknn"), "rknn:auto"),
        ((model.with_name("colours.tflite"), "--delegate", "rknn:auto"), "rknn:auto"),
    ):
        code, out, err = run(*base, *arguments)
        summary = json.loads(out)
        assert code == 0 and (summary["frames"], summary["delegate"]) == (3, delegate), err
        assert summary["runtime"] == "rknn-toolkit-lite2 2.3.2" and summary["engine_seconds"]["npu"] >= 0
    masks = (model.parent / "calls").read_text().split()
    assert masks == ["0", "4", "0", "0"]


def test_a_core_that_there_is_not_is_refused(run: Run, model: Path) -> None:
    code, _, err = run("run", "--source", "test", "--max-frames", 1, "--model", model, "--delegate", "rknn:3")
    assert code == 2 and "rknn[:0|1|2|auto]" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "delegate"),
    [(("--runtime", "rknn"), "rknn:auto"), (("--delegate", "rknn:1", "--sweep", "--workers", 1), "rknn:1")],
    ids=["as it is", "sweep"],
)
def test_it_is_profiled_as_what_it_is(options: tuple[object, ...], delegate: str, run: Run, model: Path) -> None:
    tflite = model.with_name("colours.tflite")
    code, out, err = run("profile", "--duration", 0.4, "--json", "--model", tflite, *options)
    assert code == 0 and "measuring rknn, " in err and "Edge TPU" not in err, err
    document = json.loads(out)
    rows = [document["settings"], *document["sweep"]]
    assert {(row["model"], row["delegate"]) for row in rows} == {(model.name, delegate)}


def of(model: Path, tflite: Path) -> None:
    """The first line that `compile` gives the sidecar."""
    digest = hashlib.sha256(tflite.read_bytes()).hexdigest()
    sidecar = model.with_suffix(".yaml")
    sidecar.write_text(
        f"# compiled by rknn-toolkit2 2.3 from {tflite.name}, sha256 {digest}\nlabels: [red, green, blue]\n"
    )


def test_a_model_that_was_taught_anew_is_not_answered_by_what_it_was(run: Run, model: Path) -> None:
    tflite, picture = model.with_name("colours.tflite"), model.with_name("green.png")
    of(model, tflite)
    assert run("classify", picture, "--model", tflite, "--runtime", "rknn")[0] == 0
    tflite.write_bytes(colour_model("int8"))
    code, _, err = run("classify", picture, "--model", tflite, "--runtime", "rknn")
    assert code == 5 and "has changed since colours_rk3588.rknn was compiled from it" in err
    # What was compiled can be asked for itself; the new one is not what goes on when the NPU is lost.
    code, _, err = run("run", "--source", "test", "--max-frames", 2, "--model", model)
    assert code == 0 and "colours.tflite beside it is another one by now" in err


def test_the_file_for_this_boards_chip_comes_first(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.with_name("colours_rk3566.rknn").write_bytes(model.read_bytes()[:400])
    (tmp_path / "compatible").write_bytes(b"xunlong,orangepi-5\0rockchip,rk3588s\0")
    monkeypatch.setattr("edge_mnv2.runtime.rknn._CHIPS", tmp_path / "compatible")
    code, out, err = run(
        "classify", model.with_name("green.png"), "--model", model.with_name("colours.tflite"), "--runtime", "rknn"
    )
    assert code == 0 and "green" in out, err


def test_a_careful_python_starts_it_too(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    code, _, err = run("classify", model.with_name("green.png"), "--model", model)
    assert code == 0, err


def test_an_answer_that_is_no_number_is_none(run: Run, model: Path) -> None:
    """Float16 inside an NPU overflows; the integers of the model have nothing for that."""
    model.with_name("fault").write_text("nan")
    code, _, err = run("classify", model.with_name("green.png"), "--model", model, "-q")
    assert code == 5 and "answers with NaN" in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_lost_npu_costs_no_frame_and_comes_back(model: Path) -> None:
    overrides = {"runtime.model": (str(model), "test"), "runtime.delegate": ("rknn", "test")}
    with open_classifiers(resolve(None, overrides)) as opened:
        classifier, fault = opened.classifiers[0], model.with_name("fault")
        green = np.full((20, 30, 3), (20, 200, 30), np.uint8)
        wanted = classifier.classify(green)
        assert wanted.engine == "npu"
        fault.write_text("dies")
        lost = classifier.classify(green)
        assert lost.engine == "cpu" and np.array_equal(lost.scores, wanted.scores) and opened.tpu_losses == 1
        fault.unlink()
        ends = time.monotonic() + 120
        while classifier.classify(green).engine != "npu":
            assert time.monotonic() < ends, "the NPU is not taken back"
            time.sleep(0.1)
        assert opened.seconds is not None and opened.seconds["npu"] >= 0


def test_without_a_cpu_model_a_loss_ends_the_run(run: Run, model: Path) -> None:
    model.with_name("colours.tflite").unlink()
    code, _, err = run("run", "--source", "test", "--max-frames", 2, "--model", model)
    assert code == 0 and "no CPU model to go on with when the NPU is lost: colours.tflite" in err
    model.with_name("fault").write_text("silent")
    code, _, err = run("classify", model.with_name("green.png"), "--model", model)
    assert code == 5 and "the NPU gives no answer" in err


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [("missing", 5, "the NPU cannot be opened"), ("broken", 5, "it cannot be loaded"), ("png", 3, "is no .rknn file")],
)
def test_what_cannot_be_used_is_one_line(fault: str, code: int, said: str, run: Run, model: Path) -> None:
    if fault == "missing":
        model.with_name("fault").write_text(fault)
    else:
        model.write_bytes(model.read_bytes()[:400] if fault == "broken" else b"\x89PNG" + bytes(90))
    ended, _, err = run("classify", model.with_name("green.png"), "--model", model, "-q")
    assert ended == code and said in err and err.count("\n") == 1


def test_what_is_missing_says_how_to_get_it(run: Run, model: Path, tmp_path: Path) -> None:
    picture = model.with_name("green.png")
    code, _, err = run("classify", picture, "--model", model, "--delegate", "none")
    assert code == 2 and "--delegate none keeps to the CPU" in err
    model.unlink()
    code, _, err = run("classify", picture, "--model", model.with_name("colours.tflite"), "--delegate", "rknn")
    assert code == 5 and "compile --target rknn:rk3588 colours.tflite" in err
    assert "rknn[:0|1|2|auto]" in run("classify", picture, "--delegate", "rknn:3")[2]


def test_what_is_asked_for_by_name_is_not_another(run: Run, model: Path) -> None:
    base = ("run", "--source", "test", "--max-frames", 2, "--model", model)
    for options, said in (
        (("--delegate", "edgetpu"), "--delegate edgetpu and rknn exclude each other"),
        (("--runtime", "rknn", "--delegate", "imx500"), "--delegate imx500 and rknn exclude each other"),
        (("--runtime", "litert"), "litert runs .tflite models only"),
    ):
        code, _, err = run(*base, *options)
        assert code == 2 and said in err, err
    assert run(*base, "--runtime", "rknn", "--delegate", "rknn:0")[0] == 0


def test_a_board_without_the_package(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "colours_rk3588.rknn"
    model.write_bytes(rknnlite_standin.compiled(colour_model()))
    Image.new("RGB", (30, 20)).save(tmp_path / "p.png")
    code, _, err = run("classify", tmp_path / "p.png", "--model", model)
    assert code != 0 and "needs the package rknn-toolkit-lite2" in err and "install rknn-toolkit-lite2" in err


def test_a_file_of_others_asks_for_its_size(run: Run, model: Path) -> None:
    model.write_bytes(rknnlite_standin.compiled(colour_model(), facts=False))
    base = ("classify", model.with_name("green.png"), "--model", model, "--json")
    code, _, err = run(*base)
    assert code == 2 and "--input-size WxH" in err
    model.with_name("colours.tflite").unlink()
    code, out, err = run(*base, "--input-size", "8x8")
    assert code == 0 and json.loads(out)["results"][0]["top"][0]["label"] == "green", err


@pytest.mark.soak
def test_the_makers_simulator_answers_as_the_cpu(
    run: Run, tmp_path: Path, makers_own: Callable[[toolkit.Toolkit], None]
) -> None:
    makers_own(TOOLKIT)
    out = tmp_path / "mobilenet_v2_1.0_224_int8_rk3588.rknn"
    model = paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite")
    assert run("compile", model, "--target", "rknn:rk3588", "--simulator", "--out", out)[0] == 0
    photographs = sorted(paths.packaged("models", "photographs").glob("*.jpg"))
    answers = []
    for arguments in (("--model", out, "--delegate", "rknn"), ("--model", model)):
        code, stdout, err = run("classify", *photographs, *arguments, "--json")
        assert code == 0, err
        answers.append([one["top"][0]["label"] for one in json.loads(stdout)["results"]])
    assert sum(one == other for one, other in zip(*answers)) >= len(photographs) - 1
