"""The server's thread: its own event loop, so that no viewer can hold the frames up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

from aiohttp import web

from edge_mnv2.addresses import remember_secrets, show_on_purpose
from edge_mnv2.errors import UsageError
from edge_mnv2.messages import unfiltered
from edge_mnv2.outputs.live import Live
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.outputs.web.address import Access, Address, Network, check_token, own_token
from edge_mnv2.outputs.web.guard import Connections, Guard, affordable_connections
from edge_mnv2.outputs.web.pages import Pages
from edge_mnv2.pipeline.decision import Event
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.result import Result

log = logging.getLogger(__name__)

_requests = logging.getLogger(f"{__name__}.requests")
"""What aiohttp says about requests that it cannot read: no visitor shall fill our log."""

_IDLE_S = 30.0
_AT_ONCE, _WAITING = 8, 128
_STOP_S = 3.0
_NEXT_PORTS = 20
_THREADS = 3


class WebServer:
    """Serves `live` at `address` from a thread of its own until `close`. Raises UsageError where it cannot listen.

    As an output of a run it keeps `live` up to date.
    """

    name = "web page"

    def __init__(
        self,
        live: Live,
        address: Address,
        token: Optional[str] = None,
        proxies: Sequence[Network] = (),
        *,
        next_ports: int = 0,
    ) -> None:
        self.live = live
        self.say_when_attached: Optional[Callable[[], None]] = None
        self._listener = address.listen(next_ports)
        self.port: int = self._listener.getsockname()[1]
        self.url = address.url(self.port)
        self._access = Access(token, self.port, proxies)
        self._pages: Optional[Pages] = None
        self._connections = Connections(affordable_connections(), self._access.is_proxy)
        self._loop = asyncio.new_event_loop()
        # Each thread has memory of its own: few of them, so that what is freed is used again.
        self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="web-work"))
        self._ended: Optional[asyncio.Event] = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="web", daemon=True)
        self._thread.start()
        self._ready.wait(10)

    @property
    def viewers(self) -> int:
        """How many visitors have the page open."""
        return self._pages.states.followers if self._pages is not None else 0

    def attach(self, _loop: FrameLoop) -> None:
        """`live` knows the loop already."""
        say, self.say_when_attached = self.say_when_attached, None
        if say is not None:
            say()

    def write(self, result: Result) -> None:
        self.live.write(result)

    def announce(self, events: Sequence[Event]) -> None:
        self.live.announce(events)

    def close(self) -> None:
        """Stop serving and drop every viewer. Safe to call twice."""
        if self._thread.is_alive():
            if self._ended is not None:
                self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(_STOP_S)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            log.warning("web page: %s: %s", type(error).__name__, error)
        finally:
            self._ready.set()
            self._listener.close()
            self._loop.close()

    async def _serve(self) -> None:
        _requests.setLevel(logging.NOTSET if log.isEnabledFor(logging.DEBUG) else logging.CRITICAL)
        pages = self._pages = Pages(self.live, self._access)
        runner = web.AppRunner(
            pages.application(),
            access_log=None,
            logger=_requests,
            handler_cancellation=True,
            keepalive_timeout=_IDLE_S,
            lingering_time=1.0,
            shutdown_timeout=1.0,
            max_line_size=4096,
            max_field_size=8190,
        )
        await runner.setup()
        assert runner.server is not None
        # No visitor shall fill our log; and one turn of the loop takes few connections, so that the limit holds.
        self._loop.set_exception_handler(lambda _loop, context: log.debug("web: %s", context.get("message")))
        application = runner.server
        server = await self._loop.create_server(
            lambda: Guard(application(), self._connections), sock=self._listener, backlog=_AT_ONCE
        )
        self._listener.listen(_WAITING)
        self._ended = asyncio.Event()
        watch = self._loop.create_task(pages.keep_watch())
        self._ready.set()
        await self._ended.wait()
        await pages.end()
        watch.cancel()
        server.close()
        self._connections.abort_all()
        pages.close()
        await runner.cleanup()


def open_output(values: OutputValues, live: Live) -> WebServer:
    """The page. Raises UsageError: wrong address, in use, weak token.

    One that other machines can reach asks for a token: without it and `--web-open`, one is made and shown.
    """
    address, token, everyone = values["web"], values["web-token"], values["web-open"]
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
    terminal = sys.stderr.isatty()
    # A service, and whoever reads the page at its address, count on the port that was named.
    server = WebServer(live, address, token, values["web-behind"] or (), next_ports=_NEXT_PORTS if terminal else 0)
    live.page = server.url if exposed else None
    page = f"{server.url}?token={token}" if made else server.url

    def say() -> None:
        log.info("web page: %s", page)
        if terminal and log.isEnabledFor(logging.INFO):
            # Not where its blocks would be written as \u2588, and it is no reason to end where the terminal is gone.
            with contextlib.suppress(OSError, UnicodeError, LookupError):
                "█▀▄".encode(sys.stderr.encoding or "ascii")
                unfiltered(sys.stderr).write(qr_code(page))
        if not exposed and terminal:
            log.info("for this machine only; --web 0.0.0.0 lets a phone in, with a token in the code")
        if made:
            log.info("whoever has this address can see the camera and control it; --web-token sets another token")
        elif exposed:
            who = "whoever has the token" if token else "everyone who can reach this machine"
            log.info("%s can see the camera and control it", who)

    if terminal and live.waits_for_source:
        # Nobody shall scan the way to a page of a run that cannot begin.
        server.say_when_attached = say
    else:
        say()
    return server


def qr_code(text: str) -> str:
    """`text` as a QR code for a terminal: two rows of modules a line, black on white whatever the colours there."""
    import segno

    rows = [list(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=2)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    blocks = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}
    lines = ("".join(blocks[int(up), int(low)] for up, low in zip(*pair)) for pair in zip(rows[::2], rows[1::2]))
    return "".join(f"\x1b[30;107m{line}\x1b[0m\n" for line in lines)
