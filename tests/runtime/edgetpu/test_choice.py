"""Which model runs where, as a table over what is asked for, what is attached and what is on the machine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Optional

import pytest

from edge_mnv2.errors import AcceleratorError, DownloadError, EdgeMnv2Error, ModelError
from edge_mnv2.runtime.delegate import parse
from edge_mnv2.runtime.edgetpu import choice
from edge_mnv2.runtime.edgetpu.choice import DEFAULT_COMPILED, Twin, Zoo, choose, worth_trying
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import Resolved
from tests.runtime.edgetpu import trees

TWINS = {"cat": "cat_edgetpu", "dog": "dog_edgetpu", DEFAULT_COMPILED[: -len("_edgetpu")]: DEFAULT_COMPILED}
COMPILED = {*TWINS.values(), "lone_edgetpu"}
TPU_DEFAULT_CPU = DEFAULT_COMPILED[: -len("_edgetpu")]


class Shelf:
    """Models of which `here` are on the machine and `online` could be pulled."""

    def __init__(self, here: str, online: str = "") -> None:
        self.here = {DEFAULT_MODEL, *here.split()}
        self.online = set(online.split())
        self.fetched: list[str] = []

    def resolve(self, request: str) -> Resolved:
        if request not in self.here:
            raise ModelError(f"{request} has not been downloaded", hint=f"edge-mnv2 pull {request}")
        return Resolved(request, Path(request), "", None, None)

    def compiled(self, model: Resolved) -> bool:
        return model.name in COMPILED

    def twin(self, model: Resolved) -> Twin:
        both = {**TWINS, **{tpu: cpu for cpu, tpu in TWINS.items()}}
        name = both.get(model.name)
        return Twin(name, self.resolve(name) if name in self.here else None) if name else Twin()

    def fetch(self, name: str) -> Resolved:
        self.fetched.append(name)
        if name not in self.online:
            raise DownloadError(f"{name} cannot be fetched")
        self.here.add(name)
        return self.resolve(name)


@pytest.mark.parametrize(
    ("request_name", "delegate", "attached", "here", "online", "tpu", "cpu", "says"),
    [
        # No accelerator in play: the CPU, without a word.
        (None, "none", False, "", "", None, DEFAULT_MODEL, []),
        (None, "none", True, "", "", None, DEFAULT_MODEL, []),
        (None, "auto", False, "", "", None, DEFAULT_MODEL, []),
        ("cat", "none", True, "cat cat_edgetpu", "", None, "cat", []),
        ("cat", "auto", False, "cat cat_edgetpu", "", None, "cat", []),
        # auto with a TPU: what is there is used, nothing is downloaded.
        (None, "auto", True, f"{DEFAULT_COMPILED} {TPU_DEFAULT_CPU}", "", DEFAULT_COMPILED, TPU_DEFAULT_CPU,
         ["the default one is not compiled"]),
        (None, "auto", True, DEFAULT_COMPILED, TPU_DEFAULT_CPU, DEFAULT_COMPILED, None,
         ["the default one is not compiled", f"no CPU model to go on with.*edge-mnv2 pull {TPU_DEFAULT_CPU}"]),
        (None, "auto", True, "", DEFAULT_COMPILED, None, DEFAULT_MODEL, [f"edge-mnv2 pull {DEFAULT_COMPILED}"]),
        ("cat", "auto", True, "cat cat_edgetpu", "", "cat_edgetpu", "cat", ["cat_edgetpu runs .* in place of cat"]),
        ("cat", "auto", True, "cat", "cat_edgetpu", None, "cat", ["edge-mnv2 pull cat_edgetpu"]),
        ("owl", "auto", True, "owl", "", None, "owl", ["owl stays on the CPU: it has no twin"]),
        ("cat_edgetpu", "auto", True, "cat cat_edgetpu", "", "cat_edgetpu", "cat", []),
        ("cat_edgetpu", "auto", True, "cat_edgetpu", "cat", "cat_edgetpu", None, ["edge-mnv2 pull cat"]),
        ("lone_edgetpu", "auto", True, "lone_edgetpu", "", "lone_edgetpu", None, ["put its CPU twin beside it"]),
        # A compiled model without a TPU: its CPU twin, said once.
        ("cat_edgetpu", "auto", False, "cat cat_edgetpu", "", None, "cat", ["its CPU twin cat is used"]),
        ("cat_edgetpu", "none", True, "cat cat_edgetpu", "", None, "cat", ["twin cat is used.*--delegate none"]),
        ("cat_edgetpu", "auto", False, "cat_edgetpu", "cat", None, None, "ModelError: edge-mnv2 pull cat"),
        ("lone_edgetpu", "none", False, "lone_edgetpu", "", None, None, "ModelError: cannot run on a CPU"),
        # edgetpu asked for: what is missing is pulled, and an error is exit 5.
        (None, "edgetpu", False, f"{DEFAULT_COMPILED} {TPU_DEFAULT_CPU}", "", DEFAULT_COMPILED, TPU_DEFAULT_CPU,
         ["the default one is not compiled"]),
        (None, "edgetpu:usb:1", False, "", f"{DEFAULT_COMPILED} {TPU_DEFAULT_CPU}", DEFAULT_COMPILED, TPU_DEFAULT_CPU,
         ["the default one is not compiled"]),
        (None, "edgetpu", True, "", "", None, None, f"AcceleratorError: edge-mnv2 pull {DEFAULT_COMPILED}"),
        ("cat", "edgetpu", False, "cat", "cat_edgetpu", "cat_edgetpu", "cat", ["in place of cat"]),
        ("cat", "edgetpu", False, "cat", "", None, None, "AcceleratorError: edge-mnv2 pull cat_edgetpu"),
        ("owl", "edgetpu", True, "owl", "", None, None, f"AcceleratorError: --model {DEFAULT_COMPILED}"),
        ("cat_edgetpu", "edgetpu", False, "cat_edgetpu", "cat", "cat_edgetpu", "cat", []),
        ("cat_edgetpu", "edgetpu", False, "cat_edgetpu", "", "cat_edgetpu", None, ["edge-mnv2 pull cat"]),
        ("fox", "edgetpu", False, "", "", None, None, "ModelError: edge-mnv2 pull fox"),
        ("fox", "auto", True, "", "", None, None, "ModelError: edge-mnv2 pull fox"),
    ],
)  # fmt: skip
def test_the_choice(
    request_name: Optional[str],
    delegate: str,
    attached: bool,
    here: str,
    online: str,
    tpu: Optional[str],
    cpu: Optional[str],
    says: object,
) -> None:
    shelf = Shelf(here, online)
    if isinstance(says, str):
        kind, _, text = says.partition(": ")
        with pytest.raises(EdgeMnv2Error) as caught:
            choose(request_name, parse(delegate), attached, shelf)
        assert type(caught.value).__name__ == kind
        assert text in str(caught.value)
        assert caught.value.exit_code == {"ModelError": 3, "AcceleratorError": 5}[kind]
    else:
        assert isinstance(says, list)
        plan = choose(request_name, parse(delegate), attached, shelf)
        assert (plan.tpu.name if plan.tpu else None, plan.cpu.name if plan.cpu else None) == (tpu, cpu)
        assert plan.model.name == (tpu or cpu)
        assert len(plan.notes) == len(says)
        for note, text in zip(plan.notes, says):
            assert re.search(text, note), note
    if not delegate.startswith("edgetpu"):
        assert shelf.fetched == []


def test_who_wants_to_end_with_the_tpu_needs_no_twin() -> None:
    shelf = Shelf(f"{DEFAULT_COMPILED} cat cat_edgetpu", TPU_DEFAULT_CPU)
    for request in (None, "cat", "cat_edgetpu"):
        plan = choose(request, parse("edgetpu"), True, shelf, fall_back=False)
        assert plan.cpu is None and plan.tpu is not None
    assert shelf.fetched == []


@pytest.fixture
def mirror(data: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_MNV2_MIRROR", str(data / "models"))
    return data / "models"


def test_the_registry_knows_the_pair(mirror: Path) -> None:
    zoo = Zoo()
    compiled = zoo.resolve(DEFAULT_COMPILED)
    cpu = zoo.twin(compiled).model
    assert cpu is not None and cpu.name == TPU_DEFAULT_CPU
    assert zoo.compiled(compiled) and not zoo.compiled(cpu)
    back = zoo.twin(cpu).model
    assert back is not None and back.name == DEFAULT_COMPILED
    assert not zoo.compiled(zoo.resolve(DEFAULT_MODEL)) and zoo.twin(zoo.resolve(DEFAULT_MODEL)) == Twin()


def test_files_beside_each_other_are_twins(data: Path, tmp_path: Path) -> None:
    source = data / "models"
    for name in ("mobilenet_v1_0.25_128_quant.tflite", "mobilenet_v1_0.25_128_quant_edgetpu.tflite"):
        shutil.copy(source / name, tmp_path / name.replace("mobilenet_v1_0.25_128_quant", "mine"))
    zoo = Zoo()
    cpu, compiled = zoo.resolve(str(tmp_path / "mine.tflite")), zoo.resolve(str(tmp_path / "mine_edgetpu.tflite"))
    assert zoo.compiled(compiled) and not zoo.compiled(cpu)
    for one, other in ((cpu, compiled), (compiled, cpu)):
        found = zoo.twin(one).model
        assert found is not None and found.path == other.path.absolute()
    sidecar = tmp_path / "mine_edgetpu.yaml"
    for digest in (cpu.sha256, "0" * 64):
        sidecar.write_text(f"# compiled for the Edge TPU from mine.tflite, sha256 {digest}\ntask: classification\n")
        found_ones = [zoo.twin(one).model for one in (cpu, compiled)]
        assert all(found_ones) if digest == cpu.sha256 else found_ones == [None, None], "taught anew since"
    sidecar.unlink()
    (tmp_path / "mine.tflite").unlink()
    assert zoo.twin(compiled).model is None
    shutil.copy(tmp_path / "mine_edgetpu.tflite", tmp_path / "mine.tflite")
    assert zoo.twin(compiled).model is None, "a second compiled file is no twin"
    (tmp_path / "mine.tflite").write_bytes(b"broken")
    assert zoo.twin(compiled).model is None


def test_when_auto_tries(tmp_path: Path, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert not worth_trying(tmp_path)
    trees.library(tmp_path, standin)
    assert not worth_trying(tmp_path), "an installed library alone is no device"
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    assert not worth_trying(tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(standin.parent))
    assert worth_trying(tmp_path)
    monkeypatch.delenv("LD_LIBRARY_PATH")
    monkeypatch.setenv("EDGE_MNV2_EDGETPU_LIB", str(standin))
    assert worth_trying(tmp_path)
    monkeypatch.delenv("EDGE_MNV2_EDGETPU_LIB")
    trees.card(tmp_path)
    assert worth_trying(tmp_path)


def test_a_model_that_cannot_be_fetched_says_what_to_pull(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> Path:
        raise DownloadError("no network")

    monkeypatch.setattr("edge_mnv2.zoo.pull.fetch", offline)
    with pytest.raises(AcceleratorError, match=f"edge-mnv2 pull {DEFAULT_COMPILED}") as caught:
        choose(None, parse("edgetpu"), True, choice.Zoo())
    assert isinstance(caught.value.__cause__, DownloadError)
