from __future__ import annotations

import subprocess
import sys
import time

from edge_mnv2.profiler.watch import CpuMeter, own_seconds

_BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint('done')\ninput()"


def test_the_own_children_count_as_own() -> None:
    meter, before = CpuMeter(), own_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", _BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "done\n"
        assert own_seconds() - before >= 0.28
        assert meter.read().own_s >= 0.28
        child.communicate("\n")


def test_waiting_costs_nothing_of_our_own() -> None:
    meter = CpuMeter()
    time.sleep(0.3)
    used = meter.read()
    assert used.wall_s >= 0.3 and used.own_s < 0.15
    assert used.others is None or used.others >= 0
