"""What `--delegate` may say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.errors import UsageError

_FORM = re.compile(r"edgetpu(?::(usb|pci))?(?::([0-9]{1,3}))?")


@dataclass(frozen=True)
class DelegateSpec:
    """`mode` is "none", "auto" or "edgetpu"; `kind` ("usb", "pci") and `index` narrow the choice among several."""

    mode: str
    kind: Optional[str] = None
    index: Optional[int] = None

    @property
    def required(self) -> bool:
        """Whether an unusable accelerator is an error."""
        return self.mode == "edgetpu"

    @property
    def option(self) -> str:
        """The library's own `device` option: "", ":N", "usb", "usb:N", "pci", "pci:N"."""
        return (self.kind or "") + ("" if self.index is None else f":{self.index}")

    def __str__(self) -> str:
        parts = [self.mode, self.kind, None if self.index is None else str(self.index)]
        return ":".join(part for part in parts if part is not None)


def parse(text: str) -> DelegateSpec:
    """Read `none`, `auto` or `edgetpu[:N|:usb[:N]|:pci[:N]]`. Raises UsageError."""
    wanted = text.strip().lower()
    if wanted in ("none", "auto"):
        return DelegateSpec(wanted)
    match = _FORM.fullmatch(wanted)
    if match is None:
        raise UsageError(
            f"--delegate {text}: no such delegate",
            hint="none, auto, edgetpu, edgetpu:N, edgetpu:usb[:N], edgetpu:pci[:N]",
        )
    kind, index = match.groups()
    return DelegateSpec("edgetpu", kind, None if index is None else int(index))
