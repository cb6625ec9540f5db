from __future__ import annotations

import io

import pytest

from edge_mnv2.zoo.progress import Rate, TerminalProgress, progress_line, readable_bytes


def test_rate_and_time_left_come_from_the_last_seconds() -> None:
    rate = Rate()
    for second in range(20):
        rate.update(1_000_000 * second if second < 10 else 9_000_000 + 100_000 * (second - 9), now=float(second))
    assert rate.bytes_per_s == pytest.approx(100_000)
    assert rate.seconds_left(11_000_000) == pytest.approx(10)
    assert progress_line("x", 10_000_000, 11_000_000, rate) == "x  90 %  10.0/11.0 MB  100 kB/s  10 s left"


def test_without_a_measurement_nothing_is_claimed() -> None:
    assert progress_line("x", 0, 4_000_000, Rate()) == "x   0 %  0.0/4.0 MB"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_drawn_on_a_terminal_and_cleared() -> None:
    terminal = _Terminal()
    progress = TerminalProgress("parts", terminal)
    progress(10, 1000)
    progress(1000, 1000)
    progress.close()
    assert "100 %" in terminal.getvalue()
    assert terminal.getvalue().rsplit("\r", 2)[1].strip() == ""
    assert "\n" not in terminal.getvalue()


def test_nothing_is_drawn_elsewhere() -> None:
    stream = io.StringIO()
    progress = TerminalProgress("parts", stream)
    progress(10, 1000)
    progress.close()
    assert stream.getvalue() == ""


def test_sizes_are_readable() -> None:
    assert [readable_bytes(n) for n in (12, 525_598, 3_610_798, 14_212_972, 5e9)] == [
        "12 B",
        "526 kB",
        "3.6 MB",
        "14 MB",
        "5.0 GB",
    ]
