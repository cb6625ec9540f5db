"""Every setting once: a profile's key with its kind, default, help, and the option of the same meaning.

One dataclass a section. A setting without an option is for profiles only; the section `model` is for the command line
only (what is said about a model file belongs into its sidecar, not into a board's profile).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from edge_mnv2.board import accelerators
from edge_mnv2.errors import UsageError
from edge_mnv2.settings.kinds import Choice, Flag, Forms, Kind, Number, Offered, Or, Text, Whole
from edge_mnv2.settings.more_kinds import Channels, Control, Names, Numbers, Region, Size, Source
from edge_mnv2.settings.option import Option, has_password

RUNTIMES = Offered()
CAMERA_BACKENDS = Offered()
"""Names from the tables of those rooms, handed in by whoever knows both."""

DELEGATES = Forms(
    [("auto", "auto"), ("none", "none"), *(form for one in accelerators.TABLE for form in one.forms)],
    lambda: (form for one in accelerators.of_packages() for form in one.forms),
)
"""What accelerates a runtime."""


SHOWN_FROM = 0.35
"""A score below it reads as "nothing recognized", unless somebody sets a threshold: of the default model's right
answers 4 % are below, of its wrong ones 40 % (500 photographs)."""

GONE_SHARE = 0.7
"""Default of `output.gone`: this fraction of `output.appear`."""


def setting(default: Any, kind: Kind, help: str, option: str = "", metavar: str = "", **more: Any) -> Any:
    """A dataclass field that declares a setting; `option` is its name on the command line, if it has one."""
    return field(default=default, metadata={"name": option, "kind": kind, "help": help, "metavar": metavar, **more})


@dataclass(frozen=True)
class Camera:
    """Where frames come from and how they are taken. None leaves a value to the source."""

    source: Optional[str] = setting(
        None,
        Source(),
        "auto, a camera, rtsp:// or http:// stream, clip, picture, folder, demo, test[:WxH@FPS].",
        "source",
        secret=has_password,
        path="read",
    )
    backend: Optional[str] = setting(None, Or(CAMERA_BACKENDS, "auto"), "Which library opens the camera.")
    width: Optional[int] = setting(None, Or(Whole(16, 16384), "auto"), "Width to ask the camera for, pixels.")
    height: Optional[int] = setting(None, Or(Whole(16, 16384), "auto"), "Height to ask the camera for, pixels.")
    fps: Optional[float] = setting(None, Or(Number(0.01, 100_000), "auto"), "Ask the camera for this rate.", "fps")
    format: Optional[str] = setting(
        None, Or(Text("a FourCC such as MJPG or YUYV", r"[A-Za-z0-9]{4}"), "auto"), "Pixel format to ask for."
    )
    rotate: int = setting(0, Choice(0, 90, 180, 270), "Turn frames clockwise.", "rotate", "DEGREES")
    flip: Optional[str] = setting(None, Or(Choice("h", "v", "hv"), "none"), "Mirror left-right, top-bottom.", "flip")
    roi: Optional[tuple[float, ...]] = setting(
        None, Or(Region(), "none"), "Classify only this part, in pixels or fractions.", "roi"
    )
    warmup_frames: Optional[int] = setting(
        None, Or(Whole(0, 10_000), "auto"), "First frames to drop while the exposure settles."
    )
    stall_s: Optional[float] = setting(
        None, Or(Number(0.1, 3600), "auto"), "Seconds without a frame after which a camera is opened again."
    )
    frozen_s: float = setting(5.0, Number(0, 86_400), "The same for seconds of equal frames, ten at least; 0 = never.")
    ca: Optional[str] = setting(
        None,
        Or(Text("a PEM file", metavar="FILE"), "none"),
        "Trust servers whose certificate this authority has signed (PEM).",
        "ca",
        "FILE",
        path="read",
    )
    rtsp_transport: str = setting(
        "auto", Choice("auto", "tcp", "udp"), "How RTSP cameras send: TCP first, or one of them.", "rtsp-transport"
    )
    controls: dict[str, Any] = field(
        default_factory=dict,
        metadata={"name": "", "kind": Control(), "help": "The camera's own controls, by its driver's names."},
    )

    @property
    def size(self) -> Optional[tuple[int, int]]:
        """(width, height) where both are set."""
        return None if self.width is None or self.height is None else (self.width, self.height)

    def asked(self) -> dict[str, Any]:
        """Everything but `source`, as keyword arguments of a camera's settings."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "source"}


@dataclass(frozen=True)
class Preprocess:
    """From a frame to the model's input."""

    resize: str = setting(
        "crop", Choice("crop", "stretch", "letterbox"), "How a frame becomes the model's square.", "resize"
    )


@dataclass(frozen=True)
class Runtime:
    """What runs the model."""

    backend: str = setting("auto", RUNTIMES, "The interpreter package that runs the model.", "runtime")
    delegate: str = setting(
        "auto",
        DELEGATES,
        "What accelerates it: {expects}.",
        "delegate",
    )
    threads: Union[int, str] = setting("auto", Whole(1, 256, ("auto",)), "Threads of one interpreter.", "threads")
    workers: Union[int, str] = setting("auto", Whole(1, 64, ("auto",)), "Interpreters side by side.", "workers")
    model: Optional[str] = setting(
        None,
        Or(Text("a model's name or path"), "default"),
        "A name from `models list`, or a model file.",
        "model",
        "NAME|PATH",
        path="read",
    )


@dataclass(frozen=True)
class Output:
    """What is made of the scores."""

    top_k: int = setting(5, Whole(1, 100000), "How many classes a result names.", "top-k", "K")
    threshold: Optional[float] = setting(
        None,
        Or(Number(0, 1), "auto"),
        f"Least score that a result names, 0 to 1; auto names all, and shows people none below {SHOWN_FROM:g}.",
        "threshold",
        "T",
    )
    smooth: float = setting(
        0.0, Number(0, 1, below=True), "Weight of the past in the scores, 0 (off) to 0.99.", "smooth", "A"
    )
    gate: bool = setting(False, Flag(), "Skip inference while nothing moves.", "gate")
    gate_change: float = setting(4.0, Number(0, 255, "levels of 0 to 255", above=True), "What counts as moving.")
    gate_refresh_s: float = setting(
        1.0, Number(0, 3600, "seconds", above=True), "The longest that scores are used again."
    )
    appear: float = setting(0.5, Number(0, 1, above=True), "Score at which a class appears.", "appear", "T")
    gone: Optional[float] = setting(
        None,
        Or(Number(0, 1, above=True), "auto"),
        f"Score below which it is gone; auto is {GONE_SHARE:g} of --appear.",
        "gone",
        "T",
    )
    consecutive: int = setting(3, Whole(1, 10_000), "In how many results one after the other.", "consecutive", "N")
    allow: Optional[tuple[str, ...]] = setting(
        None, Or(Names("a class or a list of classes", "CLASS,..."), "all"), "Report these classes only.", "allow"
    )
    deny: Optional[tuple[str, ...]] = setting(
        None, Or(Names("a class or a list of classes", "CLASS,..."), "none"), "Never report these classes.", "deny"
    )

    @property
    def least_score(self) -> float:
        """Scores below it are in no result."""
        return self.threshold or 0.0

    def shown_from(self, taught: bool) -> float:
        """Scores below it are shown to nobody. A taught model says "unknown" by a rule of its own."""
        if self.threshold is not None:
            return self.threshold
        return 0.0 if taught else SHOWN_FROM


@dataclass(frozen=True)
class Health:
    """Limits whose crossing is said out loud."""

    max_temp_c: Optional[float] = setting(
        None, Or(Number(20, 150, "degrees Celsius"), "none"), "SoC temperature not to exceed."
    )
    min_fps: Optional[float] = setting(
        None, Or(Number(0, 1000, "frames a second", above=True), "none"), "Least frame rate to accept."
    )
    on_limit: str = setting("warn", Choice("warn", "slow"), "When too hot: warn only, or lower the frame rate as well.")


@dataclass(frozen=True)
class Expected:
    """A published figure for this board and MobileNetV2 1.0/224, model only."""

    inference_ms: Optional[float] = setting(None, Number(0, 100000, "ms", above=True), "Time of one inference.")
    inference_ms_32bit: Optional[float] = setting(
        None, Number(0, 100000, "ms", above=True), "The same on a 32-bit operating system."
    )
    precision: str = setting("int8", Choice("int8", "float32"), "Precision of the model that was measured.")
    delegate: str = setting(
        "none",
        Choice("none", *(one.name for one in accelerators.TABLE if one.automatic)),
        "Accelerator that it was measured with.",
    )
    source: Optional[str] = setting(None, Text(), "Who published it, and how it was measured.")


@dataclass(frozen=True)
class ModelOptions:
    """What is said about a model file, before its sidecar, the registry and the file itself are asked."""

    labels: Optional[str] = setting(None, Text("a path"), "A label file for the model.", "labels", "FILE", path="read")
    mean: Optional[tuple[float, ...]] = setting(
        None,
        Channels(),
        "What is subtracted from each channel of a picture: 0 to 255, or fractions.",
        "mean",
    )
    std: Optional[tuple[float, ...]] = setting(None, Channels(0.0), "By what it is divided then.", "std")
    input_range: Optional[tuple[float, ...]] = setting(
        None, Numbers("LOW", "HIGH"), "What black and white are for the model, in place of mean and std.", "input-range"
    )
    input_size: Optional[tuple[int, int]] = setting(
        None, Size(), "The input's size, where the model leaves it open.", "input-size"
    )
    task: Optional[str] = setting(
        None, Choice("classification", "regression"), "What a model of one output number answers.", "task"
    )
    known: Optional[float] = setting(
        None,
        Number(0.8, 0.995),
        "The share of pictures of its classes that a taught model shall not call unknown.",
        "known",
        "SHARE",
    )
    output: Optional[str] = setting(
        None, Text("an output's name or number"), "Which of several outputs is read.", "model-output", "NAME|N"
    )


SECTIONS: dict[str, type] = {
    "camera": Camera,
    "preprocess": Preprocess,
    "runtime": Runtime,
    "output": Output,
    "health": Health,
    "expected": Expected,
}

_PANELS = {"camera": "Camera", "preprocess": "Model", "runtime": "Model", "model": "Model", "output": "Decisions"}


def _declared(section: str, cls: type) -> dict[str, Option]:
    """Dotted name → declaration, for each field of a section. A name "" is a key that no option sets by itself."""
    declared = {}
    for item in dataclasses.fields(cls):
        key = f"{section}.{item.name}"
        default = {} if item.default is dataclasses.MISSING else item.default
        declared[key] = Option(default=default, panel=_PANELS.get(section, ""), keys=(key,), **item.metadata)
    return declared


KEYS: dict[str, Option] = {
    key: declared for section, cls in SECTIONS.items() for key, declared in _declared(section, cls).items()
}
"""Every key of a profile by its dotted name ("runtime.threads")."""

MODEL_KEYS: dict[str, Option] = _declared("model", ModelOptions)
"""The same for what only the command line says."""

_SIZE = Option("size", Size(), "Ask the camera for this size.", panel="Camera", keys=("camera.width", "camera.height"))

OPTIONS: dict[str, Option] = {
    option.name: option for option in (*KEYS.values(), _SIZE, *MODEL_KEYS.values()) if option.name
}
"""The options that set one of these, by their names on the command line."""

OPTION_OF: dict[str, Option] = {key: option for option in OPTIONS.values() for key in option.keys}
"""The option that sets a dotted key, where there is one."""

HEADERS: dict[str, dict[str, Optional[Kind]]] = {
    "match": {"model": Names(), "compatible": Names()},
    "board": {"model": Text(), "serial": Text("a board's hash, 16 hexadecimal digits", r"[0-9a-f]{16}")},
    "saved": {
        "date": Text("a date such as 2026-11-25T10:00:00Z", r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z?)?"),
        "goal": Choice("latency", "throughput", "power"),
        "versions": None,
        "figures": None,
    },
}
"""Sections about the profile itself, not inherited. None: any names with plain values."""


def check_thresholds(appear: float, gone: float) -> None:
    """Raises UsageError unless 0 < `gone` <= `appear` <= 1."""
    if not 0 < gone <= appear <= 1:
        raise UsageError(f"a class appears at {appear} and is gone below {gone}", hint="0 < gone <= appear <= 1")
