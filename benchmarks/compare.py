"""edge-mnv2 beside its peers: the same clip, the same network, in one run, one after the other.

    python benchmarks/compare.py CLIP IMAGE [--photos DIR] [--rounds 5] [--frames 400] [--envs DIR] [--json FILE]
                                 [--chart FILE.svg]
    python benchmarks/compare.py --show FILE.json... [--chart FILE.svg]

Every peer lives in a virtual environment of its own below `--envs` (made at the first run, with pip), so that its start
and its size are those of somebody who installs just that. A round runs each peer once with one thread on one core and
once with two threads on two; the order is turned by one from round to round. A figure is the median of the rounds. The
ratios compare a peer with edge-mnv2 round by round, so that a drift of the machine hits both alike.

A frame rate is worth nothing without its answers. With `--photos` (JPEGs and a `labels.csv` with the columns `file` and
`class_index`), each row says how many photos it names rightly, and on how many its best class is the one that LiteRT's
loop names with the same integers. Integer kernels depend on the processor: without dot products (VNNI) some
add in 16 bits, which saturate. So the processor's vector instructions stand above the table.

"edge-mnv2, chosen" has every runtime installed and takes the one that won the contest on this machine. "A worker a
thread" and "a stream a thread" classify as many frames at once as there are threads (`--workers`), each with one.

Figures belong to a processor: `--json FILE` keeps a report with the processor's name, `--show FILE.json...` prints the
tables of those that are kept in `benchmarks/results`.

Models: what reads `.tflite` gets edge-mnv2's default model, or, where it cannot (MediaPipe takes no int8 output),
Google's `mobilenet_v2_1.0_224_quant`, for which edge-mnv2 and LiteRT run a second time; what reads ONNX gets the export
of the same network (`edge-mnv2 build --format onnx`), int8 (QDQ) and float.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compare_report import accuracy, chart, summary, table
from compared import CHOSEN, CHOSEN_WORKERS, PEERS, TABLE, Peer, files, prepare
from process import on_cores


def measured(command: list[str], cores: set[int]) -> tuple[dict[str, Any], float, float, float]:
    """(the JSON that it prints, wall seconds, CPU seconds, peak resident megabytes)."""
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            on_cores(cores, command),
            stdout=out,
            stderr=subprocess.DEVNULL,
            cwd=PEERS,
            env={**os.environ, "PYTHONPATH": ""},
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    # MediaPipe's destructor fails at the end; what counts is the answer.
    if not text.strip():
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode} and no answer")
    return json.loads(text), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6


def one(peer: Peer, python: Path, model: str, clip: str, threads: int, frames: int, cores: set[int]) -> dict[str, Any]:
    """One measurement: frames a second, milliseconds in the classifier, CPU milliseconds a frame, peak memory."""
    if peer.module is not None:
        command = [str(python), "loop.py", peer.module, model, clip, str(threads), str(frames)]
        answer, _, _, peak = measured(command, cores)
        return {
            "fps": answer["fps"],
            "p50_ms": answer["classify_ms"]["p50"],
            "p95_ms": answer["classify_ms"]["p95"],
            "cpu_ms": answer["cpu_ms_per_frame"],
            "peak_mb": peak,
        }
    run = [str(python), "-m", "edge_mnv2", "-q", "run", "--source", clip, "--every-frame", "--loop", "--json"]
    runtime = "auto" if peer.name.startswith(CHOSEN) else "litert"
    workers = threads if peer.name == CHOSEN_WORKERS else 1
    run += ["--threads", str(threads // workers), "--workers", str(workers)]
    run += ["--model", model, "--delegate", "none", "--runtime", runtime, "--max-frames"]
    _, _, start_cpu, _ = measured([*run, "1"], cores)
    summary, _, cpu, peak = measured([*run, str(frames)], cores)
    stages = summary["stages_ms"]
    return {
        "fps": summary["fps"],
        "p50_ms": sum(stages[stage]["p50"] for stage in ("preprocess", "inference", "postprocess")),
        "p95_ms": sum(stages[stage]["p95"] for stage in ("preprocess", "inference", "postprocess")),
        "cpu_ms": 1e3 * (cpu - start_cpu) / (frames - 1),
        "peak_mb": peak,
    }


def start_up(peer: Peer, python: Path, model: str, image: str, cores: set[int]) -> tuple[float, float]:
    """(wall, CPU) seconds from the start of a new process to its end, one picture classified."""
    if peer.module is not None:
        command = [str(python), "loop.py", peer.module, model, "--once", image]
    else:
        command = [str(python), "-m", "edge_mnv2", "classify", image, "--model", model, "--json"]
    _, wall, cpu, _ = measured(command, cores)
    return wall, cpu


def contest(python: Path, model: str, threads: int) -> None:
    """Find out which runtime is fastest, as the first `run` does beside its frames."""
    code = "import sys; from pathlib import Path; from edge_mnv2.runtime.contest import Contest; "
    code += "print(Contest(Path(sys.argv[1])).run(int(sys.argv[2])))"
    told = subprocess.run([str(python), "-c", code, model, str(threads)], stdout=subprocess.PIPE, text=True, cwd=PEERS)
    print(f"{CHOSEN}, {threads}: {told.stdout.strip()}", file=sys.stderr)


def best_rows(peer: Peer, python: Path, model: str, photos: Path, cores: set[int]) -> dict[str, int]:
    """The row of the best class of every photo."""
    if peer.module is not None:
        answer, _, _, _ = measured([str(python), "loop.py", peer.module, model, "--photos", str(photos)], cores)
        return dict(answer["rows"])
    command = [
        str(python),
        "-m",
        "edge_mnv2",
        "-q",
        "classify",
        str(photos),
        "--model",
        model,
        "--top-k",
        "1",
        "--json",
    ]
    if not peer.name.startswith(CHOSEN):
        command += ["--runtime", "litert"]
    results = measured(command, cores)[0]["results"]
    return {Path(one["file"]).name: one["top"][0]["index"] for one in results if "top" in one}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", nargs="?")
    parser.add_argument("image", nargs="?")
    parser.add_argument("--show", type=Path, nargs="+", help="print the tables of reports that --json has written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "edge-mnv2" / "benchmarks")
    parser.add_argument("--only", help="peers whose name holds one of these words, with commas")
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs with labels.csv, for the accuracy of each row")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--files", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.show:
        reports = [json.loads(path.read_text()) for path in options.show]
        print("\n\n".join(map(table, reports)))
        if options.chart:
            chart(reports[0], options.chart)
        return
    if options.image is None:
        parser.error("CLIP and IMAGE, or --show FILE.json...")
    clip, image = str(Path(options.clip).resolve()), str(Path(options.image).resolve())
    options.envs.mkdir(parents=True, exist_ok=True)
    if options.files:
        print(json.dumps(files(options.envs)))
        return
    words = options.only.split(",") if options.only else [""]
    wanted = [peer for peer in TABLE if any(word.lower() in peer.name.lower() for word in words)]
    pythons: dict[str, Path] = {}
    for peer in wanted:
        try:
            pythons[peer.name] = prepare(peer, options.envs)
        except subprocess.CalledProcessError:
            print(f"{peer.name} cannot be installed here", file=sys.stderr)
    # In a process of its own: a child's peak memory counts from that of the process that starts it.
    command = [sys.executable, str(Path(__file__).resolve()), clip, image, "--envs", str(options.envs), "--files"]
    models = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    peers = [peer for peer in wanted if peer.name in pythons and peer.model in models]
    usable = sorted(os.sched_getaffinity(0))
    settings = [(1, set(usable[:1]))] + ([(2, set(usable[:2]))] if len(usable) > 1 else [])
    for threads, _ in settings:
        for peer in (peer for peer in peers if peer.name == CHOSEN):
            contest(pythons[peer.name], models[peer.model], threads)
    rounds: dict[str, dict[str, list[dict[str, Any]]]] = {peer.name: {} for peer in peers}
    failed: dict[str, str] = {}
    for number in range(options.rounds):
        turn = number % len(peers)
        for threads, cores in settings:
            for peer in peers[turn:] + peers[:turn]:
                if peer.name in failed:
                    continue
                python, model = pythons[peer.name], models[peer.model]
                try:
                    got = one(peer, python, model, clip, threads, options.frames, cores)
                    wall, cpu = start_up(peer, python, model, image, cores)
                except RuntimeError as error:
                    failed[peer.name] = str(error)
                    print(error, file=sys.stderr)
                    continue
                got.update(start_s=wall, start_cpu_s=cpu)
                rounds[peer.name].setdefault(str(threads), []).append(got)
                print(f"round {number + 1} {peer.name}, {threads}: {got['fps']:.0f} FPS", file=sys.stderr)
    report = summary(peers, rounds, pythons, failed)
    if options.photos:
        answers = {
            peer.name: best_rows(
                peer, pythons[peer.name], models[peer.model], options.photos.resolve(), set(usable[:1])
            )
            for peer in peers
            if peer.name not in failed
        }
        right = accuracy(answers, peers, options.photos)
        for row in report["rows"]:
            row.update({key: round(value, 3) for key, value in right.get(row["peer"], {}).items()})
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.chart:
        chart(report, options.chart)
    print(table(report))


if __name__ == "__main__":
    main()
