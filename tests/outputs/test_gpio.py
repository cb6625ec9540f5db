"""Pins that follow what is present, on gpiozero's own mock of a board."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory

from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.gpio import GpioSink
from edge_mnv2.outputs.live import Facts
from tests.outputs.results import event, result

LABELS = ["tabby, tabby cat", "lynx", "dog"]


@pytest.fixture(autouse=True)
def board() -> Iterator[MockFactory]:
    before, Device.pin_factory = Device.pin_factory, MockFactory()
    yield Device.pin_factory
    Device.pin_factory.close()
    Device.pin_factory = before


def levels(board: MockFactory, *pins: int) -> list[int]:
    return [int(board.pin(pin).state) for pin in pins]


def test_pins_are_high_while_their_class_is_present(board: MockFactory) -> None:
    sink = GpioSink("17=Tabby Cat, GPIO27=lynx,22")
    sink.begin(Facts(), LABELS)
    seen = []
    for present in ((), ("lynx",), ("lynx", "tabby, tabby cat"), ("dog",), ()):
        sink.write(result(present=present))
        seen.append(levels(board, 17, 27, 22))
    assert seen == [[0, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 0, 0]]
    sink.write(result(present=("lynx",)))
    sink.announce([event("gone", "lynx")])
    assert levels(board, 17, 27, 22) == [0, 0, 0]
    sink.write(result(present=("lynx",)))
    sink.close()
    assert levels(board, 17, 27, 22) == [0, 0, 0] and board.pin(27).function == "output", "idle at the end"
    GpioSink("17,27").close()


def test_active_low_pins_never_switch_by_themselves(board: MockFactory) -> None:
    """A relay that is on at low: high from the first moment on, and after the end too."""
    changes: list[int] = []
    sink = GpioSink("!17=lynx, ! GPIO27,22")
    assert levels(board, 17, 27, 22) == [1, 1, 0]
    sink.begin(Facts(), LABELS)
    for present in (("lynx",), ("dog",), ()):
        sink.write(result(present=present))
        changes.extend(levels(board, 17, 27, 22))
    assert changes == [0, 0, 1, 1, 0, 1, 1, 1, 0]
    sink.write(result(present=("lynx",)))
    sink.close()
    assert levels(board, 17, 27, 22) == [1, 1, 0]
    assert [board.pin(pin).function for pin in (17, 27, 22)] == ["output"] * 3
    # Nor when the program ends, which closes the board with every pin.
    pins = [board.pin(pin) for pin in (17, 27, 22)]
    board.close()
    assert [int(pin.state) for pin in pins] == [1, 1, 0] and {pin.function for pin in pins} == {"output"}


@pytest.mark.parametrize(
    "text", ["", "17,", "=tabby", "17=", "17;18", "17=tabby,17", "17,!17", "!!17", "!", "no such pin", "99", "GPIOX"]
)
def test_pins_that_are_none(text: str, board: MockFactory) -> None:
    with pytest.raises(UsageError, match="--gpio"):
        GpioSink(text)
    assert GpioSink("17") is not None, "nothing stays reserved"


def test_a_class_that_the_model_does_not_have() -> None:
    sink = GpioSink("17=unicorn")
    with pytest.raises(UsageError, match="unicorn"):
        sink.begin(Facts(), LABELS)
    sink.close()


def test_a_machine_without_pins_is_one_line(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Device.pin_factory = None
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "native")
    code, out, err = run("run", "--source", "test", "--max-frames", 1, "--gpio", "17")
    if code == 0:
        pytest.skip("this machine has pins")
    assert code == 2 and out == "" and "--gpio 17" in err and len(err.splitlines()) == 1
    Device.pin_factory = MockFactory()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise ImportError('No module named lgpio', name='lgpio')", "python3-lgpio"),
        ("raise OSError(13, 'Permission denied')", "Permission denied"),
        ("import lgpio", "lgpio: "),
    ],
    ids=["absent", "forbidden", "real"],
)
def test_the_reason_is_lgpio_s_own(script: str, said: str, stub: Path, tmp_path: Path) -> None:
    """Its real failures where there are no pins, from a folder that cannot be written to, as in a service."""
    if script == "import lgpio":
        pytest.importorskip("lgpio")
    else:
        (tmp_path / "lgpio.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "edge_mnv2", "run", "--model", str(stub), "--source", "test", "--max-frames", "1"]
    done = subprocess.run([*command, "--gpio", "17"], cwd="/sys", env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        pytest.skip("this machine has pins")
    assert done.returncode == 2 and done.stdout == ""
    assert "--gpio 17: " in done.stderr and said in done.stderr
    assert (
        "xCreatePipe" not in done.stderr and "Unable to load any default pin factory" not in done.stderr
    ) or said != "lgpio: "
    assert len(done.stderr.splitlines()) == 1, done.stderr
