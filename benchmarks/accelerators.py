"""What is left of a model's answers on other makers' accelerators, by the makers' own simulators, without hardware.

    python benchmarks/accelerators.py rknn PHOTOS MODEL.tflite... [--modes normal,kl_divergence] [--chip rk3588]
    python benchmarks/accelerators.py imx500 PHOTOS MODEL.tflite

Agreement is the share of photographs with the same best class as the int8 model on the CPU. rknn: the first of the
modes that reaches 0.95 ends a model's rows. imx500: with PHOTOS/labels.csv accuracy too, of the quantized network and
of the float one. --images: pictures to choose the integers by, instead of those that ship. The toolkits are found as
`edge-mnv2 compile` finds them (docs/accelerators.md).
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.builder.compile_source import read_source
from edge_mnv2.builder.compilers import CompileRequest, compile_model
from edge_mnv2.builder.imx500_compile import TOOLKIT, quantize_in_toolkit
from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.preprocess import Preprocessor

ENOUGH = 0.95


def answers(classifier: Classifier, photos: list[Path]) -> np.ndarray:
    return np.array([int(np.argmax(classifier.scores(read_still(photo)))) for photo in photos])


def rknn(model: Path, photos: list[Path], modes: list[str], chip: str, images: Optional[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, model.name)
        shutil.copy(model, local)
        with Classifier.open(local) as cpu:
            wanted = answers(cpu, photos)
        out = local.with_name(f"{local.stem}_{chip}.rknn")
        for mode in modes:
            target, given = f"rknn:{chip}", str(local)
            asked = CompileRequest(target, given, out=out, images=images, quantization=mode, simulator=True)
            said = " | ".join(_report(compile_model(asked)))
            with Classifier.open(out, runtime="rknn") as npu:
                agreement = float((answers(npu, photos) == wanted).mean())
            print(f"| {model.name} | {mode} | {agreement:.2f} | {said} |", flush=True)
            if agreement >= ENOUGH:
                break


def _report(document: dict[str, Any]) -> list[str]:
    layers, memory = document["operators"], document["memory"]
    sizes = [f"{memory[name] / 1e6:.2f}" for name in ("weights_bytes", "activations_bytes")]
    cycles = f"{document['estimate']['cycles'] / 1e6:.2f} M"
    return [f"{layers['accelerator']} of {layers['total']}", f"{' + '.join(sizes)} MB", cycles]


def imx500(model: Path, photos: list[Path], images: Optional[Path]) -> None:
    import onnxruntime

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = read_source(CompileRequest("imx500", str(model), images=images), print)
        with Classifier.open(model) as cpu:
            wanted, fit = answers(cpu, photos), Preprocessor(*cpu.input_size)
        pictures = np.stack([fit.to_rgb(read_still(photo)).copy() for photo in photos])
        np.save(folder / "photos.npy", pictures)
        np.save(folder / "pictures.npy", source.pictures)
        (folder / "float.onnx").write_bytes(source.onnx)
        order = {"folder": name, "mean": source.mean, "std": source.std, "embedding": False}
        python, tool = TOOLKIT.find()
        TOOLKIT.run(python, f"{quantize_in_toolkit.__module__}:{quantize_in_toolkit.__name__}", order, folder / "log")
        quantized = np.load(folder / "answers.npy").argmax(1)
        session = onnxruntime.InferenceSession(source.onnx, providers=["CPUExecutionProvider"])
        real = ((pictures - np.array(source.mean)) / np.array(source.std)).astype(np.float32).transpose(0, 3, 1, 2)
        floats = np.array([session.run(None, {"image": one[None]})[0].argmax() for one in real])
        with (photos[0].parent / "labels.csv").open() as table:
            classes = {row["file"]: int(row["class_index"]) for row in csv.DictReader(table)}
        truth = np.array([classes[photo.name] for photo in photos])
        shown = [f"{float((one == truth).mean()):.3f}" for one in (floats, wanted, quantized)]
        agreement = float((quantized == wanted).mean())
        print(f"| {model.name} | {len(source.pictures)} | {' | '.join(shown)} | {agreement:.3f} | {tool} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("target", choices=("rknn", "imx500"))
    options.add_argument("photos", type=Path)
    options.add_argument("models", type=Path, nargs="+")
    options.add_argument("--modes", default="normal,kl_divergence,hybrid,fp16")
    options.add_argument("--chip", default="rk3588")
    options.add_argument("--images", type=Path)
    options.add_argument("--count", type=int, default=100)
    given = options.parse_args()
    photos = list_stills(given.photos)[: given.count]
    print(f"{len(photos)} photographs")
    if given.target == "imx500":
        print("| model | pictures | top-1 in floats | int8 on the CPU | quantized | agreement | tool |")
        print("|---|---|---|---|---|---|---|")
    else:
        print("| model | mode | agreement | layers on the NPU | memory | cycles |")
        print("|---|---|---|---|---|---|")
    for model in given.models:
        if given.target == "imx500":
            imx500(model, photos, given.images)
        else:
            rknn(model, photos, given.modes.split(","), given.chip, given.images)


if __name__ == "__main__":
    main()
