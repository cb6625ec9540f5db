"""Pins that follow what is present, on gpiozero's own mock of a board."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    assert board.pin(27).function == "input", "let go of at the end"


@pytest.mark.parametrize("text", ["", "17,", "=tabby", "17=", "17;18", "17=tabby,17", "no such pin", "99", "GPIOX"])
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
