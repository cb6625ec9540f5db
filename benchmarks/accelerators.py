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
import shutil
import tempfile
from pathlib import Path
from typing import Optional

import numpy as np

from edge_mnv2.builder.compilers import CompileRequest, compile_model
from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.runtime.classifier import Classifier

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
        document = compile_model(CompileRequest(f"rknn:{chip}", str(local), out=out, images=images, simulator=True))
        recipe = out.with_suffix(".simulator.npz")
        for mode in modes:
            content = dict(np.load(recipe))
            content["quantization"] = np.array(mode)
            np.savez(recipe, **content)
            with Classifier.open(out, runtime="rknn") as npu:
                agreement = float((answers(npu, photos) == wanted).mean())
            layers, memory = document["operators"], document["memory"]
            print(
                f"| {model.name} | {mode} | {agreement:.2f} | {layers['accelerator']} of {layers['total']} | "
                f"{memory['weights_bytes'] / 1e6:.2f} + {memory['activations_bytes'] / 1e6:.2f} MB | "
                f"{document['estimate']['cycles'] / 1e6:.2f} M |",
                flush=True,
            )
            if agreement >= ENOUGH:
                break


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("target", choices=("rknn",))
    options.add_argument("photos", type=Path)
    options.add_argument("models", type=Path, nargs="+")
    options.add_argument("--modes", default="normal,kl_divergence,hybrid,fp16")
    options.add_argument("--chip", default="rk3588")
    options.add_argument("--images", type=Path)
    options.add_argument("--count", type=int, default=100)
    given = options.parse_args()
    photos = list_stills(given.photos)[: given.count]
    print(f"{len(photos)} photographs")
    print("| model | mode | agreement | layers on the NPU | memory | cycles |")
    print("|---|---|---|---|---|---|")
    for model in given.models:
        rknn(model, photos, given.modes.split(","), given.chip, given.images)


if __name__ == "__main__":
    main()
