"""The peers of `compare.py`: what is installed for each, and the network in the format that it reads."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

PEERS = Path(__file__).resolve().parent / "peers"
OURS = "edge-mnv2"
CHOSEN = f"{OURS}, chosen"
CHOSEN_WORKERS = f"{CHOSEN}, a worker a thread"
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
    Peer(CHOSEN_WORKERS, "edge-mnv2-all", (f"{ROOT}[onnx,openvino]",), None, "ours"),
    Peer("OpenVINO, .tflite", "openvino", ("openvino", *_COMMON), "open_vino", "ours"),
    Peer("OpenVINO, int8", "openvino", ("openvino", *_COMMON), "open_vino", "onnx int8"),
    Peer("OpenVINO, int8, a stream a thread", "openvino", ("openvino", *_COMMON), "open_vino_streams", "onnx int8"),
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
