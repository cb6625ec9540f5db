"""Every output that a run was asked for: opened before the model is loaded, so that a wrong one is told at once."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from edge_mnv2.addresses import remember_secrets, show_on_purpose
from edge_mnv2.camera.frame import FrameSource
from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.disk import parse_bytes
from edge_mnv2.outputs.live import DeviceUse, Facts, Live
from edge_mnv2.outputs.log_file import DEFAULT_KEEP, Every, LogFile, Rotation
from edge_mnv2.outputs.notify import ServiceNotice
from edge_mnv2.outputs.sink import DRAIN_S, Isolated, Sink
from edge_mnv2.outputs.status import Describe, status_for
from edge_mnv2.pipeline.frame_loop import FrameLoop

if TYPE_CHECKING:
    from edge_mnv2.outputs.snapshots import SnapshotSink
    from edge_mnv2.outputs.web.server import WebServer
    from edge_mnv2.outputs.window import Window

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutputRequest:
    """Where results shall go, as the command line says it."""

    log: Optional[str] = None
    log_every: Optional[str] = None
    log_rotate: Optional[str] = None
    log_keep: int = DEFAULT_KEEP
    min_free: Optional[str] = None
    show_status: bool = True
    take_stdout: bool = True
    record: Optional[str] = None
    snapshots: Optional[str] = None
    snapshots_quota: Optional[str] = None
    every_frame: bool = False
    mqtt: Optional[str] = None
    webhook: Optional[str] = None
    gpio: Optional[str] = None
    sinks: Sequence[str] = ()
    window: bool = False
    web: Optional[str] = None
    web_token: Optional[str] = None
    web_open: bool = False


class Outputs:
    """The outputs of one run. A context manager: entering opens them and raises UsageError, leaving closes them.

    Meanwhile `print` goes to stderr.
    """

    def __init__(self, request: OutputRequest) -> None:
        self._request = request
        self._every = Every.parse(request.log_every)
        self._rotation = Rotation.parse(request.log_rotate, request.log_keep) if request.log_rotate else None
        self._least_free = parse_bytes("--min-free", request.min_free) if request.min_free else None
        self._stack = contextlib.ExitStack()
        self._isolated: list[Isolated] = []
        self._log: Optional[Isolated] = None
        self._web: Optional[WebServer] = None
        self._window: Optional[Window] = None
        self._notice: Optional[ServiceNotice] = None
        self.live = Live()

    @property
    def want_pictures(self) -> bool:
        """Whether an output shows or keeps pictures (a plug-in may)."""
        request = self._request
        return any((request.record, request.snapshots, request.window, request.web, request.sinks))

    @property
    def errors(self) -> int:
        """Results that an output has lost."""
        return sum(output.errors for output in self._isolated)

    def __enter__(self) -> Outputs:
        request = self._request
        with contextlib.ExitStack() as stack:
            self._notice = ServiceNotice.from_environment()
            if request.web is not None:
                self._web = open_web(self.live, request.web, request.web_token, request.web_open)
                stack.callback(self._web.close)
            log_file = LogFile(request.log, self._every, self._rotation, self._least_free) if request.log else None
            # Stdout is for results; what a plug-in or a library prints would stand between them.
            if request.take_stdout:
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            stack.callback(self._close_sinks)
            if log_file is not None:
                self._log = self._isolate(log_file)
            if request.record:
                from edge_mnv2.outputs.record import RecordSink

                record = RecordSink(request.record, every_frame=request.every_frame, least_free=self._least_free)
                # With every frame nothing is live, and the loop may wait for the video.
                self._isolate(record, lossless=request.every_frame)
            if request.snapshots:
                self.live.snapshots = self._snapshots()
                self._isolate(self.live.snapshots)
            if request.window:
                from edge_mnv2.outputs.window import Window

                self._window = Window(self.live.snapshots)
                stack.callback(self._window.close)
            for sink in _event_sinks(request, self.live):
                self._isolate(sink)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _isolate(self, sink: Sink, *, lossless: bool = False) -> Isolated:
        self._isolated.append(Isolated(sink, lossless=lossless))
        return self._isolated[-1]

    def _snapshots(self) -> SnapshotSink:
        from edge_mnv2.outputs.snapshots import DEFAULT_QUOTA, SnapshotSink

        request = self._request
        assert request.snapshots
        quota = parse_bytes("--snapshots-quota", request.snapshots_quota) if request.snapshots_quota else DEFAULT_QUOTA
        return SnapshotSink(request.snapshots, quota, self._least_free)

    def _close_sinks(self) -> None:
        """All at once: a stop shall not wait for one after the other."""
        for output in self._isolated:
            output.end()
        deadline = time.monotonic() + DRAIN_S
        for output in self._isolated:
            output.close(deadline)

    def attach(
        self,
        loop: FrameLoop,
        facts: Facts,
        source: FrameSource,
        describe: Describe,
        engines: DeviceUse,
        labels: Sequence[str],
    ) -> None:
        """Give the results of `loop`, which reads `source`, to every output; `describe` makes the status line.

        Raises UsageError where an output names a class that is none of `labels`.
        """
        if self._log is not None:
            self._log.closed_by_reader_calls(loop.stop)
        for output in self._isolated:
            output.begin(facts, labels)
            loop.add_sink(output)
        self.live.attach(
            loop,
            facts,
            source_state=lambda: source.state,
            reconnects=lambda: source.reconnects,
            write_errors=lambda: self.errors,
            engines=engines,
        )
        if self._web is not None:
            loop.add_sink(self.live)
        if self._window is not None:
            self._window.attach(loop)
            loop.add_sink(self._window)
        if self._notice is not None:
            # Last in, first out: that we are stopping is said before the outputs are given time to end.
            self._stack.callback(self._notice.close)
            self._notice.begin(describe, lambda: loop.controls.paused)
            loop.add_sink(self._notice)
        elif self._request.show_status:
            status = status_for(describe)
            self._stack.callback(status.close)
            loop.add_sink(status)


def _event_sinks(request: OutputRequest, live: Live) -> Iterator[Sink]:
    """Sinks for events and states, each imported only where it is asked for."""
    if request.mqtt:
        from edge_mnv2.outputs.mqtt import MqttSink
        from edge_mnv2.outputs.mqtt_client import parse as parse_mqtt

        yield MqttSink(parse_mqtt(request.mqtt), live)
    if request.webhook:
        from edge_mnv2.outputs.webhook import WebhookSink

        yield WebhookSink(request.webhook)
    if request.gpio:
        from edge_mnv2.outputs.gpio import GpioSink

        yield GpioSink(request.gpio)
    for name in request.sinks:
        from edge_mnv2.outputs.packages import open_sink

        yield open_sink(name)


def open_web(live: Live, place: str, token: Optional[str], everyone: bool, behind: Optional[str] = None) -> WebServer:
    """The web page at `place`. Raises UsageError: wrong address, in use, weak token, package missing.

    One that other machines can reach asks for a token: without `token` and `everyone`, one that is made and shown.
    """
    from edge_mnv2.outputs.packages import need
    from edge_mnv2.outputs.web.address import check_token, own_token, parse, parse_proxies

    address, proxies = parse(place), parse_proxies(behind) if behind else []
    if token is not None and everyone:
        raise UsageError("--web-token and --web-open exclude each other", hint="give one of them")
    exposed = not address.loopback
    made = exposed and token is None and not everyone
    if made:
        token = own_token()
        show_on_purpose(token)
    elif token is not None:
        check_token(token)
        remember_secrets([token], whole=True)
    need("aiohttp", "web", "--web")
    need("prometheus_client", "web", "--web")
    from edge_mnv2.outputs.web.server import WebServer

    server = WebServer(live, address, token, proxies)
    log.info("web page: %s%s", server.url, f"?token={token}" if made else "")
    if made:
        log.info("whoever has this address can see the camera and control it; --web-token sets another token")
    elif exposed:
        who = "whoever has the token" if token else "everyone who can reach this machine"
        log.info("%s can see the camera and control it", who)
    return server
