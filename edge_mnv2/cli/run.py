"""`edge-mnv2 run`: the main job."""

from __future__ import annotations

import json
import logging
from typing import Any, Optional

import typer
from typer.core import TyperCommand

from edge_mnv2.cli.options import (
    JSON,
    WEB,
    WEB_OPEN,
    WEB_TOKEN,
    check_web,
    given,
    option,
    parse_duration,
    setting_overrides,
)
from edge_mnv2.errors import UsageError


class RunCommand(TyperCommand):
    """Lets `--camera` stand alone: without a value it means the first camera found."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spelled = []
        for position, word in enumerate(args):
            follows = args[position + 1] if position + 1 < len(args) else "-"
            spelled.append("--camera=first" if word == "--camera" and follows.startswith("-") else word)
        return super().parse_args(ctx, spelled)


def register(app: typer.Typer) -> None:
    app.command(cls=RunCommand)(run)


def run(
    context: typer.Context,
    camera: Optional[str] = option(
        "--camera", help="A camera: alone the first found, or 0, /dev/video2, csi.", metavar="[SPEC]"
    ),
    source: Optional[str] = option(
        "--source",
        help="auto, a camera, rtsp:// or http:// stream, clip, picture, folder, demo, test[:WxH@FPS].",
        metavar="SPEC",
    ),
    model: Optional[str] = option("--model", help="A name from `models list`, or a .tflite file.", metavar="NAME|PATH"),
    labels: Optional[str] = option("--labels", help="A label file for the model.", metavar="FILE"),
    device: Optional[str] = option("--device", help="A device profile (never a camera).", metavar="PROFILE|FILE"),
    runtime: Optional[str] = option("--runtime", help="auto, litert, tflite-runtime, or onnxruntime for .onnx models."),
    delegate: Optional[str] = option("--delegate", help="auto, none, edgetpu[:N|:usb[:N]|:pci[:N]]."),
    on_tpu_loss: str = option(
        "--on-tpu-loss", help="When the Edge TPU is lost: cpu (default) or exit.", default="cpu", metavar="cpu|exit"
    ),
    threads: Optional[str] = option("--threads", help="Interpreter threads: auto or a number.", metavar="auto|N"),
    workers: Optional[str] = option("--workers", help="Interpreters side by side: auto or a number.", metavar="auto|N"),
    top_k: Optional[str] = option("--top-k", help="How many classes a result names (default 5).", metavar="K"),
    threshold: Optional[str] = option("--threshold", help="Least score that a result names, 0 to 1.", metavar="T"),
    smooth: Optional[str] = option("--smooth", help="Weight of the past in the scores, 0 (off) to 0.99.", metavar="A"),
    appear: Optional[str] = option("--appear", help="Score at which a class appears (default 0.5).", metavar="T"),
    gone: Optional[str] = option(
        "--gone", help="Score below which it is gone (default: 0.7 of --appear).", metavar="T"
    ),
    consecutive: Optional[str] = option(
        "--consecutive", help="In how many results one after the other (default 3).", metavar="N"
    ),
    gate: bool = option("--gate", help="Skip inference while nothing moves.", default=False),
    allow: Optional[str] = option("--allow", help="Report these classes only.", metavar="CLASS,..."),
    deny: Optional[str] = option("--deny", help="Never report these classes.", metavar="CLASS,..."),
    resize: Optional[str] = option("--resize", help="crop (default), stretch or letterbox."),
    roi: Optional[str] = option("--roi", help="Classify only this part, in pixels or fractions.", metavar="X,Y,W,H"),
    rotate: Optional[str] = option("--rotate", help="Turn clockwise: 0, 90, 180 or 270.", metavar="DEGREES"),
    flip: Optional[str] = option("--flip", help="Mirror: h, v or hv."),
    size: Optional[str] = option("--size", help="Ask the camera for this size.", metavar="WxH"),
    fps: Optional[str] = option("--fps", help="Ask the camera for this rate.", metavar="N"),
    every_frame: bool = option("--every-frame", help="Take every frame, as fast as it can.", default=False),
    loop: bool = option("--loop", help="Begin a clip or folder again at its end.", default=False),
    max_frames: Optional[int] = option("--max-frames", help="Stop after N results.", min=1, metavar="N"),
    duration: Optional[str] = option("--duration", help="Stop after S seconds.", metavar="S"),
    give_up: Optional[str] = option("--give-up", help="End when the camera stays away for S seconds.", metavar="S"),
    log: Optional[str] = option(
        "--log", help="Write results: FILE.jsonl, FILE.csv, or - for stdout.", metavar="FILE|-"
    ),
    log_every: Optional[str] = option("--log-every", help="Log every Nth result, or one in S seconds.", metavar="N|Ss"),
    log_rotate: Optional[str] = option(
        "--log-rotate", help="Begin a new log at this size or age: 10MB, 1d or 10MB,1d.", metavar="SIZE|AGE"
    ),
    log_keep: int = option(
        "--log-keep", help="How many old logs stay (default 5).", default=5, min=1, max=1000, metavar="N"
    ),
    min_free: Optional[str] = option(
        "--min-free", help="Room to leave on a disk (default: 2 %, 50 MB at most).", metavar="SIZE"
    ),
    record: Optional[str] = option(
        "--record", help="Record an annotated video that plays even after a power cut.", metavar="FILE.mp4"
    ),
    snapshots: Optional[str] = option("--snapshots", help="Save a picture of each class that appears.", metavar="DIR"),
    snapshots_quota: Optional[str] = option(
        "--snapshots-quota", help="Delete the oldest pictures above this (default 200MB).", metavar="SIZE"
    ),
    mqtt: Optional[str] = option(
        "--mqtt", help="Publish state and events: mqtt[s]://USER:PASSWORD@HOST:PORT/TOPIC.", metavar="URL"
    ),
    webhook: Optional[str] = option("--webhook", help="POST each event to this address.", metavar="URL"),
    gpio: Optional[str] = option(
        "--gpio", help="Hold pins high while a class is present: 17=tabby,27.", metavar="PIN[=CLASS],..."
    ),
    sink: Optional[list[str]] = option(
        "--sink", help="An output of an installed package; may be repeated.", metavar="NAME[=ARGUMENT]"
    ),
    window: bool = option(
        "--window", help="Show a window; keys: q quit, s save, p pause, f full screen.", default=False
    ),
    web: Optional[str] = WEB,
    web_token: Optional[str] = WEB_TOKEN,
    web_open: bool = WEB_OPEN,
    as_json: bool = JSON,
) -> None:
    """Classify frames in real time, with FPS once a second on stderr."""
    from edge_mnv2.app.outputs import OutputRequest
    from edge_mnv2.app.run import RunRequest
    from edge_mnv2.app.run import run as run_session
    from edge_mnv2.settings.profile import resolve

    if on_tpu_loss not in ("cpu", "exit"):
        raise UsageError(f"--on-tpu-loss {on_tpu_loss}", hint="cpu or exit")
    if log_rotate and log in (None, "-"):
        raise UsageError("--log-rotate needs a log file", hint="such as --log results.jsonl")
    if as_json and log == "-":
        raise UsageError("--json and --log - both write to stdout", hint="give --log a file")
    check_web(context)
    if camera is not None and source is not None:
        origins = given(context, "camera"), given(context, "source")
        if origins[0] == origins[1]:
            raise UsageError("--camera and --source exclude each other", hint="give one of them")
        # The command line goes before the environment.
        camera, source = (camera, None) if origins[0] == "command line" else (None, source)
    settings = resolve(device, setting_overrides(context))
    request = RunRequest(
        settings=settings,
        source=source,
        camera=camera,
        labels=labels,
        on_tpu_loss=on_tpu_loss,
        every_frame=every_frame,
        repeat=loop,
        max_frames=max_frames,
        duration_s=parse_duration("--duration", duration),
        give_up_s=parse_duration("--give-up", give_up),
        outputs=OutputRequest(
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
            sinks=tuple(sink or ()),
            window=window,
            web=web,
            web_token=web_token,
            web_open=web_open,
        ),
    )
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
