"""Every output of `run`, one row each: its options, packages, and what a service must let it touch.

`run --help`, variables, the hints about missing packages, the service's sandbox and secrets, and the table in
`docs/outputs.md` follow from a row. A new output is one file with a function `open_output` and one row here; an
installed package brings its own row as an entry point:

    [project.entry-points."edge_mnv2.outputs"]
    conveyor = "my_package:OUTPUT"
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.installed import blamed, rows_of_packages
from edge_mnv2.settings.kinds import Bytes, Flag, Kind, ReadBy, Text, Whole
from edge_mnv2.settings.option import COMMAND_LINE, Option, Value, always, has_password
from edge_mnv2.settings.schema import OPTIONS

log = logging.getLogger(__name__)

GROUP = "edge_mnv2.outputs"


@dataclass(frozen=True, eq=False)
class Output:
    """A row. The first of its `options` switches the output on.

    `module` has `open_output(values, live)`, which returns a `Sink` or a list of them, or, where `in_loop` is set, a
    `LoopOutput`: it is called in the loop's own thread and must return at once. `packages` are what it imports; where
    `extra` is empty, every installation has them. `purpose` and `example` are its row in the documentation.

    `pictures`: it uses whole pictures. `lossless`: with `--every-frame` the loop waits for it. `stdout`: it may write
    results there. For a service: `network`; `listens` (the switch's value has a `port`); `groups` that own its devices;
    `devices` as systemd's DeviceAllow= has them; `desktop`: it belongs to a graphical session, whose sockets and
    drivers cannot be listed.
    """

    name: str
    module: str
    options: tuple[Option, ...]
    purpose: str
    example: str
    extra: str = ""
    packages: tuple[str, ...] = ()
    in_loop: bool = False
    pictures: bool = False
    lossless: bool = False
    stdout: bool = False
    network: bool = False
    listens: bool = False
    groups: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    desktop: bool = False

    @property
    def switch(self) -> Option:
        return self.options[0]

    def open(self, values: OutputValues, live: Any) -> list[Any]:
        """The output, opened. Raises UsageError: a package is missing, or what `open_output` refuses."""
        from edge_mnv2.installed import need

        # First the module: it may have to say something to a package before that is imported.
        with blamed(self, TABLE, UsageError):
            module = importlib.import_module(self.module)
            for package in self.packages:
                need(package, self.extra, f"--{self.switch.name}")
            opened = module.open_output(values, live)
        return opened if isinstance(opened, list) else [opened]


class OutputValues:
    """Where results shall go: the values of the outputs' options by name, and which outputs they switch on.

    `every_frame`: nothing is live, and the loop may wait. `status`: a status line on stderr. `take_stdout`: what is
    printed meanwhile goes to stderr.
    """

    def __init__(
        self,
        values: Optional[Mapping[str, Value]] = None,
        *,
        every_frame: bool = False,
        status: bool = True,
        take_stdout: bool = True,
    ) -> None:
        self._values = values or {}
        self.every_frame = every_frame
        self.status = status
        self.take_stdout = take_stdout

    def __getitem__(self, name: str) -> Any:
        value = self._values.get(name)
        return value.value if value is not None else None

    def origin(self, name: str) -> str:
        """Where a value came from: "command line", "environment" or "default"."""
        return self._values[name].origin

    def changed(self, name: str, value: Any) -> OutputValues:
        """With another value of an option, which nobody chose."""
        return OutputValues(
            {**self._values, name: Value(value)},
            every_frame=self.every_frame,
            status=self.status,
            take_stdout=self.take_stdout,
        )

    def without(self) -> OutputValues:
        """No output at all."""
        return OutputValues(every_frame=self.every_frame, status=self.status, take_stdout=self.take_stdout)

    @functools.cached_property
    def outputs(self) -> list[Output]:
        """The outputs that are switched on, in the order of the table."""
        return [row for row in rows() if self[row.switch.name] not in (None, False, ())] if self._values else []

    @property
    def pictures(self) -> bool:
        """Whether an output that somebody chose shows or keeps pictures."""
        return any(row.pictures and self._values[row.switch.name].said for row in self.outputs)

    def check(self) -> None:
        """Raises UsageError for an option of an output that is not switched on, where somebody typed it."""
        served = {option.name for row in self.outputs for option in row.options}
        for row in rows():
            for option in row.options:
                value = self._values.get(option.name)
                if value is not None and value.origin == COMMAND_LINE and option.name not in served:
                    switches = [f"--{each.switch.name}" for each in rows() if option in each.options]
                    raise UsageError(f"--{option.name} needs {' or '.join(switches)}", hint=f"such as {row.example}")


def default(name: str) -> Any:
    """The default of an option of an output of ours."""
    return next(option.default for row in TABLE for option in row.options if option.name == name)


def _option(name: str, help: str, kind: Kind, panel: str = "Outputs", **more: Any) -> Option:
    return Option(name, kind, help, panel=panel, **more)


_MIN_FREE = _option("min-free", "Room to leave on a disk; without it 2 %, 50 MB at most.", Bytes())

WEB = Output(
    "web",
    "edge_mnv2.outputs.web.server",
    (
        _option(
            "web",
            "Serve a live page; other machines are let in with HOST, such as 0.0.0.0.",
            ReadBy("edge_mnv2.outputs.web.address:parse", "[HOST:]PORT"),
            "Page",
            alone="8080",
        ),
        _option("web-token", "What the page asks its visitors for.", Text(metavar="TOKEN"), "Page", secret=always),
        _option("web-open", "Let everyone who can reach it see and control.", Flag(), "Page", default=False),
        _option(
            "web-behind",
            "The proxies before it, whose word about visitors counts.",
            ReadBy("edge_mnv2.outputs.web.address:parse_proxies", "ADDRESS,..."),
            "Page",
        ),
    ),
    "to see it on a phone or another computer",
    "--web 0.0.0.0:8080",
    packages=("aiohttp", "prometheus_client"),
    in_loop=True,
    pictures=True,
    network=True,
    listens=True,
)

TABLE: tuple[Output, ...] = (
    WEB,
    Output(
        "log",
        "edge_mnv2.outputs.log_file",
        (
            _option(
                "log",
                "Write results: FILE.jsonl, FILE.csv, or - for stdout.",
                Text("a path", metavar="FILE|-"),
                path="file",
            ),
            _option(
                "log-every",
                "Log every Nth result, or one in S seconds.",
                ReadBy("edge_mnv2.outputs.log_file:Every.parse", "N|Ss"),
            ),
            _option(
                "log-rotate", "Begin a new log at a size or an age: 10MB, 1d or 10MB,1d.", Text(metavar="SIZE|AGE")
            ),
            _option("log-keep", "How many old logs stay.", Whole(1, 1000), default=5),
            _MIN_FREE,
        ),
        "lines in a file",
        "--log results.jsonl",
        stdout=True,
    ),
    Output(
        "record",
        "edge_mnv2.outputs.record",
        (
            _option(
                "record",
                "Record an annotated video that plays even after a power cut.",
                Text("a path", metavar="FILE.mp4"),
                path="file",
            ),
            _MIN_FREE,
        ),
        "a video",
        "--record run.mp4",
        extra="record",
        packages=("av",),
        pictures=True,
        lossless=True,
    ),
    Output(
        "snapshots",
        "edge_mnv2.outputs.snapshots",
        (
            _option(
                "snapshots", "Save a picture of each class that appears.", Text("a path", metavar="DIR"), path="folder"
            ),
            _option("snapshots-quota", "Delete the oldest pictures above this.", Bytes(), default=200_000_000),
            _MIN_FREE,
        ),
        "pictures of what appeared",
        "--snapshots DIR",
        pictures=True,
    ),
    Output(
        "collect",
        "edge_mnv2.outputs.collect",
        (
            _option(
                "collect",
                "Keep pictures that are worth an answer, to review and teach.",
                Text("a path", metavar="DIR"),
                path="folder",
            ),
            _option("collect-quota", "Above this the least valuable pictures go.", Bytes(), default=200_000_000),
        ),
        "pictures to answer and teach",
        "--collect DIR",
        pictures=True,
    ),
    Output(
        "window",
        "edge_mnv2.outputs.window",
        (_option("window", "Show a window; keys: q quit, s save, p pause, f full screen.", Flag(), default=False),),
        "to see it on the board's screen",
        "--window",
        extra="window",
        packages=("pygame",),
        in_loop=True,
        pictures=True,
        groups=("render", "input"),
        desktop=True,
    ),
    Output(
        "mqtt",
        "edge_mnv2.outputs.mqtt",
        (
            _option(
                "mqtt",
                "Publish state and events: mqtt[s]://USER:PASSWORD@HOST:PORT/TOPIC.",
                ReadBy("edge_mnv2.outputs.mqtt_client:parse", "URL"),
                secret=has_password,
            ),
        ),
        "Home Assistant, Node-RED, anything with MQTT",
        "--mqtt mqtt://USER:PASSWORD@HOST/TOPIC",
        packages=("paho.mqtt.client",),
        network=True,
    ),
    Output(
        "webhook",
        "edge_mnv2.outputs.webhook",
        (_option("webhook", "POST each event to this address.", Text(metavar="URL"), secret=always),),
        "a web service called",
        "--webhook URL",
        network=True,
    ),
    Output(
        "gpio",
        "edge_mnv2.outputs.gpio",
        (
            _option(
                "gpio",
                "Hold pins high while a class is present: 17=tabby,27; '!17=tabby' is active-low.",
                Text(metavar="[!]PIN[=CLASS],..."),
            ),
        ),
        "a lamp or a relay",
        "--gpio 17=tabby,27",
        extra="gpio",
        packages=("gpiozero",),
        groups=("gpio",),
        devices=("char-gpiochip", "/dev/gpiomem"),
    ),
    Output(
        "sink",
        "edge_mnv2.outputs.sink",
        (
            _option(
                "sink",
                "An output of an installed package; may be repeated.",
                Text(metavar="NAME[=ARGUMENT]"),
                repeated=True,
                secret=has_password,
            ),
        ),
        "something of your own",
        "--sink NAME",
        pictures=True,
        network=True,
    ),
)


def rows() -> tuple[Output, ...]:
    """The outputs of this package and those of installed packages."""
    return (*TABLE, *_without_twins(rows_of_packages(GROUP, Output)))


@functools.lru_cache(maxsize=4)
def _without_twins(offered: tuple[tuple[str, Output], ...]) -> list[Output]:
    """A row with an option that there is already is said and left out."""
    known = {option.name for row in TABLE for option in row.options} | set(OPTIONS)
    installed = []
    for name, row in offered:
        names = {option.name for option in row.options}
        if twins := names & known:
            log.warning("%s of an installed package is left out: --%s is an option already", name, min(twins))
            continue
        known |= names
        installed.append(row)
    return installed
