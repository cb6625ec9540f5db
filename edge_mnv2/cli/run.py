"""`edge-mnv2 run`: the main job."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import typer

from edge_mnv2.cli.command import Command
from edge_mnv2.cli.options import JSON, MODEL, flag, group, option, settings, with_origin
from edge_mnv2.errors import UsageError
from edge_mnv2.settings.kinds import Choice, Duration, Source, Text, Whole
from edge_mnv2.settings.option import COMMAND_LINE, Value

if TYPE_CHECKING:
    from edge_mnv2.app.outputs import OutputRequest
    from edge_mnv2.app.run import RunRequest
    from edge_mnv2.settings.profile import Settings


def _output(name: str, help: str, metavar: str) -> Any:
    return option(name, help, metavar=metavar, panel="Outputs")


CAMERA: Any = option(
    "camera", "A camera: alone the first found, or 0, /dev/video2, csi.", Source(), panel="Camera", alone="first"
)


EVERY_FRAME: Any = flag("every-frame", "Take every frame, as fast as it can.", panel="Run")


@dataclass(frozen=True)
class WebRequest:
    """Where the page is served, and who may see it."""

    address: Value
    token: Optional[str] = None
    open: bool = False


def web_request(
    web: Value = with_origin(
        option(
            "web",
            "Serve a live page; other machines are let in with HOST, such as 0.0.0.0.",
            metavar="[HOST:]PORT",
            panel="Page",
        )
    ),
    web_token: Value = with_origin(
        option("web-token", "What the page asks its visitors for.", Text(metavar="TOKEN"), panel="Page")
    ),
    web_open: Value = with_origin(flag("web-open", "Let everyone who can reach it see and control.", panel="Page")),
) -> WebRequest:
    """Raises UsageError where the command line says who may see a page that it does not ask for."""
    if web.value is None and COMMAND_LINE in (web_token.origin, web_open.origin):
        raise UsageError("--web-token and --web-open need --web", hint="such as --web 0.0.0.0:8080")
    return WebRequest(web, web_token.value, web_open.value)


def output_request(
    log: Optional[str] = _output("log", "Write results: FILE.jsonl, FILE.csv, or - for stdout.", "FILE|-"),
    log_every: Optional[str] = _output("log-every", "Log every Nth result, or one in S seconds.", "N|Ss"),
    log_rotate: Optional[str] = _output(
        "log-rotate", "Begin a new log at this size or age: 10MB, 1d or 10MB,1d.", "SIZE|AGE"
    ),
    log_keep: int = option("log-keep", "How many old logs stay.", Whole(1, 1000), default=5, panel="Outputs"),
    min_free: Optional[str] = _output("min-free", "Room to leave on a disk (default: 2 %, 50 MB at most).", "SIZE"),
    record: Optional[str] = _output(
        "record", "Record an annotated video that plays even after a power cut.", "FILE.mp4"
    ),
    snapshots: Optional[str] = _output("snapshots", "Save a picture of each class that appears.", "DIR"),
    snapshots_quota: Optional[str] = _output(
        "snapshots-quota", "Delete the oldest pictures above this (default 200MB).", "SIZE"
    ),
    mqtt: Optional[str] = _output("mqtt", "Publish state and events: mqtt[s]://USER:PASSWORD@HOST:PORT/TOPIC.", "URL"),
    webhook: Optional[str] = _output("webhook", "POST each event to this address.", "URL"),
    gpio: Optional[str] = _output("gpio", "Hold pins high while a class is present: 17=tabby,27.", "PIN[=CLASS],..."),
    sinks: Optional[tuple[str, ...]] = option(
        "sink",
        "An output of an installed package; may be repeated.",
        metavar="NAME[=ARGUMENT]",
        panel="Outputs",
        repeated=True,
    ),
    window: bool = flag("window", "Show a window; keys: q quit, s save, p pause, f full screen.", panel="Outputs"),
    web: WebRequest = group(web_request),
    every_frame: bool = EVERY_FRAME,
) -> OutputRequest:
    from edge_mnv2.app.outputs import OutputRequest

    if log_rotate and log in (None, "-"):
        raise UsageError("--log-rotate needs a log file", hint="such as --log results.jsonl")
    return OutputRequest(
        log=log,
        log_every=log_every,
        log_rotate=log_rotate,
        log_keep=log_keep,
        min_free=min_free,
        show_status=logging.getLogger().isEnabledFor(logging.INFO),
        record=record,
        snapshots=snapshots,
        snapshots_quota=snapshots_quota,
        every_frame=every_frame,
        mqtt=mqtt,
        webhook=webhook,
        gpio=gpio,
        sinks=sinks or (),
        window=window,
        web=web.address.value,
        web_token=web.token,
        web_open=web.open,
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
    outputs: OutputRequest = group(output_request),
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
        outputs=outputs,
    )


def run(request: RunRequest = group(run_request), as_json: bool = JSON) -> None:
    """Classify frames in real time, with FPS once a second on stderr."""
    from edge_mnv2.app.run import run as run_session

    if as_json and request.outputs.log == "-":
        raise UsageError("--json and --log - both write to stdout", hint="give --log a file")
    outcome = run_session(request)
    if as_json:
        typer.echo(json.dumps(outcome.summary, ensure_ascii=False, indent=2))
    else:
        logging.getLogger(__name__).info("%s", _in_words(outcome.summary))
    if outcome.error is not None:
        raise outcome.error
    raise typer.Exit(outcome.exit_code)


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
        "edge-mnv2 run --source rtsp://camera.local/stream --web 0.0.0.0:8080 --web-token TOKEN",
        "edge-mnv2 run --source clip.mp4 --model model.tflite --log results.jsonl",
    ),
)
