"""One strict reader for every YAML file of ours: what could grow or surprise is refused at once, with its line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from edge_mnv2.errors import EdgeMnv2Error, ModelError, ProfileError
from edge_mnv2.settings.profile_file import read_profile
from edge_mnv2.strict_yaml import Fields, parse_plain
from edge_mnv2.zoo import registry
from edge_mnv2.zoo.sidecar import read_sidecar


def merge_bomb() -> str:
    """600 bytes that an old PyYAML expands to hundreds of MB (merge keys are copied at each level)."""
    lines = ["a0: &a0 {k: v}"]
    for level in range(1, 25):
        lines.append(f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 2)}]}}")
    return "\n".join(lines)


ATTACKS = {
    "merge keys": (merge_bomb(), "anchor"),
    "aliases": ("a: &a [x, x]\nb: &b [*a, *a]\n", "anchor"),
    "a merge of what is written here": ("models: {<<: {a: 1}}\n", "merge key"),
    "an alias to nothing": ("models: *m\n", "alias"),
    "a tag": ("models: !!python/object/apply:os.system [ls]\n", "tag"),
    "twice": ("models: {a: 1}\nmodels: {b: 1}\n", "duplicate key 'models'"),
    "two documents": ("models: {a: 1}\n---\nmodels: {b: 1}\n", "second document"),
    "depth": ("models: " + "[" * 5000, "nested too deeply"),
    "an escape sequence": ("models: \x1b[31m\n", "control character"),
}


@pytest.mark.parametrize("kind", ["profile", "sidecar", "registry", "packaged"])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("parser", ["C", "Python"])
def test_every_reader_refuses_at_once(
    kind: str, attack: str, parser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if parser == "Python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    text, named = ATTACKS[attack]
    path = tmp_path / "file.yaml"
    path.write_text(text)
    monkeypatch.setenv("EDGE_MNV2_REGISTRY", str(path))
    read = {
        "profile": lambda: read_profile(path),
        "sidecar": lambda: read_sidecar(tmp_path / "file.tflite"),
        "registry": registry.load,
        "packaged": lambda: parse_plain(text.encode(), str(path), ProfileError),
    }[kind]
    began = time.thread_time()
    with pytest.raises(EdgeMnv2Error) as caught:
        read()
    assert time.thread_time() - began < 1
    assert named in str(caught.value) and str(caught.value).startswith(f"{path}:")
    assert caught.type is (ModelError if kind == "sidecar" else ProfileError)


def test_fields_name_the_line() -> None:
    document = parse_plain(b"bytes: 7\nlabels: 5\n# c\nsizee: 1\n", "team.yaml", ProfileError)
    fields = Fields(document, "team.yaml", ProfileError)
    assert fields.integer("bytes") == 7
    with pytest.raises(ProfileError, match=r"team\.yaml: 'labels' must be .*\(line 2\)"):
        fields.text("labels")
    with pytest.raises(ProfileError, match=r"unknown key 'sizee' \(line 4\).*known: bytes, labels"):
        fields.end()
