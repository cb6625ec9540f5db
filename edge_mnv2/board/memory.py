"""Memory of the board, and what a container's limit leaves of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.board.cpus import cgroup_folders
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
