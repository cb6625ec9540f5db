from __future__ import annotations

from edge_mnv2.profiler.burst import Burst
from edge_mnv2.profiler.judgement import advise
from edge_mnv2.profiler.measurement import Setting
from edge_mnv2.profiler.sweep import Row


def _row(delegate: str, ms: float, fps: float, cpu_ms: float, energy: float = 0.0) -> Row:
    burst = Burst(end_to_end=[int(ms * 1e6)] * 10, rates=[fps], cpu_s=cpu_ms / 1e3 * 10)
    asked = "edgetpu" if delegate.startswith("edgetpu") else "none"
    row = Row(Setting("m", asked, 1, 1), None, f"model for {asked}", delegate, burst)
    row.energies = [energy] if energy else []
    return row


def test_each_purpose_has_its_own_answer() -> None:
    rows = [_row("edgetpu:usb:0", 4.0, 200.0, 0.9), _row("xnnpack", 9.0, 110.0, 9.0), _row("xnnpack", 12.0, 201.0, 9.5)]
    advice = advise(rows)
    assert advice is not None
    use = {name: entry["use"] for name, entry in advice.document()["use"].items()}
    assert use == {"lowest latency": "tpu", "most frames a second": "either", "least CPU time a frame": "tpu"}
    assert advice.lines()[0] == "Edge TPU with model for edgetpu, CPU with model for none"
    assert advice.lines()[1] == "lowest latency: the Edge TPU (Edge TPU 4 ms, CPU 9 ms)"


def test_a_cpu_that_is_quicker_is_said_to_be() -> None:
    advice = advise([_row("edgetpu:usb:0", 4.0, 200.0, 0.9, 60.0), _row("xnnpack", 1.5, 600.0, 1.6, 20.0)])
    assert advice is not None
    use = {name: entry["use"] for name, entry in advice.document()["use"].items()}
    assert use == {
        "lowest latency": "cpu",
        "most frames a second": "cpu",
        "least CPU time a frame": "tpu",
        "least energy a frame": "cpu",
    }


def test_without_both_there_is_nothing_to_say() -> None:
    assert advise([_row("xnnpack", 9.0, 110.0, 9.0)]) is None
