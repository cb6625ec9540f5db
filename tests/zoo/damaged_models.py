"""`python -m tests.zoo.damaged_models FIRST LAST RUNTIME LOG [MODEL...]`: classify with damaged models in turn.

Runs in a child process of `test_damaged_models`, because what it looks for would end the process.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.runtime.classifier import Classifier
from tests.runtime import brought
from tests.stubs import colour_model
from tests.zoo.mutations import Damager


def bases(paths: list[str]) -> list[bytes]:
    stubs = [colour_model(dtype) for dtype in ("uint8", "int8", "float32")] + [colour_model("int8", softmax=False)]
    packed = brought.metadata((127.5,), (127.5,), ["a.txt"]), brought.archive(a_txt="red\ngreen\nblue")
    stubs += [wrapped().softmax().write(*packed) for wrapped in brought.FLOAT_INSIDE.values()]
    stubs += [brought.quantized("uint8", 1 / 200, 3).body().add("LOGISTIC").write(*packed)]
    return stubs + [Path(path).read_bytes() for path in paths]


def damager_of(runtime: str, paths: list[str]) -> Damager:
    if runtime != "onnxruntime":
        return Damager(bases(paths))
    from tests.runtime.test_onnx_runtime import BROUGHT

    models = [content for content, _ in BROUGHT.values()]
    # Everything but the constants holds such a small file together.
    return Damager(models, [range(len(model)) for model in models])


def main(first: int, last: int, runtime: str, log: str, paths: list[str]) -> None:
    damager = damager_of(runtime, paths)
    pixels = np.zeros((32, 32, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder, open(log, "a", buffering=1) as lines:
        path = Path(folder, "model.onnx" if runtime == "onnxruntime" else "model.tflite")
        for number in range(first, last):
            kind, content = damager.damaged(number)
            path.write_bytes(content)
            lines.write(f"{number}\t{kind}\tbegins\n")
            try:
                with Classifier.open(path, runtime=runtime) as classifier:
                    classifier.scores(pixels)
                outcome = "runs"
            except EdgeMnv2Error as error:
                single = "\n" not in str(error) and str(error).isprintable()
                # 2: the file leaves something open that people can say.
                right = error.exit_code in (2, 3) and single
                outcome = "refused" if right else f"WRONG {error.exit_code} {error!r}"
            except Exception as error:
                outcome = f"WRONG {error!r}"
            lines.write(f"{number}\t{kind}\t{outcome}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:])
