"""Whether an MPEG transport stream has lost packets, by its sync bytes and continuity counters (ISO/IEC 13818-1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_PACKET = 188
_SYNC = 0x47
_NULL_PID = 0x1FFF
_BLOCK = _PACKET << 15


def has_lost_packets(path: Path) -> bool:
    """False too where the file cannot be read, or has packets of another size than 188 bytes."""
    last: dict[int, int] = {}
    try:
        with path.open("rb") as file:
            start = file.read(_PACKET + 1)
            if start[:1] != b"\x47" or start[_PACKET:] != b"\x47":
                return False
            file.seek(0)
            while block := file.read(_BLOCK):
                packets = np.frombuffer(block, np.uint8, len(block) // _PACKET * _PACKET).reshape(-1, _PACKET)
                if _breaks(packets, last):
                    return True
    except OSError:
        pass
    return False


def _breaks(packets: np.ndarray, last: dict[int, int]) -> bool:
    """Whether `packets` (uint8 Nx188) go on as they should; `last` has each stream's last counter, and is updated."""
    if (packets[:, 0] != _SYNC).any() or (packets[:, 1] & 0x80).any():
        return True
    pids = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
    field, payload = packets[:, 3] & 0x20 > 0, packets[:, 3] & 0x10 > 0
    # The stream's maker may say that a counter jumps here.
    announced = field & (packets[:, 4] > 0) & (packets[:, 5] & 0x80 > 0)
    for pid in np.unique(pids):
        rows = (pids == pid) & payload
        if pid == _NULL_PID or not rows.any():
            continue
        counters = (packets[rows, 3] & 0x0F).astype(int)
        steps = np.diff(counters, prepend=last.get(pid, counters[0])) % 16
        # A packet may be sent twice.
        if ((steps > 1) & ~announced[rows]).any():
            return True
        last[pid] = int(counters[-1])
    return False
