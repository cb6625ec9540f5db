"""`edge-mnv2 devices list|show|detect|check|cameras|accelerators`, and `edge-mnv2 doctor`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Optional

import typer

from edge_mnv2.addresses import redact
from edge_mnv2.cli.command import Command, Commands, filling
from edge_mnv2.cli.options import DEVICE, JSON, ROOT, argument, check_root, flag, hidden_settings, option
from edge_mnv2.cli.terminal import aligned, json_text, note, print_row
from edge_mnv2.errors import ProfileError
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
    from edge_mnv2.doctor.checks import run_checks, write_report

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
        write_report(report, rows)
        log.info("%s is written: read it before you send it", report)
    if failed is not None:
        raise typer.Exit(failed.code or 1)


DOCTOR = Command(doctor, examples=("edge-mnv2 doctor", "edge-mnv2 doctor --report report.json"))


def list_profiles(root: Optional[Path] = ROOT, as_json: bool = JSON) -> None:
    """Every device profile; * marks the one for this board."""
    from edge_mnv2.board import accelerators
    from edge_mnv2.board.detect import detect
    from edge_mnv2.settings import report

    rows, reason, error = report.listed(detect(check_root(root)))
    titles = {one.name: one.title for one in accelerators.rows()}
    if as_json:
        chosen = next((row["name"] for row in rows if row.get("chosen")), None)
        typer.echo(json_text({"profiles": rows, "chosen": chosen, "reason": reason}))
    else:
        table = [
            (
                "*" if row.get("chosen") else " ",
                row["name"],
                row["from"],
                "-" if row["expected_ms"] is None else f"{row['expected_ms']:g}",
                "-" if row["expected_ms"] is None else f"{row['precision']}, {titles.get(row['delegate'], 'CPU')}",
                (row["error"] and "cannot be read") or row["description"] or "",
            )
            for row in rows
        ]
        typer.echo(aligned(table, ("", "NAME", "FROM", "EXPECTED MS", "WITH", "FOR"), right=(3,), least=(2,)))
        if reason is not None:
            note(f"* {reason}")
    if error is not None:
        raise error


def show(
    name: Optional[str] = argument(
        "NAME|FILE", "Default: this board's profile.", required=False, variable=DEVICE.variable
    ),
    overrides: dict[str, tuple[Any, str]] = hidden_settings("camera", "preprocess", "runtime", "output"),
    resolved: bool = flag("resolved", "Every setting in force, and where it came from."),
    as_json: bool = JSON,
) -> None:
    """A profile as it stands in its file, or with --resolved every setting that `run` would use.

    With --resolved, the options of `run` that change a setting (--threads 2) may be added, to see what they change.
    """
    from edge_mnv2.board.cpus import resolve_threads, usable_cpus
    from edge_mnv2.settings import report
    from edge_mnv2.settings.profile import resolve
    from edge_mnv2.settings.profile_file import read_profile

    settings = resolve(name, overrides if resolved else None)
    if not resolved:
        if as_json:
            typer.echo(json_text(report.own(read_profile(settings.path))))
        else:
            note(f"# {settings.path}")
            typer.echo(redact(settings.path.read_text(encoding="utf-8-sig")), nl=False)
        return
    threads, sentence = resolve_threads(settings.runtime.threads)
    if as_json:
        typer.echo(json_text({**report.resolved(settings), "threads": threads}))
        return
    note(f"{' < '.join([settings.profile, *settings.parents])} ({settings.reason})")
    typer.echo(aligned(report.resolved_rows(settings, usable_cpus()), ("SETTING", "VALUE", "FROM")))
    if sentence is not None:
        note(sentence)


def detect(root: Optional[Path] = ROOT, as_json: bool = JSON) -> None:
    """Which board this is, and which profile it gets."""
    from edge_mnv2.board.detect import detect as detect_board
    from edge_mnv2.settings import report

    folder = check_root(root)
    facts = report.detected(detect_board(folder), folder)
    if as_json:
        typer.echo(json_text(facts))
        return
    limit = facts.pop("cpus_limited_by")
    facts["profile"] += f" ({facts.pop('reason')})"
    if limit is not None:
        facts["cpus_usable"] = f"{facts['cpus_usable']} ({limit})"
    rows = [
        (name.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value))
        for name, value in facts.items()
        if value not in (None, [])
    ]
    typer.echo(aligned(rows))


def check(
    files: list[str] = argument("FILE...", "Profiles, by path or by name.", many=True),
    as_json: bool = JSON,
) -> None:
    """Read profiles with all that they extend, without any hardware."""
    from edge_mnv2.settings import report

    results: list[dict[str, Any]] = []
    for file in files:
        try:
            results.append({**report.checked(file), "ok": True, "error": None})
        except ProfileError as error:
            results.append({"file": file, "ok": False, "error": str(error)})
    if as_json:
        typer.echo(json_text({"ok": all(result["ok"] for result in results), "results": results}))
    for result in results:
        if not result["ok"]:
            note(f"edge-mnv2: error: {result['error']}")
        elif not as_json:
            line = " < ".join([Path(result["file"]).stem, *result["extends"]])
            typer.echo(f"{result['file']}: ok ({line})")
    if not all(result["ok"] for result in results):
        raise typer.Exit(ProfileError.exit_code)


def cameras(root: Optional[Path] = ROOT, as_json: bool = JSON) -> None:
    """The cameras that are attached, and what they offer."""
    from edge_mnv2.camera.v4l2 import attached_cameras

    attached = attached_cameras(check_root(root))
    if as_json:
        typer.echo(json_text({"cameras": [camera.as_dict() for camera in attached]}))
        return
    rows = []
    for camera in attached:
        offers = [f"{item.fourcc} {_sizes([size[:2] for size in item.sizes])}".strip() for item in camera.formats]
        if camera.modes:
            offers.append(f"sensor {_sizes([mode.size for mode in camera.modes])}")
        if camera.view is not None:
            offers.append(f"sees {camera.view}" if camera.view.cropped else "sees the whole scene")
        rows.append((camera.path, camera.name, camera.source, camera.problem or "; ".join(offers) or "-"))
    if rows:
        typer.echo(aligned(rows, ("DEVICE", "NAME", "--camera", "OFFERS")))
    else:
        note("no camera found: looked for V4L2 devices (/dev/video*) and CSI cameras (picamera2)")


def accelerators(root: Optional[Path] = ROOT, as_json: bool = JSON) -> None:
    """Edge TPUs that are attached, the library that drives them, and what is wrong with either."""
    from edge_mnv2.board.accelerators import Accelerator, answers, rows
    from edge_mnv2.runtime.delegate import Attached

    folder = check_root(root)
    visible = (one for one in rows() if one.visible)

    def ask(row: Accelerator) -> Attached:
        attached = row.load().attached(folder)
        if not isinstance(attached, Attached):
            raise TypeError(f"it gives {attached!r}, which is not Attached")
        return attached

    seen = [attached for _, attached in answers(visible, ask)]
    judged = [check for one in seen for check in one.checks]
    if as_json:
        typer.echo(
            json_text(
                {
                    "accelerators": [_plain(device) for one in seen for device in one.devices],
                    "library": next((_plain(one.library) for one in seen if one.library is not None), None),
                    "checks": [check.as_dict() for check in judged],
                }
            )
        )
        return
    cells = [line for one in seen for line in one.cells]
    if cells:
        typer.echo(aligned(cells, ("NAME", "STATE", "DEVICE", "LINK", "DIE")))
    for one in seen if not cells else ():
        note(one.missing)
    for check in judged:
        fix = f": {check.fix}" if check.fix else ""
        note(f"{check.status:4}  {check.detail}{fix}")


def _sizes(sizes: list[Any]) -> str:
    """The first and the largest of a camera's frame sizes, in words."""
    if not sizes:
        return ""
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return f"to {width}x{height}"


def _plain(value: Any) -> Any:
    """Dataclasses, paths and tuples as JSON has them."""
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


COMMAND = Commands(
    {
        "list": Command(list_profiles, "list", examples=("edge-mnv2 devices list",)),
        "show": Command(show, examples=("edge-mnv2 devices show --resolved", "edge-mnv2 devices show raspberry-pi-4")),
        "detect": Command(detect, examples=("edge-mnv2 devices detect --json",)),
        "check": Command(check, examples=("edge-mnv2 devices check here.yaml",)),
        "cameras": Command(cameras, examples=("edge-mnv2 devices cameras",)),
        "accelerators": Command(accelerators, examples=("edge-mnv2 devices accelerators",)),
    },
    name="devices",
    help="Boards, their profiles, and what is attached.",
)
