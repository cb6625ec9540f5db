"""A profile's keys: one dataclass a section, each field with its default, its kind and what it is for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from edge_mnv2.errors import UsageError
from edge_mnv2.settings.kinds import Choice, Flag, Kind, Names, Number, Or, Region, Setting, Source, Text, Whole


@dataclass(frozen=True)
class Key:
    """One setting: its dotted name, kind, default, the command line's option of the same meaning, and what it does."""

    name: str
    kind: Kind
    default: Any
    option: Optional[str]
    doc: str


def _key(default: Any, kind: Kind, doc: str, option: Optional[str] = None) -> Any:
    return field(default=default, metadata={"kind": kind, "doc": doc, "option": option})


@dataclass(frozen=True)
class Camera:
    """Where frames come from and how they are taken. None leaves a value to the source."""

    source: Optional[str] = _key(None, Source(), "what `run` opens when it is given no source", "source")
    backend: Optional[str] = _key(
        None, Or(Choice(("opencv", "picamera2", "gstreamer")), "auto"), "which library opens the camera"
    )
    width: Optional[int] = _key(None, Or(Whole(16, 16384), "auto"), "width to ask the camera for, pixels", "size")
    height: Optional[int] = _key(None, Or(Whole(16, 16384), "auto"), "height to ask the camera for, pixels", "size")
    fps: Optional[float] = _key(None, Or(Number(0.01, 100_000), "auto"), "frame rate to ask the camera for", "fps")
    format: Optional[str] = _key(
        None, Or(Text("a FourCC such as MJPG or YUYV", r"[A-Za-z0-9]{4}"), "auto"), "pixel format to ask for"
    )
    rotate: int = _key(0, Choice((0, 90, 180, 270)), "degrees clockwise that frames are turned by", "rotate")
    flip: Optional[str] = _key(None, Or(Choice(("h", "v", "hv")), "none"), "mirror left-right, top-bottom", "flip")
    roi: Optional[tuple[float, float, float, float]] = _key(
        None, Or(Region(), "none"), "the part of the frame that is classified", "roi"
    )
    warmup_frames: Optional[int] = _key(
        None, Or(Whole(0, 10_000), "auto"), "first frames to drop while the exposure settles"
    )
    stall_s: Optional[float] = _key(
        None, Or(Number(0.1, 3600), "auto"), "seconds without a frame after which a camera is opened again"
    )
    frozen_s: float = _key(5.0, Number(0, 86_400), "the same for seconds of equal frames, 0 = never")
    controls: dict[str, Any] = field(
        default_factory=dict,
        metadata={"kind": Setting(), "doc": "the camera's own controls, by its driver's names", "option": None},
    )

    def asked(self) -> dict[str, Any]:
        """Everything but `source`, as keyword arguments of a camera's settings."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "source"}


@dataclass(frozen=True)
class Preprocess:
    """From a frame to the model's input."""

    resize: str = _key(
        "crop", Choice(("crop", "stretch", "letterbox")), "how a frame becomes the model's square", "resize"
    )


@dataclass(frozen=True)
class Runtime:
    """What runs the model."""

    backend: str = _key(
        "auto", Choice(("auto", "litert", "tflite-runtime", "onnxruntime")), "which interpreter package", "runtime"
    )
    delegate: str = _key(
        "auto",
        Text(
            "auto, none or edgetpu[:N|:usb[:N]|:pci[:N]]",
            r"auto|none|edgetpu(:[0-9]{1,3}|:usb(:[0-9]{1,3})?|:pci(:[0-9]{1,3})?)?",
        ),
        "what accelerates it",
        "delegate",
    )
    threads: Union[int, str] = _key("auto", Whole(1, 256, ("auto",)), "threads of one interpreter", "threads")
    workers: Union[int, str] = _key("auto", Whole(1, 64, ("auto",)), "interpreters side by side", "workers")
    model: Optional[str] = _key(
        None, Or(Text("a model's name or path"), "default"), "model to run, by name or path", "model"
    )


@dataclass(frozen=True)
class Output:
    """What is made of the scores."""

    top_k: int = _key(5, Whole(1, 100000), "labels a result carries", "top-k")
    threshold: float = _key(0.0, Number(0, 1), "scores below it are not reported", "threshold")
    smooth: float = _key(0.0, Number(0, 1, below=True), "share of the past in the smoothed scores, 0 = off", "smooth")
    gate: bool = _key(False, Flag(), "skip inference while nothing moves", "gate")
    gate_change: float = _key(4.0, Number(0, 255, "levels of 0 to 255", above=True), "what counts as moving")
    gate_refresh_s: float = _key(1.0, Number(0, 3600, "seconds", above=True), "the longest that scores are used again")
    appear: float = _key(0.5, Number(0, 1, above=True), "a class appears when its score reaches it", "appear")
    gone: Optional[float] = _key(
        None, Or(Number(0, 1, above=True), "auto"), "and is gone when it stays below this; auto: 0.7 of appear", "gone"
    )
    consecutive: int = _key(3, Whole(1, 10_000), "in so many results one after the other", "consecutive")
    allow: Optional[tuple[str, ...]] = _key(
        None, Or(Names("a class or a list of classes"), "all"), "the only classes that are reported", "allow"
    )
    deny: Optional[tuple[str, ...]] = _key(
        None, Or(Names("a class or a list of classes"), "none"), "classes that are never reported", "deny"
    )


@dataclass(frozen=True)
class Health:
    """Limits whose crossing is said out loud."""

    max_temp_c: Optional[float] = _key(
        None, Or(Number(20, 150, "degrees Celsius"), "none"), "SoC temperature not to exceed"
    )
    min_fps: Optional[float] = _key(
        None, Or(Number(0, 1000, "frames a second", above=True), "none"), "least frame rate to accept"
    )
    on_limit: str = _key("warn", Choice(("warn", "slow")), "when too hot: warn only, or lower the frame rate as well")


@dataclass(frozen=True)
class Expected:
    """A published figure for this board and MobileNetV2 1.0/224, model only."""

    inference_ms: Optional[float] = _key(None, Number(0, 100000, "ms", above=True), "time of one inference")
    inference_ms_32bit: Optional[float] = _key(
        None, Number(0, 100000, "ms", above=True), "the same on a 32-bit operating system"
    )
    precision: str = _key("int8", Choice(("int8", "float32")), "precision of the model that was measured")
    delegate: str = _key("none", Choice(("none", "edgetpu")), "accelerator that it was measured with")
    source: Optional[str] = _key(None, Text(), "who published it, and how it was measured")


SECTIONS: dict[str, type] = {
    "camera": Camera,
    "preprocess": Preprocess,
    "runtime": Runtime,
    "output": Output,
    "health": Health,
    "expected": Expected,
}


def _keys() -> dict[str, Key]:
    keys = {}
    for section, cls in SECTIONS.items():
        for item in dataclasses.fields(cls):
            name = f"{section}.{item.name}"
            default = {} if item.default is dataclasses.MISSING else item.default
            keys[name] = Key(name, item.metadata["kind"], default, item.metadata["option"], item.metadata["doc"])
    return keys


KEYS: dict[str, Key] = _keys()
"""Every setting by its dotted name ("runtime.threads")."""

HEADERS: dict[str, dict[str, Optional[Kind]]] = {
    "match": {"model": Names(), "compatible": Names()},
    "board": {"model": Text(), "serial": Text("a board's hash, 16 hexadecimal digits", r"[0-9a-f]{16}")},
    "saved": {
        "date": Text("a date such as 2026-11-25T10:00:00Z", r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z?)?"),
        "goal": Choice(("latency", "throughput", "power")),
        "versions": None,
        "figures": None,
    },
}
"""Sections about the profile itself, not inherited. None: any names with plain values."""


def check_thresholds(appear: float, gone: float) -> None:
    """Raises UsageError unless 0 < `gone` <= `appear` <= 1."""
    if not 0 < gone <= appear <= 1:
        raise UsageError(f"a class appears at {appear} and is gone below {gone}", hint="0 < gone <= appear <= 1")
