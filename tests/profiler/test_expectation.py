from __future__ import annotations

from typing import Any

import pytest

from edge_mnv2.board.detect import Board
from edge_mnv2.board.health import HealthSample
from edge_mnv2.profiler.judgement import Judgement, judge
from edge_mnv2.settings.schema import Expected

PI_4 = Expected(inference_ms=17, inference_ms_32bit=20, source="a published table")
BOARD = Board(model="Raspberry Pi 4 Model B Rev 1.4", os_bits=64, cpus_usable=4)
WELL = HealthSample(governor="ondemand", throttled=[], throttled_since_boot=[])


def _judge(measured: float, expected: Expected = PI_4, **given: Any) -> Judgement:
    arguments = {"board": BOARD, "sample": WELL, "threads": 4, "delegate": "xnnpack", "online_cpus": 4, **given}
    return judge(measured, expected, **arguments)


@pytest.mark.parametrize(
    "measured, verdict", [(17, "as expected"), (21, "as expected"), (14, "as expected"), (22, "slower"), (10, "faster")]
)
def test_verdict(measured: float, verdict: str) -> None:
    assert _judge(measured).verdict == verdict


def test_words() -> None:
    assert str(_judge(17)) == "as expected (1.00 times the published 17 ms; a published table)"
    assert str(_judge(34)).startswith("slower than other boards of this kind (2.00 times the published 17 ms")
    assert str(_judge(34, Expected())) == "no published figure to compare with"


CAUSES = [
    ({"sample": HealthSample(throttled=["under-voltage"])}, "under-voltage: the power supply is too weak"),
    ({"sample": HealthSample(throttled=[], throttled_since_boot=["throttled"])}, "throttled seen since boot"),
    ({"sample": HealthSample(governor="powersave")}, "CPU governor powersave"),
    ({"sample": HealthSample(power_mode="5W")}, "power mode 5W"),
    ({"board": Board(model="Raspberry Pi 4", os_bits=32, cpus_usable=4)}, "a 32-bit operating system"),
    ({"delegate": "none"}, "XNNPACK did not take the model"),
    ({"board": Board(os_bits=64, cpus_usable=1), "threads": 1}, "only 1 of 4 CPUs usable"),
    ({"threads": 1}, "1 threads on 4 usable CPUs"),
    ({"board": Board(os_bits=64, cpus_usable=4, container="docker")}, "running inside docker"),
]


@pytest.mark.parametrize("given, cause", CAUSES, ids=[row[1] for row in CAUSES])
def test_likely_cause(given: dict, cause: str) -> None:
    judgement = _judge(60, **given)
    assert judgement.verdict == "slower"
    assert any(cause in seen for seen in judgement.causes), judgement.causes
    assert cause in str(judgement)


def test_no_cause_is_made_up() -> None:
    assert _judge(60).causes == ()
    assert _judge(17, sample=HealthSample(governor="powersave")).causes == ()


def test_32_bit_has_its_own_figure() -> None:
    judgement = _judge(20, board=Board(os_bits=32, cpus_usable=4))
    assert (judgement.expected_ms, judgement.verdict) == (20, "as expected")


def test_only_like_is_compared_with_like() -> None:
    tpu = Expected(inference_ms=2.56, delegate="edgetpu", source="x")
    assert _judge(30, tpu).verdict == "unknown"
    assert _judge(2.6, tpu, delegate="edgetpu:pci:0").verdict == "as expected"
    assert _judge(4.5, PI_4, delegate="edgetpu:usb:0").verdict == "unknown"
    assert _judge(40, PI_4, precision="float32").verdict == "unknown"


def test_a_float_figure_is_only_an_upper_bound() -> None:
    bound = Expected(inference_ms=147, precision="float32", source="x")
    assert _judge(50, bound).verdict == "as expected"
    assert _judge(300, bound).verdict == "slower"
    assert _judge(50, bound, precision="float32").verdict == "faster"
