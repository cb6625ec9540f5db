"""What this process may use of the board: CPUs and memory, less what affinity and cgroups take; which CPUs they are."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.board.sysroot import Sysroot

_NO_LIMIT = 1 << 50
"""cgroup v1 writes a number close to 2^63 where there is no limit."""


@dataclass(frozen=True)
class Memory:
    """MiB; `total` and `available` are those of the cgroup where it has a limit below the board's.

    `pressure` is the share of the last ten seconds in which some task waited for memory, percent (`/proc/pressure`).
    """

    total: Optional[int] = None
    available: Optional[int] = None
    swap_used: Optional[int] = None
    pressure: Optional[float] = None


class MemoryReader:
    """Reads `proc/meminfo`, the memory cgroup and `proc/pressure/memory`; where they are is found out once."""

    def __init__(self, tree: Sysroot) -> None:
        self._tree = tree
        self._limits = _limit_files(tree)

    def read(self) -> Memory:
        return _memory(self._tree, self._limits)


def _memory(tree: Sysroot, limits: list[_Limit]) -> Memory:
    rows = _meminfo(tree)
    total, available = rows.get("MemTotal"), rows.get("MemAvailable")
    limit, used = _tightest(tree, limits)
    if limit is not None and (total is None or limit < total):
        total = limit
        if used is not None:
            free = max(0, limit - used)
            available = free if available is None else min(available, free)
    swap, swap_free = rows.get("SwapTotal"), rows.get("SwapFree")
    return Memory(
        total=_mib(total),
        available=_mib(available),
        swap_used=_mib(swap - swap_free) if swap is not None and swap_free is not None else None,
        pressure=_pressure(tree),
    )


def _mib(kib: Optional[int]) -> Optional[int]:
    return None if kib is None else kib // 1024


def _meminfo(tree: Sysroot) -> dict[str, int]:
    rows = {name: value.split(" ")[0] for name, value in tree.fields("proc/meminfo").items()}
    return {name: int(number) for name, number in rows.items() if number.isdigit()}


@dataclass(frozen=True)
class _Limit:
    """One cgroup's files, and the name of the page cache that it could drop."""

    limit: str
    usage: str
    statistics: str
    cache: str


def _limit_files(tree: Sysroot) -> list[_Limit]:
    files = []
    for folder in cgroup_folders(tree, "memory"):
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            if tree.exists(f"{folder}/{limit}"):
                files.append(_Limit(f"{folder}/{limit}", f"{folder}/{usage}", f"{folder}/memory.stat", cache))
    return files


def _tightest(tree: Sysroot, limits: list[_Limit]) -> tuple[Optional[int], Optional[int]]:
    """The tightest memory limit in KiB and what is used under it, less the page cache that can be dropped."""
    tightest: Optional[int] = None
    used = None
    for group in limits:
        limit = tree.read_int(group.limit)
        if limit is None or not 0 < limit < _NO_LIMIT or (tightest is not None and limit // 1024 >= tightest):
            continue
        tightest = limit // 1024
        usage = tree.read_int(group.usage)
        used = None if usage is None else max(0, usage - _droppable(tree, group)) // 1024
    return tightest, used


def _droppable(tree: Sysroot, files: _Limit) -> int:
    value = tree.fields(files.statistics, " ").get(files.cache, "")
    return int(value) if value.isdigit() else 0


def _pressure(tree: Sysroot) -> Optional[float]:
    match = re.search(r"^some .*?avg10=([\d.]+)", tree.read("proc/pressure/memory") or "", re.MULTILINE)
    return float(match[1]) if match else None


AUTO_THREADS = 4
"""`threads: auto` uses no more: MobileNetV2's layers are too small to feed more cores at 224x224."""


def usable_cpus(root: Union[str, Path] = "/") -> int:
    """CPUs that this process may use, at least 1: online, allowed by its affinity, within its cgroup's quota.

    A quota of a fraction of a CPU counts as a whole one. With another `root`, the affinity is that of the tree's
    `proc/self/status`; a tree that tells nothing counts as 1.
    """
    return counted_cpus(Sysroot(root)) or 1


def no_spare_cpu(workers: int) -> bool:
    """Whether so many workers take every CPU: then they read a file themselves, for a reader would take one of them."""
    return usable_cpus() <= workers


def counted_cpus(tree: Sysroot) -> Optional[int]:
    """As `usable_cpus`, but None where the tree does not tell how many CPUs there are."""
    allowed = _affinity(tree)
    online = allowed if tree.live and allowed else _online(tree)
    counts = [count for count in (online, allowed, _cpuset(tree), _quota(tree)) if count]
    if not online and not allowed:
        return None
    return max(1, min(counts))


def online_cpus(root: Union[str, Path] = "/") -> Optional[int]:
    """CPUs that are switched on, whoever may use them; None where the tree does not tell."""
    return _online(Sysroot(root))


def resolve_threads(
    threads: Union[int, str], root: Union[str, Path] = "/", *, spare: int = 0
) -> tuple[int, Optional[str]]:
    """The number of interpreter threads for a setting of a number or "auto", and what to tell the user, once.

    `auto` is the usable CPUs but for `spare` of them, at least 1, at most `AUTO_THREADS`. A number above the usable
    CPUs is capped: more threads than CPUs make every inference slower.
    """
    usable = usable_cpus(root)
    if threads == "auto":
        return min(max(1, usable - spare), AUTO_THREADS), None
    wanted = int(threads)
    if wanted <= usable:
        return wanted, None
    noun = "CPU is" if usable == 1 else "CPUs are"
    return usable, f"{wanted} threads asked for, {usable} {noun} usable{_why(Sysroot(root))}: using {usable}"


def _why(tree: Sysroot) -> str:
    """What holds the usable CPUs below those that are online, in words for a person."""
    online = _online(tree)
    quota, allowed = _quota(tree), _affinity(tree) or _cpuset(tree)
    if online and quota and quota < online and (not allowed or quota <= allowed):
        return f" (a cgroup quota, {online} online)"
    if online and allowed and allowed < online:
        return f" (CPU affinity, {online} online)"
    return ""


def limits(root: Union[str, Path] = "/") -> Optional[str]:
    """Why fewer CPUs are usable than are online ("a cgroup quota, 4 online"), or None where all are usable."""
    return _why(Sysroot(root)).strip(" ()") or None


def _affinity(tree: Sysroot) -> Optional[int]:
    if tree.live:
        try:
            return len(os.sched_getaffinity(0))
        except (OSError, AttributeError):
            return os.cpu_count()
    return _listed(tree.fields("proc/self/status").get("Cpus_allowed_list"))


def _online(tree: Sysroot) -> Optional[int]:
    for name in ("online", "present", "possible"):
        if count := _listed(tree.read(f"sys/devices/system/cpu/{name}")):
            return count
    cores = [name for name in tree.names("sys/devices/system/cpu", "cpu") if name[3:].isdigit()]
    if cores:
        return len(cores)
    lines = (tree.read("proc/cpuinfo") or "").splitlines()
    return sum(1 for line in lines if line.split(":")[0].strip() == "processor") or None


def _listed(text: Optional[str]) -> Optional[int]:
    """How many CPUs a kernel list such as "0-3,6" names."""
    if not text:
        return None
    total = 0
    try:
        for part in text.strip().split(","):
            first, _, last = part.partition("-")
            total += int(last or first) - int(first) + 1
    except ValueError:
        return None
    return total if total > 0 else None


def cgroup_folders(tree: Sysroot, controller: str) -> list[str]:
    """This process's cgroup folders that limit `controller` ("cpu", "cpuset", "memory"), from its own up to the root.

    A container often sees its own group at the mount's root while `proc/self/cgroup` names the host's path: both are
    listed, whether they exist or not.
    """
    groups: list[tuple[str, str]] = []
    for line in (tree.read("proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            groups += [("sys/fs/cgroup", path), ("sys/fs/cgroup/unified", path)]
        elif controller in controllers.split(","):
            groups += [(f"sys/fs/cgroup/{controllers}", path), (f"sys/fs/cgroup/{controller}", path)]
    groups += [(f"sys/fs/cgroup/{mount}", "") for mount in ("", controller, f"{controller},cpuacct")]
    folders = []
    for mount, path in groups:
        parts = [part for part in path.split("/") if part and part != ".."]
        for depth in range(len(parts), -1, -1):
            folder = "/".join([mount.rstrip("/"), *parts[:depth]])
            if folder not in folders:
                folders.append(folder)
    return folders


def _quota(tree: Sysroot) -> Optional[int]:
    quotas = []
    for folder in cgroup_folders(tree, "cpu"):
        limit, period = (tree.read(f"{folder}/cpu.max") or "").partition(" ")[::2]
        if not limit:
            limit = tree.read(f"{folder}/cpu.cfs_quota_us") or ""
            period = tree.read(f"{folder}/cpu.cfs_period_us") or ""
        try:
            quota = int(limit) / int(period or 100_000)
        except (ValueError, ZeroDivisionError):
            continue
        if quota > 0:
            quotas.append(math.ceil(quota))
    return min(quotas) if quotas else None


def _cpuset(tree: Sysroot) -> Optional[int]:
    counts = []
    for folder in cgroup_folders(tree, "cpuset"):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            if count := _listed(tree.read(f"{folder}/{name}")):
                counts.append(count)
                break
    return min(counts) if counts else None


_VECTOR = {
    "sse4_1": "SSE4.1", "avx2": "AVX2", "avx512bw": "AVX-512", "avx_vnni": "AVX-VNNI", "avx512_vnni": "AVX512-VNNI",
    "amx_int8": "AMX", "neon": "NEON", "asimd": "NEON", "asimddp": "dot product", "i8mm": "i8mm", "sve": "SVE",
}  # fmt: skip
"""Flags of `/proc/cpuinfo` that decide how fast integer kernels are, with the names that people use."""


@dataclass(frozen=True)
class Processor:
    """`name` as the kernel has it (on Arm: implementer and part), `vector` its instructions for vectors of integers."""

    name: str
    vector: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.vector) or 'no vector instructions'})"


def processor(root: Union[str, Path] = "/") -> Processor:
    """The processor of `root`, its first core where they differ; the name is "unknown" where the tree does not tell."""
    fields: dict[str, str] = {}
    for line in (Sysroot(root).read("proc/cpuinfo") or "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    arm = [fields[key] for key in ("CPU implementer", "CPU part", "CPU variant", "CPU revision") if key in fields]
    intel = " ".join(fields[key] for key in ("cpu family", "model", "stepping") if key in fields)
    name = fields.get("model name", "")
    if arm:
        name = f"{name or 'Arm'} {' '.join(arm)}"
    elif intel:
        name = f"{name or 'x86'}, family {intel}"
    flags = fields.get("flags", fields.get("Features", "")).split()
    return Processor(name or "unknown", tuple(dict.fromkeys(word for flag, word in _VECTOR.items() if flag in flags)))
