"""How a service is doing, for people and for programs."""

from __future__ import annotations

from typing import Any, Optional

from edge_mnv2.service.systemd import Manager, need


def report(manager: Manager, name: str) -> dict[str, Any]:
    """What systemd knows; what it does not know is None. Raises EdgeMnv2Error without systemd."""
    need("systemctl")
    path = manager.unit_path(name)
    facts = manager.facts(name)
    return {
        "name": name,
        "scope": manager.scope,
        "unit": str(path),
        "installed": path.is_file(),
        "enabled": facts["UnitFileState"] == "enabled" if facts.get("UnitFileState") else None,
        "active": facts["ActiveState"] == "active" if facts.get("ActiveState") else None if path.is_file() else False,
        "state": f"{facts['ActiveState']} ({facts.get('SubState', '')})" if facts.get("ActiveState") else None,
        "since": facts.get("ActiveEnterTimestamp") or None,
        "status": facts.get("StatusText") or None,
        "pid": _number(facts.get("MainPID")) or None,
        "restarts": _number(facts.get("NRestarts")),
        "result": facts.get("Result") or None,
        "exit_code": _number(facts.get("ExecMainStatus")),
    }


def shown(found: dict[str, Any]) -> str:
    """A few lines for a person."""
    if not found["installed"]:
        return f"{found['name']} is not installed (edge-mnv2 service install --camera ...)"
    lines = [f"{found['name']}  {found['state'] or 'unknown: systemd does not answer'}"]
    rows = {
        "since": found["since"] if found["active"] else None,
        "status": found["status"],
        "restarts": found["restarts"],
        "last result": None if found["active"] else f"{found['result']}, exit code {found['exit_code']}",
        "at boot": {True: "yes", False: "no", None: None}[found["enabled"]],
        "unit": found["unit"],
    }
    return "\n".join(lines + [f"  {key:12}{value}" for key, value in rows.items() if value is not None])


def _number(text: Optional[str]) -> Optional[int]:
    return int(text) if text and text.isdigit() else None
