"""`edge-mnv2 run`: the main job."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Optional

import typer

from edge_mnv2.cli.command import Command
from edge_mnv2.cli.options import EVERY_FRAME, JSON, MODEL, flag, group, option, outputs, settings, with_origin
from edge_mnv2.cli.terminal import json_text
from edge_mnv2.errors import UsageError
from edge_mnv2.settings.kinds import Choice, Duration, Whole
from edge_mnv2.settings.more_kinds import Source
from edge_mnv2.settings.option import COMMAND_LINE, Value, has_password

if TYPE_CHECKING:
    from edge_mnv2.app.run import RunRequest
    from edge_mnv2.outputs.table import OutputValues
    from edge_mnv2.settings.profile import Settings


CAMERA: Any = option(
    "camera",
    "A camera: alone the first found, or 0, /dev/video2, csi.",
    Source(),
    panel="Camera",
    alone="first",
    path="read",
    secret=has_password,
)


def chosen_source(
    camera: Value = with_origin(CAMERA), source: Value = with_origin("source")
) -> tuple[Optional[str], Optional[str]]:
    """(camera, source), of which one at most is not None. Raises UsageError where both are said in one place."""
    if camera.value is not None and source.value is not None:
        if camera.origin == source.origin:
            raise UsageError("--camera and --source exclude each other", hint="give one of them")
        # The command line goes before the environment.
        return (camera.value, None) if camera.origin == COMMAND_LINE else (None, source.value)
    return camera.value, source.value


def run_request(
    source: tuple[Optional[str], Optional[str]] = group(chosen_source),
    resolved: Settings = settings("camera", *MODEL, "runtime.workers", "output", profile=True),
    on_tpu_loss: str = option(
        "on-tpu-loss", "When the Edge TPU is lost.", Choice("cpu", "exit"), default="cpu", panel="Model"
    ),
    sinks: OutputValues = outputs(),
    every_frame: bool = EVERY_FRAME,
    loop: bool = flag("loop", "Begin a clip or folder again at its end.", panel="Run"),
    max_frames: Optional[int] = option("max-frames", "Stop after N results.", Whole(1), panel="Run"),
    duration: Optional[float] = option("duration", "Stop after S seconds.", Duration(), panel="Run"),
    give_up: Optional[float] = option(
        "give-up", "End when the camera stays away for S seconds.", Duration(), panel="Run"
    ),
) -> RunRequest:
    """Everything that a run is asked for."""
    from edge_mnv2.app.run import RunRequest

    return RunRequest(
        settings=resolved,
        camera=source[0],
        source=source[1],
        on_tpu_loss=on_tpu_loss,
        every_frame=every_frame,
        repeat=loop,
        max_frames=max_frames,
        duration_s=duration,
        give_up_s=give_up,
        outputs=sinks,
    )


def run(
    request: RunRequest = group(run_request),
    no_web: Value = with_origin(
        flag("no-web", "No page. On a terminal there is one without --web too, for this machine only.", panel="Page")
    ),
    as_json: bool = JSON,
) -> None:
    """Classify frames in real time, with FPS once a second on stderr."""
    from edge_mnv2.app.run import run as run_session

    request = replace(request, outputs=_with_page(request.outputs, no_web))
    if as_json and request.outputs["log"] == "-":
        raise UsageError("--json and --log - both write to stdout", hint="give --log a file")
    outcome = run_session(request)
    if as_json:
        typer.echo(json_text(outcome.summary))
    else:
        logging.getLogger(__name__).info("%s", _in_words(outcome.summary))
    if outcome.error is not None:
        raise outcome.error
    raise typer.Exit(outcome.exit_code)


def _with_page(outputs: OutputValues, no_web: Value) -> OutputValues:
    """A page on this machine where a person looks on and says nothing about it."""
    if no_web.value:
        if no_web.origin == outputs.origin("web") == COMMAND_LINE:
            raise UsageError("--web and --no-web exclude each other", hint="give one of them")
        return outputs.changed("web", None)
    terminal = outputs.status and sys.stderr.isatty() and sys.stdout.isatty()
    if outputs["web"] is not None or not terminal or find_spec("aiohttp") is None:
        return outputs
    from edge_mnv2.outputs.web.address import parse

    return outputs.changed("web", parse("8080"))


def _in_words(summary: dict[str, Any]) -> str:
    latency = summary["latency_ms"]["p50"]
    parts = [f"{summary['frames']} frames in {summary['duration_s']:.1f} s"]
    if summary["fps"] is not None:
        parts.append(f"{summary['fps']:.1f} FPS, latency {latency:.1f} ms (median)")
    parts.append(f"{summary['dropped']} dropped")
    if summary["gated"]:
        parts.append(f"{summary['gated']} without inference (nothing moved)")
    if summary["write_errors"]:
        parts.append(f"{summary['write_errors']} results not written")
    return ", ".join(parts) + f" ({summary['ended']})"


COMMAND = Command(
    run,
    examples=(
        "edge-mnv2 run --camera",
        "edge-mnv2 run --source rtsp://camera.local/stream --web 0.0.0.0",
        "edge-mnv2 run --source clip.mp4 --model model.tflite --log results.jsonl",
    ),
)
