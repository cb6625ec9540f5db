"""The Coral Edge TPU: discovered without its library, contacted in a process of its own, used, lost and regained."""

from __future__ import annotations

from typing import Optional

from edge_mnv2.errors import AcceleratorError

LIBRARY_VARIABLE = "EDGE_MNV2_EDGETPU_LIB"
"""The environment variable that names libedgetpu."""


class DeviceRefused(AcceleratorError):
    """The library opens no device: the one kind of failure that a second attempt may cure.

    `reason` is what the library said, often nothing.
    """

    def __init__(self, message: str, *, hint: Optional[str] = None, reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class AcceleratorLost(AcceleratorError):
    """An Edge TPU that was in use fails, hangs or has taken its process along."""


class DeviceHeld(AcceleratorError):
    """Another process uses the device. `pid` is None where it is unknown which."""

    def __init__(self, message: str, pid: Optional[int] = None) -> None:
        super().__init__(message, hint="one process at a time can use an Edge TPU")
        self.pid = pid
