"""The public Python interface, by the lines of its docs and from the wheel."""

from __future__ import annotations

import gc
import itertools
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import edge_mnv2
from edge_mnv2 import Classifier, EdgeMnv2Error, open_source, run
from edge_mnv2.errors import LabelsError, ModelError, SourceError, UsageError

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(match[1], id=f"{page.stem}-{number}")
    for page in (ROOT / "README.md", ROOT / "docs/api.md")
    for number, match in enumerate(re.finditer(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
]


@pytest.mark.slow
@pytest.mark.parametrize("code", BLOCKS)
def test_the_lines_of_the_docs(code: str, data: Path, tmp_path: Path) -> None:
    """Each as a program of its own; any camera is the test pattern."""
    (tmp_path / "cat.bmp").write_bytes((data / "images/cat.bmp").read_bytes())
    environment = {**os.environ, "EDGE_MNV2_CAMERA_BACKEND": "test", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    if "cat.bmp" in code:
        assert "Egyptian cat" in done.stdout.splitlines()[0]
    if "print" in code:
        assert done.stdout


def test_everything_public_is_there_and_costs_nothing_before_it_is_used() -> None:
    for name in edge_mnv2.__all__:
        assert getattr(edge_mnv2, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edge_mnv2.nothing  # noqa: B018
    code = "import sys, edge_mnv2; print(sorted({'numpy', 'cv2', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_former_names() -> None:
    from edge_mnv2.loop.decision import Event

    from edge_mnv2.loop.result import Result

    assert (Event, Result) == (edge_mnv2.Event, edge_mnv2.Result)


def test_options_as_on_the_command_line(stub: Path) -> None:
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[..., 0] = 255
    with Classifier(stub, top_k=2) as classifier:
        best = classifier.classify(picture)
        assert best[0].label == "red"
        assert len(best) == 2
        classifier.close()
        with pytest.raises(UsageError, match="closed"):
            classifier.classify(picture)
    with Classifier(str(stub), threshold=0.9, threads=1, resize="stretch") as classifier:
        assert all(one.score >= 0.9 for one in classifier.classify(picture))


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), [[1]], None],
)
def test_arrays_that_are_no_picture(image: object, stub: Path) -> None:
    with Classifier(stub) as classifier, pytest.raises(UsageError, match="RGB uint8"):
        classifier.classify(image)  # type: ignore[arg-type]


def test_labels_as_a_list(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MNV2_LABELS", "no-such-file.txt")
    with Classifier(stub, labels=["1 cup", "b,c", "d"]) as classifier:
        count = len(classifier.labels)
        assert list(classifier.labels) == ["1 cup", "b,c", "d"]
    monkeypatch.delenv("EDGE_MNV2_LABELS")
    with run("test", stub, labels=tuple(f"name {row}" for row in range(count)), max_frames=1) as results:
        assert next(results).top[0].label.startswith("name ")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "b", "c", "d"], "4 names for 3 outputs"),
        ([], r"labels=\[\]"),
        (["a", 5], "name 2 is no text: 5"),
        (["a", " "], "name 2 is no name"),
        (["a", "b\nc"], "name 2 is no name"),
        ({"a": 0}, "a list of names"),
        ({"a", "b"}, "a list of names"),
        (b"ab", "a list of names"),
        (7, "a list of names"),
    ],
)
def test_labels_that_are_no_list_of_names(labels: object, said: str, stub: Path) -> None:
    with pytest.raises(LabelsError, match=said):
        Classifier(stub, labels=labels)  # type: ignore[arg-type]


def test_errors_are_leaves_and_name_the_option_of_python() -> None:
    for call, error, words in (
        (lambda: Classifier("no_such_model"), ModelError, "unknown model"),
        (lambda: Classifier(thread=2), UsageError, "did you mean threads"),
        (lambda: run(threads=0), UsageError, "^threads: '0'"),
        (lambda: run(max_frames=0), UsageError, "max_frames=0"),
        (lambda: run(max_frames="3"), UsageError, "max_frames='3'"),
        (lambda: run(source="test", camera="0").__next__(), UsageError, "exclude each other"),
        (lambda: next(run("/no/such/clip.mp4")), SourceError, "file not found"),
        (lambda: next(open_source("/no/such/clip.mp4")), SourceError, "file not found"),
        (lambda: open_source("test", threads=2), UsageError, "no option threads"),
    ):
        with pytest.raises(error, match=words):
            call()
        assert issubclass(error, EdgeMnv2Error)


def test_frames_of_a_folder_and_of_a_camera(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.bmp", "a.bmp"):
        (tmp_path / name).write_bytes((data / "images/cat.bmp").read_bytes())
    frames = list(open_source(str(tmp_path)))
    assert [frame.name for frame in frames] == ["a.bmp", "b.bmp"]
    assert frames[0].image.dtype == np.uint8
    assert frames[0].captured_at <= frames[1].captured_at
    monkeypatch.setenv("EDGE_MNV2_CAMERA_BACKEND", "test")
    with open_source("0", size=(320, 240), fps=30) as camera:
        taken = list(itertools.islice(camera, 3))
        assert [frame.image.shape for frame in taken] == [(240, 320, 3)] * 3
    assert list(camera) == []


def test_a_run_that_is_left_ends(stub: Path) -> None:
    for result in run(source="test:64x48@60", model=stub):
        assert result.top
        break
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name == "run"]


def test_prints_of_the_caller_stay_on_stdout(stub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run(source="test:64x48", model=stub, max_frames=2, every_frame=True)
    for result in results:
        print(result.frame.index)
    assert capsys.readouterr().out == "0\n1\n"
    assert (results.summary["frames"], results.summary["ended"]) == (2, "max_frames")


USER_SCRIPT = """
from edge_mnv2 import Classifier, Prediction, open_source, run
from edge_mnv2.errors import EdgeMnv2Error, ModelError
from edge_mnv2.loop.result import Result


def best(path: str) -> Prediction:
    with Classifier("mobilenet_v2_1.0_224_int8", top_k=3, threads=2) as classifier:
        return classifier.classify(path)[0]


def watch(seconds: float) -> list[str]:
    with open_source("test", size=(320, 240)) as frames, Classifier() as classifier:
        for frame in frames:
            label: str = classifier.classify(frame.image)[0].label
            print(label, frame.captured_at + 1)
            break
    results = run(source="test", duration=seconds, allow=["tabby"])
    return [one.label for result in results for one in result.top]


def write(result: Result) -> float:
    return result.top[0].score


try:
    print(best("cat.bmp").label.upper(), best("cat.bmp").score + 1, watch(1.5))
except (ModelError, EdgeMnv2Error) as error:
    print(error.message, error.hint or "", error.exit_code)
"""


@pytest.fixture(scope="module")
def wheel_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel of this project, and with the packages of this environment behind it."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True, timeout=240)
    wheel = next(folder.glob("edge_mnv2-*.whl"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv/bin/python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    site = next((folder / "venv").glob("lib/python3*/site-packages"))
    (site / "packages_of_the_tests.pth").write_text(str(Path(np.__file__).parent.parent) + "\n")
    return python


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the environment's own packages."""
    for name in ("PYTHONPATH", "MYPYPATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
def test_a_user_script_passes_mypy_strict_against_the_wheel(wheel_python: Path, plain: None, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(USER_SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(wheel_python), str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    script.write_text(USER_SCRIPT.replace(".score + 1", ".score.upper()"))
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=240).returncode == 1


@pytest.mark.slow
def test_how_to_get_an_extra_depends_on_the_installation(wheel_python: Path, plain: None, tmp_path: Path) -> None:
    """Installed by pip: the packages themselves. By install.sh: its own command, with the extras that are there."""
    code = "from edge_mnv2.installed import extra_hint, repair_hint; print(extra_hint('window')); print(repair_hint())"

    def hints() -> list[str]:
        done = subprocess.run([str(wheel_python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert hints()[0] == f"{wheel_python} -m pip install 'pygame-ce>=2.4'"
    script = tmp_path / "my clone/install.sh"
    script.parent.mkdir()
    script.touch()
    record = wheel_python.parents[1] / "edge-mnv2-install"
    record.write_text(f"extras=record\nversion=1.0\nfrom={script}\n")
    try:
        assert hints() == [f"sh '{script}' --extras record,window", f"sh '{script}'"]
        script.unlink()
        assert hints()[1] == "./install.sh"
    finally:
        record.unlink()


def test_a_checkout_says_its_own_folder() -> None:
    from edge_mnv2.installed import extra_hint

    assert re.search(r"pip install -e '?/.*\[window\]", extra_hint("window"))
