"""Put a unit in place and start it; take it away."""

from __future__ import annotations

import logging
from typing import Optional

from edge_mnv2.errors import EdgeMnv2Error, UsageError
from edge_mnv2.paths import atomic_write
from edge_mnv2.service.account import Account
from edge_mnv2.service.systemd import Manager, need

log = logging.getLogger(__name__)


def install(manager: Manager, name: str, text: str, *, log_hint: str) -> Optional[str]:
    """Write the unit, start it at every boot and now; what it says when it is ready, None where it only starts at boot.

    Raises UsageError where the file cannot be written, EdgeMnv2Error where systemd refuses or the service does not
    become ready (it is then tried again by systemd; the exit code is that of the command).
    """
    need("systemctl")
    if not manager.system and not manager.running:
        raise EdgeMnv2Error(
            "no systemd of this user is running", hint="log in as that user (not with su), or install it with sudo"
        )
    path = manager.unit_path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "w") as handle:
            handle.write(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="run it with sudo") from None
    if not manager.running:
        # `enable` makes links and needs no manager: an image is prepared this way.
        manager.call("enable", f"{name}.service")
        return None
    manager.call("daemon-reload")
    manager.call("enable", f"{name}.service")
    log.info("starting; this takes until the first inference")
    done = manager.call("restart", f"{name}.service", check=False)
    facts = manager.facts(name)
    if done.returncode or facts.get("ActiveState") != "active":
        why = manager.last_error(name) or facts.get("Result", "unknown")
        failed = EdgeMnv2Error(
            f"{name} is installed but does not become ready, and systemd goes on trying: {why}", hint=log_hint
        )
        code = facts.get("ExecMainStatus", "0")
        failed.exit_code = int(code) if code.isdigit() and 0 < int(code) < 9 else 1
        raise failed
    return facts.get("StatusText", "")


def refuse_a_second(manager: Manager, name: str, account: Account) -> None:
    """The system's and the user's of one name would take the camera from each other. Raises UsageError."""
    theirs = Manager(system=not manager.system, home=account.home).unit_path(name)
    if theirs.is_file():
        way = f"first, as {account.name}: edge-mnv2 service remove" if manager.system else "run this with sudo"
        raise UsageError(f"{theirs} is there already", hint=way)


def remove(manager: Manager, name: str) -> bool:
    """Stop it, start it no more, delete the unit. False where there is none. Raises UsageError, EdgeMnv2Error."""
    path = manager.unit_path(name)
    if not path.is_file():
        return False
    need("systemctl")
    if manager.running:
        manager.call("disable", "--now", f"{name}.service")
    else:
        manager.call("disable", f"{name}.service", check=False)
    try:
        path.unlink()
    except OSError as error:
        raise UsageError(f"{path} cannot be removed: {error.strerror}", hint="run it with sudo") from None
    if manager.running:
        manager.call("daemon-reload")
        manager.call("reset-failed", f"{name}.service", check=False)
    return True
