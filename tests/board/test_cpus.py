from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_mnv2.board.cpus import limits, processor, resolve_threads, usable_cpus
from tests.board.trees import Tree

QUOTAS = [
    ("no limit", {"sys/fs/cgroup/cpu.max": "max 100000"}, 8),
    ("two CPUs", {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
    ("a fraction counts whole", {"sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
    ("less than one", {"sys/fs/cgroup/cpu.max": "20000 100000"}, 1),
    ("another period", {"sys/fs/cgroup/cpu.max": "75000 25000"}, 3),
    ("more than there are", {"sys/fs/cgroup/cpu.max": "3200000 100000"}, 8),
    (
        "a systemd service's CPUQuota",
        {"proc/self/cgroup": "0::/system.slice/edge.service",
         "sys/fs/cgroup/system.slice/edge.service/cpu.max": "100000 100000"},
        1,
    ),
    (
        "the parent's quota counts too",
        {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "400000 100000",
         "sys/fs/cgroup/a/cpu.max": "300000 100000"},
        3,
    ),
    (
        "cgroup v1",
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
        3,
    ),
    ("cgroup v1 without limit", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"}, 8),
    (
        "cgroup v1 seen from inside, under the host's path",
        {"proc/self/cgroup": "3:cpu,cpuacct:/docker/0123", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000",
         "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "50000"},
        2,
    ),
    ("a cpuset", {"sys/fs/cgroup/cpuset.cpus.effective": "0-1,7"}, 3),
    ("affinity", {"proc/self/status": "Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3"}, 4),
    ("nonsense", {"sys/fs/cgroup/cpu.max": "many few", "proc/self/status": "Cpus_allowed_list:"}, 8),
    ("a period of zero", {"sys/fs/cgroup/cpu.max": "100000 0"}, 8),
]  # fmt: skip


@pytest.mark.parametrize("files, usable", [row[1:] for row in QUOTAS], ids=[row[0] for row in QUOTAS])
def test_usable(tmp_path: Path, files: dict, usable: int) -> None:
    tree = Tree(tmp_path).cpus(8)
    for path, content in files.items():
        tree.write(path, content)
    assert usable_cpus(tmp_path) == usable


def test_cores_without_the_online_file(tmp_path: Path) -> None:
    tree = Tree(tmp_path).cpus(4)
    (tmp_path / "sys/devices/system/cpu/online").unlink()
    assert usable_cpus(tmp_path) == 4
    tree.clock(2, 1_000_000)
    assert usable_cpus(tmp_path) == 2


def test_nothing_known_counts_as_one(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 1


def test_threads(tmp_path: Path) -> None:
    Tree(tmp_path).cpus(4)
    assert resolve_threads("auto", tmp_path) == (4, None)
    assert resolve_threads(3, tmp_path) == (3, None)
    threads, note = resolve_threads(16, tmp_path)
    assert threads == 4
    assert note == "16 threads asked for, 4 CPUs are usable: using 4"


def test_auto_threads_stay_few_on_a_large_machine(tmp_path: Path) -> None:
    Tree(tmp_path).cpus(64)
    assert resolve_threads("auto", tmp_path) == (4, None)
    assert resolve_threads(48, tmp_path) == (48, None)


def test_what_limits_is_said(tmp_path: Path) -> None:
    tree = Tree(tmp_path).cpus(4)
    assert limits(tmp_path) is None
    tree.write("sys/fs/cgroup/cpu.max", "100000 100000")
    assert limits(tmp_path) == "a cgroup quota, 4 online"
    assert resolve_threads(2, tmp_path)[1] == (
        "2 threads asked for, 1 CPU is usable (a cgroup quota, 4 online): using 1"
    )
    tree.write("sys/fs/cgroup/cpu.max", "max 100000").write("proc/self/status", "Cpus_allowed_list:\t2-3")
    assert limits(tmp_path) == "CPU affinity, 4 online"


def test_affinity_of_this_process() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from edge_mnv2.board.cpus import usable_cpus, resolve_threads\n"
        "print(usable_cpus(), resolve_threads('auto')[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize(
    ("cpuinfo", "words"),
    [
        ("model name\t: Cortex-A76\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n",
         "Cortex-A76 0x41 0xd0b (NEON, dot product)"),
        ("Features\t: half thumb neon\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n", "Arm 0x41 0xd03 (NEON)"),
        ("model name\t: Intel N100\ncpu family\t: 6\nmodel\t: 190\nflags\t: sse4_1 avx2 avx_vnni\n",
         "Intel N100, family 6 190 (SSE4.1, AVX2, AVX-VNNI)"),
        ("", "unknown (no vector instructions)"),
    ],
)  # fmt: skip
def test_processor(tmp_path: Path, cpuinfo: str, words: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(cpuinfo)
    assert str(processor(tmp_path)) == words
