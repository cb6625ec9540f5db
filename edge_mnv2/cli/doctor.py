"""`edge-mnv2 doctor`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Optional

import typer

from edge_mnv2.cli.command import Command, filling
from edge_mnv2.cli.options import JSON, option
from edge_mnv2.cli.terminal import json_text, print_row
from edge_mnv2.settings.kinds import File

_COLOURS = {"ok": "32", "warn": "33", "fail": "1;31"}

log = logging.getLogger(__name__)


def doctor(
    report: Optional[Path] = option(
        "report", "Write versions, board, checks and a speed for others to read, without secrets.", File("FILE.json")
    ),
    as_json: bool = JSON,
) -> None:
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
    if report is not None:
        from edge_mnv2.doctor.report import write_report

        write_report(report, rows)
        log.info("%s is written: read it before you send it", report)
    if failed is not None:
        raise typer.Exit(failed.code or 1)


COMMAND = Command(doctor, examples=("edge-mnv2 doctor", "edge-mnv2 doctor --report report.json"))
