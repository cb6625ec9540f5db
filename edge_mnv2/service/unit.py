"""The text of a systemd unit and its sandbox. See systemd.unit(5), systemd.service(5), systemd.exec(5)."""

from __future__ import annotations

import grp
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.service.command import Needs

START_S = 300
_HEAD = """\
# Written by `edge-mnv2 service install`; `edge-mnv2 service remove` takes it away.
# Your own changes belong into a drop-in: `systemctl edit`."""
STOP_S = 20
"""More than closing every output may take; a board that shuts down does not wait for ever."""

_WAIT_FOR_THE_CLOCK = (
    "# A board without a clock of its own: up to 30 s for the time, in the first two minutes after power-on.",
    "ExecStartPre=-/bin/sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do "
    "[ -d /run/systemd/timesync ] && [ ! -e /run/systemd/timesync/synchronized ] || exit 0; "
    "read up rest < /proc/uptime; [ $${up%%%%.*} -lt 120 ] || exit 0; sleep 2; done'",
)


@dataclass(frozen=True)
class Unit:
    """One service. `user` is None for a unit of the user's own manager; `version` is systemd's."""

    name: str
    words: Sequence[str]
    what: str
    needs: Needs
    version: int
    user: Optional[str]
    environment_files: Sequence[Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Variables that belong into the last of `environment_files` and nowhere else."""
    watchdog_s: int = 60

    def text(self) -> str:
        """The file's text. Raises UsageError where a word or path cannot be written in one."""
        sections = {"Unit": self._unit(), "Service": self._service(), "Install": self._install()}
        parts = [_HEAD]
        for name, lines in sections.items():
            parts.append(f"[{name}]\n" + "\n".join(lines))
        return "\n\n".join(parts) + "\n"

    def _unit(self) -> list[str]:
        lines = [f"Description=edge-mnv2: {_plain(self.what)}"]
        if self.user is not None and self.needs.network:
            lines += ["Wants=network-online.target", "After=network-online.target"]
        if self.needs.desktop and self.user is None:
            lines += ["After=graphical-session.target", "PartOf=graphical-session.target"]
        # Cameras come back after days: never give up. RestartSec below is what limits the rate.
        return [*lines, "StartLimitIntervalSec=0"]

    def _service(self) -> list[str]:
        lines = [
            "Type=notify",
            "NotifyAccess=main",
            f"ExecStart={command_line(self.words)}",
            *(f"EnvironmentFile=-{_plain(str(path))}" for path in self.environment_files),
            *(f"Environment={_quoted(f'{name}={value}')}" for name, value in self.environment.items()),
            "WorkingDirectory=~",
            "# What it writes (logs, pictures, recordings) is not for everybody.",
            "UMask=0027",
            *_WAIT_FOR_THE_CLOCK,
        ]
        if self.user is not None:
            lines.append(f"User={self.user}")
            names = groups(self.needs)
            if names:
                lines.append(f"SupplementaryGroups={' '.join(names)}")
        return [
            *lines,
            f"TimeoutStartSec={START_S}",
            f"TimeoutStopSec={STOP_S}",
            "# Fed by inferences: what does not classify any more is ended politely, then by force, and started anew.",
            f"WatchdogSec={self.watchdog_s}",
            "WatchdogSignal=SIGTERM",
            f"TimeoutAbortSec={STOP_S}",
            "Restart=on-failure",
            *self._backoff(),
            "# Results that could not be written, said at the end of a run that was asked to stop.",
            "SuccessExitStatus=8",
            "SyslogIdentifier=" + self.name,
            "",
            *sandbox(
                self.needs,
                system=self.user is not None,
                # What is not there yet, such as a card, must not keep the service from starting.
                folders=[listed(path, "-") for path in self.needs.written],
            ),
        ]

    def _backoff(self) -> list[str]:
        if self.version >= 254:
            return ["RestartSec=2", "RestartSteps=5", "RestartMaxDelaySec=60"]
        return ["RestartSec=10"]

    def _install(self) -> list[str]:
        if self.user is not None:
            return ["WantedBy=multi-user.target"]
        return ["WantedBy=graphical-session.target" if self.needs.desktop else "WantedBy=default.target"]


def command_line(words: Iterable[str]) -> str:
    """ExecStart= for `words`: quotes, backslashes, `%` and (after the program) `$` mean themselves."""
    first, *rest = words
    return " ".join([_quoted(first), *(_quoted(word.replace("$", "$$")) for word in rest)])


def listed(path: Path, prefix: str = "") -> str:
    """A path in a list of paths, where quotes are read but escapes are not. Raises UsageError."""
    text = prefix + _plain(str(path))
    if '"' in text or "\\" in text:
        raise UsageError(
            f"{path}: quotes and backslashes cannot stand in a service's paths", hint="choose another name"
        )
    return f'"{text}"' if " " in text or "'" in text else text


def _quoted(word: str) -> str:
    text = _plain(word)
    if text and all(each.isalnum() or each in "/._-=:,+@%$" for each in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plain(text: str) -> str:
    if not text.isprintable():
        raise UsageError(
            f"{text!r}: control characters cannot stand in a service's command", hint="choose another name"
        )
    return text.replace("%", "%%")


_EVERYWHERE = (
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged",
    "SystemCallErrorNumber=EPERM",
    # libudev and libusb hear of devices through netlink.
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
)
_SYSTEM = (
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "RemoveIPC=yes",
)
_CAMERAS = ("char-video4linux", "char-media", "char-dma_heap", "char-vcio")


def groups(needs: Needs) -> list[str]:
    """The groups that own the devices in use, where this machine has them."""
    return [name for name in ("video", *needs.groups) if _exists(name)]


def sandbox(needs: Needs, *, system: bool, folders: Sequence[str]) -> list[str]:
    """The lines of the unit; `folders`, as they stand in one, may be written.

    A user's own manager has no right to most of it.
    """
    if not system:
        return list(_EVERYWHERE)
    # Pipelines and windows reach drivers and sockets of the board's maker that cannot be listed beforehand.
    free = needs.desktop or needs.pipeline
    lines = [*_EVERYWHERE, *_SYSTEM, f"ReadWritePaths={' '.join(folders)}"]
    if not free and not needs.temporary:
        lines.append("PrivateTmp=yes")
    if not free:
        devices = [*_CAMERAS, *needs.devices]
        lines += ["DevicePolicy=closed", *(f"DeviceAllow={device} rw" for device in devices)]
    bind = "CAP_NET_BIND_SERVICE" if needs.bound_port is not None and needs.bound_port < 1024 else ""
    return [*lines, f"CapabilityBoundingSet={bind}", f"AmbientCapabilities={bind}"]


def _exists(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True
