from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge_mnv2.zoo import cache, registry
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from tests.cli.test_pull import SMALL
from tests.processes import edge_mnv2

ROW = ("name", "task", "input", "bytes", "cached", "path", "cpu", "tpu")


def _cached(data: Path) -> Path:
    target = cache.cached_path(registry.load().get(SMALL))
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(data / "models" / target.name, target))


def test_list_says_what_is_known_and_what_is_here(data: Path) -> None:
    path = _cached(data)
    document = json.loads(edge_mnv2("models", "list", "--json").stdout)
    rows = {row["name"]: row for row in document["models"]}
    assert all(set(ROW) <= set(row) for row in rows.values())
    assert (rows[SMALL]["cached"], rows[SMALL]["path"]) == (True, str(path))
    assert rows[DEFAULT_MODEL]["cached"]
    assert rows[DEFAULT_MODEL]["input"] == {"shape": [1, 224, 224, 3], "dtype": "uint8"}
    other = rows["mobilenet_v2_1.0_224_quant"]
    assert (other["cached"], other["path"]) == (False, None)
    assert (other["cpu"], other["tpu"]) == (other["name"], f"{other['name']}_edgetpu")
    assert {row["name"] for row in document["others"]} == {"demo", "torchvision-mobilenet_v2"}
    table = edge_mnv2("models", "list").stdout
    assert all(name in table for name in [*rows, "demo", "ships", "cache", "Apache-2.0"])


def test_show_tells_licence_and_origin() -> None:
    text = edge_mnv2("models", "show", DEFAULT_MODEL).stdout
    for words in ("BSD-3-Clause", "torchvision", "imagenet (1000 names)", "224x224x3 uint8"):
        assert words in text
    shown = json.loads(edge_mnv2("models", "show", SMALL, "--json").stdout)
    assert (shown["licence"], shown["outputs"], shown["background"]) == ("Apache-2.0", 1001, "first")
    assert shown["sources"][0].startswith("https://")
    wrong = edge_mnv2("models", "show", "mobilenet_v1_0.25_128_qant")
    assert wrong.returncode == 3
    assert SMALL in wrong.stderr


@pytest.mark.slow
def test_verify_hashes_what_is_here(data: Path) -> None:
    done = edge_mnv2("models", "verify", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)["models"]] == [DEFAULT_MODEL]
    path = _cached(data)
    assert edge_mnv2("models", "verify", SMALL).returncode == 0
    with path.open("r+b") as handle:
        handle.seek(5000)
        handle.write(b"!")
    done = edge_mnv2("models", "verify")
    assert done.returncode == 3
    assert str(path) in done.stderr and f"edge-mnv2 pull {SMALL}" in done.stderr
    assert f"ok\t{DEFAULT_MODEL}" in done.stdout and f"DAMAGED\t{SMALL}" in done.stdout
    table = edge_mnv2("models", "list").stdout
    assert "DAMAGED" in table
    assert edge_mnv2("pull", SMALL, EDGE_MNV2_MIRROR=str(data / "models")).returncode == 0
    assert edge_mnv2("models", "verify", SMALL).returncode == 0
    assert edge_mnv2("models", "verify", "demo").returncode == 3


def test_remove_takes_the_file_and_what_belongs_to_it(data: Path) -> None:
    path = _cached(data)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(b"half")
    done = edge_mnv2("models", "remove", SMALL)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {str(path), str(part)}
    assert not path.exists() and not part.exists()
    assert edge_mnv2("models", "remove", SMALL).returncode == 3
    done = edge_mnv2("models", "remove", DEFAULT_MODEL)
    assert done.returncode == 3
    assert "ships with edge-mnv2" in done.stderr


@pytest.mark.slow
def test_a_teams_models_say_where_they_come_from(data: Path, tmp_path: Path) -> None:
    shutil.copyfile(data / "models" / f"{SMALL}.tflite", tmp_path / "parts.tflite")
    team = tmp_path / "registry.yaml"
    names = ", ".join(f"part {number}" for number in range(1001))
    team.write_text(f"models:\n  parts:\n    labels: [{names}]\n")
    assert edge_mnv2("models", "pin", str(team)).stdout == f"{team}: parts\n"
    assert json.loads(edge_mnv2("models", "pin", str(team), "--json").stdout)["changed"] == []
    where = {"EDGE_MNV2_REGISTRY": str(team)}
    assert str(team) in edge_mnv2("models", "list", **where).stdout
    assert f"registry:    {team}" in edge_mnv2("models", "show", "parts", **where).stdout
    done = edge_mnv2("classify", str(data / "images" / "cat.bmp"), "--model", "parts", "--json", **where)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["top"][0]["label"].startswith("part ")
    done = edge_mnv2("pull", "parts", "--json", **where)
    assert json.loads(done.stdout)["results"][0]["from"] == str(tmp_path / "parts.tflite")
    assert edge_mnv2("models", "remove", "parts", **where).returncode == 0
    assert (tmp_path / "parts.tflite").exists()
    team.write_text("models: [parts]\n")
    assert edge_mnv2("models", "list", **where).returncode == 6
