"""`PYTHON tests/builder/written_by_tools.py OUT`: weights of MobileNetV2 as each installed tool writes them.

For a Python that has torchvision, timm, lightning, transformers or Keras (with the torch backend); what is missing is
passed over. OUT/answers.npz has each tool's own logits (key: the file), OUT/FILE.pictures.npy the pictures. Nothing of
this package is imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

os.environ["KERAS_BACKEND"] = "torch"
OUT = Path(sys.argv[1])
ANSWERS: dict[str, np.ndarray] = {}
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)


def note(name: str, logits: Any, pictures: np.ndarray = PICTURES) -> None:
    ANSWERS[name] = np.asarray(logits)
    np.save(OUT / f"{name}.pictures.npy", pictures)


def with_torch() -> None:
    import torch

    for operator in ("nms", "qnms"):  # torchvision's compiled operators may be of another torch: none is used here
        try:
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou) -> Tensor")
        except RuntimeError:
            break
    import torchvision

    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    batch = torch.from_numpy(((PICTURES.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))

    def put(name: str, value: Any, module: Any, **more: Any) -> None:
        torch.save(value, OUT / name, **more)
        with torch.no_grad():
            note(name, module.eval()(batch).numpy())

    network = torchvision.models.mobilenet_v2(num_classes=5).eval()
    put("state.pth", network.state_dict(), network)
    put("whole.pth", network, network)
    put("legacy.pth", network, network, _use_new_zipfile_serialization=False)
    put("parallel.pth", {"net": torch.nn.DataParallel(network)}, network)
    averaged = torch.optim.swa_utils.AveragedModel(network)
    put("averaged.pth", averaged.state_dict(), averaged)
    torch.jit.script(network).save(str(OUT / "script.pt"))
    note("script.pt", ANSWERS["state.pth"])
    with_timm(put)
    with_lightning(network, batch)
    with_transformers()


def with_timm(put: Any) -> None:
    try:
        import timm
    except ImportError:
        return
    for width in ("050", "100", "140"):
        network = timm.create_model(f"mobilenetv2_{width}", num_classes=5).eval()
        put(f"timm{width}.pth.tar", {"arch": f"mobilenetv2_{width}", "state_dict": network.state_dict()}, network)


def with_lightning(network: Any, batch: Any) -> None:
    try:
        import lightning
        import torch
    except ImportError:
        return

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network
            self.loss = torch.nn.CrossEntropyLoss(weight=torch.ones(5))

        def training_step(self, pair: Any, _: int) -> Any:
            return self.loss(self.model(pair[0]), pair[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 1e-5)

    module = Module()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(batch, torch.tensor([0, 1])), batch_size=2)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_steps=1, **quiet)
    trainer.fit(module, loader)
    trainer.save_checkpoint(OUT / "lightning.ckpt")
    with torch.no_grad():
        note("lightning.ckpt", module.model.eval()(batch).numpy())


def with_transformers() -> None:
    try:
        import torch
        import transformers
    except ImportError:
        return
    config = transformers.MobileNetV2Config(num_labels=5, depth_multiplier=0.35)
    network = transformers.MobileNetV2ForImageClassification(config).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    network.save_pretrained(OUT / "transformers")
    (OUT / "transformers" / "model.safetensors").replace(OUT / "transformers.safetensors")
    batch = torch.from_numpy((PICTURES.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2))
    with torch.no_grad():
        note("transformers.safetensors", network(batch).logits.numpy())


def with_keras() -> None:
    import keras

    pictures = PICTURES[:, :64, :64]
    for kind in ("plain", "rescaling", "deep"):
        base = keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, include_top=False)
        image = keras.Input((64, 64, 3))
        x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image) if kind == "rescaling" else image
        x = keras.layers.GlobalAveragePooling2D()(base(x))
        if kind == "deep":
            x = keras.layers.Dense(16, activation="relu")(keras.layers.BatchNormalization()(x))
        model = keras.Model(image, keras.layers.Dense(5)(x))
        chance = np.random.RandomState(1)
        model.set_weights([
            chance.uniform(0.5, 1.5, one.shape) if one.ndim == 1 else chance.standard_normal(one.shape) * 0.1
            for one in model.get_weights()
        ])  # fmt: skip
        batch = pictures.astype(np.float32)
        logits = np.asarray(model.predict(batch if kind == "rescaling" else batch / 127.5 - 1, verbose=0))
        for suffix in (".h5", ".keras"):
            model.save(OUT / f"{kind}{suffix}")
            note(f"{kind}{suffix}", logits, pictures)


for tool in (with_torch, with_keras):
    try:
        tool()
    except ImportError as error:
        print(f"{tool.__name__}: {error}", file=sys.stderr)
np.savez(OUT / "answers.npz", **ANSWERS)
