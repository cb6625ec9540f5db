"""What visitors of the page cost: results per second without viewers and with twenty, five of whom read nothing.

    python benchmarks/viewers.py [--source test:640x480@30] [--viewers 20] [--stalled 5] [--seconds 10] [--rounds 5]

One run of `run --web`; phases without and with viewers alternate, so that a machine that gets slower meanwhile slows
both. A viewer takes the live picture and the events, as the page does; a stalled one asks for the picture and then
never reads. Reported: results per second of each phase from `/metrics`, the median of the pairwise ratios, CPU seconds
of the run per phase, resident memory in each phase. The viewers run on this machine too: on a board they do not, so
`--source` should leave it some idle time (a camera's rate), or the ratio says more about them than about the run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request


class Viewers:
    """Connections to the page; those that read do so in one thread each, and throw away what they get."""

    def __init__(self, port: int, count: int, stalled: int) -> None:
        self.received = 0
        self._sockets = []
        for index in range(count):
            for path in ("/stream.mjpg",) if index < stalled else ("/stream.mjpg", "/api/stream"):
                connection = socket.create_connection(("127.0.0.1", port))
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
                self._sockets.append(connection)
                if index >= stalled:
                    threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(1 << 18):
                self.received += len(data)
        except OSError:
            return

    def close(self) -> None:
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def figures(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    frames = sum(float(value) for value in re.findall(r"^edge_mnv2_frames_total\S* (\S+)$", text, re.M))
    one = {name: float(value) for name, value in re.findall(r"^(process_\w+) (\S+)$", text, re.M)}
    viewers = float(re.search(r"^edge_mnv2_web_viewers (\S+)$", text, re.M)[1])  # type: ignore[index]
    return {
        "frames": frames,
        "at": time.monotonic(),
        "cpu_s": one["process_cpu_seconds_total"],
        "rss_mb": one["process_resident_memory_bytes"] / 1e6,
        "viewers": viewers,
    }


def phase(port: int, seconds: float) -> dict[str, float]:
    time.sleep(1.0)
    before = figures(port)
    time.sleep(seconds)
    after = figures(port)
    took = after["at"] - before["at"]
    return {
        "fps": (after["frames"] - before["frames"]) / took,
        "cpu": (after["cpu_s"] - before["cpu_s"]) / took,
        "rss_mb": after["rss_mb"],
        "viewers": after["viewers"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", default="test:640x480@30")
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--stalled", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    command = [sys.executable, "-m", "edge_mnv2", "run", "--source", options.source, "--web", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        port = next(
            int(found[1]) for line in process.stderr if (found := re.search(r"web page: http://\S+:(\d+)/", line))
        )
        threading.Thread(target=process.stderr.read, daemon=True).start()
        os.nice(5)
        phase(port, 2)
        ratios = []
        print(f"{'':8}{'FPS':>8}{'CPUs':>8}{'RSS MB':>8}{'viewers':>9}")
        for _ in range(options.rounds):
            alone = phase(port, options.seconds)
            viewers = Viewers(port, options.viewers, options.stalled)
            watched = phase(port, options.seconds)
            received = viewers.received / 1e6
            viewers.close()
            for name, one in (("alone", alone), ("watched", watched)):
                print(f"{name:8}{one['fps']:8.2f}{one['cpu']:8.2f}{one['rss_mb']:8.0f}{one['viewers']:9.0f}")
            print(f"{'':8}ratio {watched['fps'] / alone['fps']:.3f}, {received:.0f} MB received")
            ratios.append(watched["fps"] / alone["fps"])
        print(f"median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    main()
