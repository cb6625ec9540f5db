"""`edge-mnv2 compile --target imx500`: Sony's model-compression-toolkit and imx500-converter, for the Pi AI Camera.

The first quantizes a PyTorch module and writes the only kind of ONNX that the second takes. The result is the packed
file, which `imx500-package` on a Raspberry Pi makes the camera's `.rpk` of.

The camera feeds its network pixels less 128. So the first layer is rescaled to take (pixel - 128) / 128, whose integers
are just those; at the picture's edge its zeros mean grey 128, where they meant the mean pixel.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.toolkit import Toolkit

if TYPE_CHECKING:
    # The toolkit's Python has little of what these import.
    from edge_mnv2.builder.compilers import CompileRequest, Say

TOOLKIT = Toolkit(
    "imx500",
    "Sony's IMX500 toolchain",
    ("uni", "model_compression_toolkit", "torch", "torchvision", "onnx"),
    ("imx500-converter[pt]", "model-compression-toolkit", "torch==2.6.*", "torchvision==0.21.*"),
    ((3, 10), (3, 11)),
    programs=(("java", "sudo apt install openjdk-17-jre-headless"),),
)
_BATCH = 8
_CONVERTER = "imxconv-pt"


def compile_for(request: CompileRequest, say: Say) -> dict[str, Any]:
    """The JSON document of `compile`. Raises UsageError, ModelError, AcceleratorError."""
    from edge_mnv2.builder.compile_source import compilation

    with compilation(request, say, TOOLKIT, "_imx500.zip", plain_heads=True) as at:
        source = at.source
        (at.folder / "float.onnx").write_bytes(source.onnx)
        np.save(at.folder / "pictures.npy", source.pictures)
        order = {"folder": str(at.folder), "mean": source.mean, "std": source.std, "embedding": source.embedding}
        answer = at.run(f"{__name__}:compile_in_toolkit", order)
        memory = json.loads(Path(answer["report"]).read_text("utf-8"))["Memory Report"]
        if not memory["Fit In Chip"]:
            raise ModelError(
                f"{source.model.name} needs {memory['Memory Usage']} and the IMX500 has 8 MB",
                hint="a smaller width or resolution",
            )
        quantized = at.target.with_suffix(".onnx"), at.folder / "quantized.onnx"
        simulated = (quantized[0], quantized[1].read_bytes()) if request.simulator else None
        document = at.finish(Path(answer["packed"]).read_bytes(), simulated, packed=True)
    return {
        **document,
        "quantization": "8 bit, by model-compression-toolkit",
        "agreement": answer["agreement"],
        "cosine": answer["cosine"],
        "embedding": source.embedding,
        "operators": {"total": answer["operators"], "accelerator": answer["operators"], "cpu": 0},
        "memory": {
            "weights_bytes": _bytes(memory["Model Memory Physical Size"]),
            "activations_bytes": _bytes(memory["Runtime Memory Physical Size"]),
            "available_bytes": _bytes(memory["Total Memory Available On Chip"]),
        },
        "table": [],
        "next": f"on the Raspberry Pi: imx500-package -i {at.target} -o {at.target.stem}, then\n"
        f"edge-mnv2 run --camera csi --model {request.model or 'MODEL.tflite'} "
        f"--delegate imx500:{at.target.stem}/network.rpk",
    }


def _bytes(text: str) -> int:
    number = text.rstrip("BKMG")
    return round(float(number) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[len(number) :][:1], 1))


def compile_in_toolkit(order: dict[str, Any]) -> dict[str, Any]:
    """In the toolkit's Python: quantize, write `quantized.onnx`, convert. Raises what the tools raise."""
    folder = Path(order["folder"])
    answer = quantize_in_toolkit(order)
    converter = str(Path(sys.executable).with_name(_CONVERTER))
    command = [converter, "-i", str(folder / "quantized.onnx"), "-o", str(folder / "out"), "--overwrite-output"]
    subprocess.run([*command, "--no-input-persistency"], check=True)
    report = next((folder / "out").glob("*_MemoryReport.json"))
    return {**answer, "packed": str(folder / "out" / "packerOut.zip"), "report": str(report)}


def quantize_in_toolkit(order: dict[str, Any]) -> dict[str, Any]:
    """In the toolkit's Python: `float.onnx` of the `folder` as `quantized.onnx`, by its `pictures.npy`.

    The quantized network is compared with the float one on these pictures: `agreement` is the share with the same best
    class, None for an `embedding`, which has no classes; `cosine` the mean similarity of the answers; None both for a
    measured value. With `photos.npy` there, `answers.npy` are the quantized network's real outputs on them.
    """
    import model_compression_toolkit as mct  # type: ignore[import-not-found, unused-ignore]
    import onnx  # type: ignore[import-not-found, unused-ignore]
    import torch

    folder = Path(order["folder"])
    network = _module(onnx.load(str(folder / "float.onnx")), np.array(order["mean"]), np.array(order["std"]))
    pictures = np.load(folder / "pictures.npy")

    def batches(images: np.ndarray) -> Any:
        for start in range(0, len(images), _BATCH):
            values = (images[start : start + _BATCH].astype(np.float32) - 128) / 128
            yield [torch.from_numpy(values.transpose(0, 3, 1, 2).copy())]

    def answers(module: Any, images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.concatenate([module(one[0]).numpy() for one in batches(images)])

    capabilities = mct.get_target_platform_capabilities("pytorch", "imx500")
    # Its ranges are powers of two: what is cut off at 6 is rescaled to be cut off at 8, and uses all of one.
    settings = mct.core.CoreConfig(quantization_config=mct.core.QuantizationConfig(relu_bound_to_power_of_2=True))
    quantized, _ = mct.ptq.pytorch_post_training_quantization(
        network, lambda: batches(pictures), core_config=settings, target_platform_capabilities=capabilities
    )
    likeness = _likeness(answers(quantized, pictures), answers(network, pictures), classes=not order["embedding"])
    mct.exporter.pytorch_export_model(
        model=quantized,
        save_model_path=str(folder / "quantized.onnx"),
        repr_dataset=lambda: batches(pictures),
    )
    if (folder / "photos.npy").exists():
        np.save(folder / "answers.npy", answers(quantized, np.load(folder / "photos.npy")))
    return {**likeness, "operators": len(network.steps)}


def _likeness(ours: np.ndarray, real: np.ndarray, *, classes: bool) -> dict[str, Any]:
    """`agreement` and `cosine` of two (pictures, values): None for what says nothing of them."""
    if real.shape[1] == 1:
        # A measured value: it is its own best class, in any direction.
        return {"agreement": None, "cosine": None}
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(real, axis=1)
    return {
        "agreement": round(float((ours.argmax(1) == real.argmax(1)).mean()), 4) if classes else None,
        "cosine": round(float(((ours * real).sum(1) / np.maximum(lengths, 1e-12)).mean()), 4),
    }


def _module(model: Any, mean: np.ndarray, std: np.ndarray) -> Any:
    """The PyTorch module of an ONNX file of `tflite.onnx_float`, taking (pixel - 128) / 128."""
    import onnx
    import torch
    from torch import nn

    values = {one.name: onnx.numpy_helper.to_array(one).copy() for one in model.graph.initializer}

    def convolution(node: Any, options: dict[str, Any]) -> Any:
        weights = values[node.input[1]]
        bias = values[node.input[2]] if len(node.input) > 2 else np.zeros(len(weights), np.float32)
        if node.input[0] == "image":
            offset = ((128 - mean) / std)[None, :, None, None]
            bias = bias + (weights * offset).sum((1, 2, 3)).astype(np.float32)
            weights = (weights * (128 / std)[None, :, None, None]).astype(np.float32)
        pads, groups = options.get("pads", [0] * 4), options.get("group", 1)
        even = pads[:2] == pads[2:]
        layer = nn.Conv2d(
            weights.shape[1] * groups,
            len(weights),
            weights.shape[2:],
            tuple(options.get("strides", (1, 1))),
            tuple(pads[:2]) if even else 0,
            groups=groups,
        )
        layer.weight.data, layer.bias.data = torch.from_numpy(weights), torch.from_numpy(bias)
        return layer if even else nn.Sequential(nn.ZeroPad2d((pads[1], pads[3], pads[0], pads[2])), layer)

    def clip(node: Any, _options: dict[str, Any]) -> Any:
        limits = tuple(float(values[name]) for name in node.input[1:3])
        if limits != (0.0, 6.0):
            raise ValueError(f"cutting off at {limits} has no form for the IMX500 here: try --embedding")
        return nn.ReLU6()

    makers = {
        "Conv": convolution,
        "Clip": clip,
        "Relu": lambda *_: nn.ReLU(),
        "GlobalAveragePool": lambda *_: nn.AdaptiveAvgPool2d(1),
        "Softmax": lambda *_: nn.Softmax(1),
        "Reshape": lambda *_: nn.Flatten(1),
        "Transpose": lambda *_: nn.Identity(),
    }

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleDict()
            self.steps: list[tuple[str, list[str], str]] = []
            for number, node in enumerate(model.graph.node):
                name = ""
                if node.op_type != "Add":
                    if node.op_type not in makers:
                        raise ValueError(f"{node.op_type} has no form for the IMX500 here: try --embedding")
                    options = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
                    name = f"layer{number}"
                    self.layers[name] = makers[node.op_type](node, options)
                inputs = [one for one in node.input if one not in values]
                self.steps.append((name, inputs, node.output[0]))

        def forward(self, image: Any) -> Any:
            known = {"image": image}
            for name, inputs, output in self.steps:
                first = known[inputs[0]]
                known[output] = self.layers[name](first) if name else torch.add(first, known[inputs[1]])
            return known[model.graph.output[0].name]

    return Network().eval()
