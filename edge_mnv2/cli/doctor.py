"""`edge-mnv2 doctor`."""

from __future__ import annotations

from typing import Any

import typer

from edge_mnv2.cli.command import Command, filling
from edge_mnv2.cli.options import JSON
from edge_mnv2.cli.terminal import json_text, print_row

_COLOURS = {"ok": "32", "warn": "33", "fail": "1;31"}


def doctor(as_json: bool = JSON) -> None:
    """Check the whole board: one row a check, each with its fix."""
    from edge_mnv2.doctor.checks import run_checks

    failed = None
    rows: list[dict[str, Any]] = []
    document = filling({"ok": None, "checks": rows})
    for check in run_checks():
        rows.append(check.as_dict())
        if check.status == "fail" and failed is None:
            failed = check
        if not as_json:
            print_row(f"{check.status:4}  {check.id:13} ", check.detail, _COLOURS[check.status])
            if check.fix:
                print_row(f"{'':20}-> ", check.fix)
    if as_json:
        typer.echo(json_text({**document, "ok": failed is None}))
    if failed is not None:
        raise typer.Exit(failed.code or 1)


COMMAND = Command(doctor, examples=("edge-mnv2 doctor",))
