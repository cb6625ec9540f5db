"""edge-mnv2 beside its peers: the same clip, the same network, in one run, one after the other.

    python benchmarks/compare.py CLIP IMAGE [--photos DIR] [--rounds 5] [--frames 400] [--envs DIR] [--json FILE]
                                 [--chart FILE.svg]

Every peer lives in a virtual environment of its own below `--envs` (made at the first run, with pip), so that its start
and its size are those of somebody who installs just that. A round runs each peer once with one thread on one core and
once with two threads on two; the order is turned by one from round to round. A figure is the median of the rounds. The
ratios compare a peer with edge-mnv2 round by round, so that a drift of the machine hits both alike.

A frame rate is worth nothing without its answers. With `--photos` (JPEGs and a `labels.csv` with the columns `file` and
`class_index`), each row says how many photos it names rightly, and on how many its best class is the one that LiteRT's
loop names with the same integers. Integer kernels depend on the processor: without dot products (VNNI) some
add in 16 bits, which saturate. So the processor's vector instructions stand above the table.

"edge-mnv2, chosen" has every runtime installed and takes the one that won the contest on this machine.

Models: what reads `.tflite` gets edge-mnv2's default model, or, where it cannot (MediaPipe takes no int8 output),
Google's `mobilenet_v2_1.0_224_quant`, for which edge-mnv2 and LiteRT run a second time; what reads ONNX gets the export
of the same network (`edge-mnv2 build --format onnx`), int8 (QDQ) and float.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from process import on_cores

PEERS = Path(__file__).resolve().parent / "peers"
OURS = "edge-mnv2"
CHOSEN = f"{OURS}, chosen"
REFERENCE = "LiteRT loop"
_COMMON = ("numpy", "opencv-python-headless")


@dataclass(frozen=True)
class Peer:
    """`module` is the adapter in `peers/`, None for ourselves; `model` a key of the files that the run prepares."""

    name: str
    environment: str
    requirements: tuple[str, ...]
    module: Optional[str]
    model: str


ROOT = str(PEERS.parent.parent)
TABLE = (
    Peer(OURS, OURS, (ROOT,), None, "ours"),
    Peer("LiteRT loop", "litert", ("ai-edge-litert", *_COMMON), "litert", "ours"),
    Peer("tflite-runtime loop", "tflite-runtime", ("tflite-runtime", "numpy<2", "opencv-python-headless<4.12"),
         "tflite_runtime_loop", "ours"),
    Peer(CHOSEN, "edge-mnv2-all", (f"{ROOT}[onnx,openvino]",), None, "ours"),
    Peer("OpenVINO, .tflite", "openvino", ("openvino", *_COMMON), "open_vino", "ours"),
    Peer("OpenVINO, int8", "openvino", ("openvino", *_COMMON), "open_vino", "onnx int8"),
    Peer("ONNX Runtime, int8", "onnxruntime", ("onnxruntime", *_COMMON), "onnx_runtime", "onnx int8"),
    Peer("ONNX Runtime, float", "onnxruntime", ("onnxruntime", *_COMMON), "onnx_runtime", "onnx float"),
    Peer("OpenVINO, float", "openvino", ("openvino", *_COMMON), "open_vino", "onnx float"),
    Peer("OpenCV DNN, float", "opencv", _COMMON, "opencv_dnn", "onnx plain"),
    Peer("ncnn, float", "ncnn", ("ncnn", *_COMMON), "ncnn_net", "ncnn"),
    Peer(f"{OURS} (quant)", OURS, (ROOT,), None, "quant"),
    Peer("LiteRT loop (quant)", "litert", ("ai-edge-litert", *_COMMON), "litert", "quant"),
    Peer("MediaPipe Tasks (quant)", "mediapipe", ("mediapipe", *_COMMON), "mediapipe_tasks", "quant"),
)  # fmt: skip


def prepare(peer: Peer, folder: Path) -> Path:
    """The peer's interpreter; its environment is made where it is not there yet."""
    home = folder / peer.environment
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        print(f"installing {peer.environment}: {' '.join(peer.requirements)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *peer.requirements], check=True)
        (home / "ready").touch()
    return python


def installed_mb(python: Path) -> float:
    """What the packages take on the disk, pip itself left out, in megabytes."""
    total = 0
    for path in (python.parent.parent / "lib").rglob("*"):
        outside = not {"pip", "setuptools", "wheel", "__pycache__"} & set(path.parts)
        if outside and path.is_file() and not path.is_symlink():
            total += path.stat().st_size
    return round(total / 1e6, 1)


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
    runtime = "auto" if peer.name == CHOSEN else "litert"
    run += ["--model", model, "--delegate", "none", "--threads", str(threads), "--runtime", runtime, "--max-frames"]
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
    if peer.name != CHOSEN:
        command += ["--runtime", "litert"]
    results = measured(command, cores)[0]["results"]
    return {Path(one["file"]).name: one["top"][0]["index"] for one in results if "top" in one}


def accuracy(rows: dict[str, dict[str, int]], peers: list[Peer], photos: Path) -> dict[str, dict[str, float]]:
    """Of each peer: `top1` of the photos, and `same`, how often it names what LiteRT names."""
    with (photos / "labels.csv").open(newline="") as handle:
        truth = {row["file"]: int(row["class_index"]) for row in csv.DictReader(handle)}
    found = {}
    for peer in (peer for peer in peers if peer.name in rows):
        # Google's models have a background row first.
        shift = 1 if peer.model == "quant" else 0
        mine = {name: row - shift for name, row in rows[peer.name].items() if name in truth}
        found[peer.name] = {"top1": sum(row == truth[name] for name, row in mine.items()) / max(1, len(mine))}
        reference = rows.get(f"{REFERENCE} (quant)" if shift else REFERENCE)
        if reference:
            same = sum(row + shift == reference.get(name) for name, row in mine.items())
            found[peer.name]["same"] = same / max(1, len(mine))
    return found


def files(folder: Path) -> dict[str, str]:
    """The network in every format that a peer reads; what cannot be had here is left out."""
    from edge_mnv2.errors import EdgeMnv2Error
    from edge_mnv2.zoo.pull import fetch
    from edge_mnv2.zoo.resolve import resolve

    found = {"ours": str(resolve("mobilenet_v2_1.0_224_int8").path)}
    try:
        found["quant"] = str(fetch("mobilenet_v2_1.0_224_quant"))
    except EdgeMnv2Error as error:
        data = os.environ.get("EDGE_MNV2_TEST_DATA")
        beside = Path(data, "models", "mobilenet_v2_1.0_224_quant.tflite") if data else None
        if beside is not None and beside.exists():
            found["quant"] = str(beside)
        else:
            print(f"without Google's quant model: {error}", file=sys.stderr)
    for name, options in (("onnx int8", []), ("onnx float", ["--float"])):
        path = folder / f"{name.replace(' ', '_')}.onnx"
        command = [sys.executable, "-m", "edge_mnv2", "-q", "build", "--format", "onnx", *options, "--out", str(path)]
        if path.exists() or subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0:
            found[name] = str(path)
    if "onnx float" in found:
        plain(found, folder)
    return found


def plain(found: dict[str, str], folder: Path) -> None:
    """The float network without the picture's way into it, for what wants normalized channels-first floats."""
    import onnx.utils

    path = folder / "plain.onnx"
    if not path.exists():
        onnx.utils.extract_model(found["onnx float"], str(path), ["input"], ["logits"])
    found["onnx plain"] = str(path)
    converter = Peer("pnnx", "pnnx", ("pnnx", "torch==2.13.0"), None, "")
    if not (folder / "plain.ncnn.bin").exists():
        try:
            pnnx = prepare(converter, folder).with_name("pnnx")
            arguments = [str(pnnx), str(path), "inputshape=[1,3,224,224]"]
            subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"without ncnn: {error}", file=sys.stderr)
            return
    found["ncnn"] = str(folder / "plain.ncnn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "edge-mnv2" / "benchmarks")
    parser.add_argument("--only", help="peers whose name holds one of these words, with commas")
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs with labels.csv, for the accuracy of each row")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--files", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
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


def summary(peers: list[Peer], rounds: Any, pythons: dict[str, Path], failed: dict[str, str]) -> dict[str, Any]:
    rows = []
    for peer in peers:
        ours = f"{OURS} (quant)" if peer.model == "quant" else OURS
        for threads, got in rounds[peer.name].items():
            row: dict[str, Any] = {"peer": peer.name, "model": peer.model, "threads": int(threads)}
            for key in got[0]:
                row[key] = round(statistics.median(each[key] for each in got), 3)
            beside = rounds.get(ours, {}).get(threads, [])
            for key in ("fps", "start_s"):
                ratios = [mine[key] / theirs[key] for mine, theirs in zip(beside, got)]
                row[f"ours_to_theirs_{key}"] = round(statistics.median(ratios), 2) if ratios else None
            row["installed_mb"] = installed_mb(pythons[peer.name])
            rows.append(row)
    return {"machine": machine(), "rows": rows, "failed": failed}


def machine() -> dict[str, Any]:
    from edge_mnv2.board.cpus import processor

    cpu = processor()
    cores = len(os.sched_getaffinity(0))
    return {"cpu": cpu.name, "vector": list(cpu.vector), "cores": cores, "python": platform.python_version()}


def table(report: dict[str, Any]) -> str:
    head = ["peer", "threads", "FPS", "ms a frame p50 (p95)", "CPU ms", "peak MB", "start s", "installed MB"]
    head += ["edge-mnv2's FPS", "top-1", "as LiteRT"]
    there = report["machine"]
    lines = [f"{there['cpu']}: {', '.join(there['vector'])}; {there['cores']} cores", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in report["rows"]:
        ratio = row["ours_to_theirs_fps"]
        cells = [
            row["peer"],
            str(row["threads"]),
            f"{row['fps']:.0f}",
            f"{row['p50_ms']:.2f} ({row['p95_ms']:.2f})",
            f"{row['cpu_ms']:.2f}",
            f"{row['peak_mb']:.0f}",
            f"{row['start_s']:.2f}",
            f"{row['installed_mb']:.0f}",
            "" if ratio is None else f"{ratio:.2f}x",
            *(f"{row[key]:.3f}" if key in row else "" for key in ("top1", "same")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [f"\n{name} failed: {why}" for name, why in report["failed"].items()]
    return "\n".join(lines)


def chart(report: dict[str, Any], path: Path) -> None:
    import pygal

    names = list(dict.fromkeys(row["peer"] for row in report["rows"]))
    drawn = pygal.HorizontalBar(
        title=f"Frames a second, 720p clip, {report['machine']['cpu']}", print_values=True, legend_at_bottom=True,
        js=(), height=120 + 50 * len(names), value_formatter=lambda value: f"{value:.0f}",
    )  # fmt: skip
    drawn.x_labels = names[::-1]
    for threads in sorted({row["threads"] for row in report["rows"]}):
        by_name = {row["peer"]: row["fps"] for row in report["rows"] if row["threads"] == threads}
        drawn.add(f"{threads} thread{'s' if threads > 1 else ''}", [by_name.get(name) for name in names[::-1]])
    drawn.render_to_file(str(path))


if __name__ == "__main__":
    main()
