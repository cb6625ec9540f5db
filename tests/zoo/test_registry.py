from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_mnv2 import paths
from edge_mnv2.errors import DownloadError, ModelError, ProfileError
from edge_mnv2.strict_yaml import read_plain
from edge_mnv2.zoo import inventory, registry
from edge_mnv2.zoo.cache import entry_labels
from edge_mnv2.zoo.entry import FolderSource, UrlSource, parse_entries
from edge_mnv2.zoo.labels import fit_labels
from edge_mnv2.zoo.model_facts import OpenSet

GOOD: dict[str, Any] = {
    "summary": "parts of a machine",
    "file": "parts.tflite",
    "sha256": "a" * 64,
    "bytes": 100,
    "licence": "MIT",
    "origin": "here",
    "sources": [{"https": "https://models.invalid/parts.tflite"}],
}


def _document(**changes: Any) -> dict:
    values = {**GOOD, **changes}
    return {"models": {"parts": {key: value for key, value in values.items() if value is not None}}}


def test_what_ships_is_whole_and_fits() -> None:
    known = registry.load()
    assert next(iter(known)).name == registry.DEFAULT_MODEL
    for entry in known:
        assert entry.summary and entry.licence and entry.origin
        if entry.package_file is not None:
            path = paths.packaged("models", entry.package_file)
            assert path.stat().st_size == entry.bytes, "run `edge-mnv2 models pin`"
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256, "run `edge-mnv2 models pin`"
        if entry.kind == "model":
            assert entry.outputs is not None and entry.input is not None
            labels, _ = fit_labels(entry_labels(entry), entry.outputs, background=entry.background)
            assert len(labels) == entry.outputs
    assert len({entry.file for entry in known}) == len(list(known))


def test_the_files_of_the_registry_are_those_of_the_data(data: Path) -> None:
    sums = dict(reversed(line.split()) for line in (data / "SHA256SUMS").read_text().splitlines())
    by_file = {Path(name).name: digest for name, digest in sums.items()}
    known = [entry for entry in registry.load() if entry.file in by_file]
    assert len(known) >= 6
    for entry in known:
        assert entry.sha256 == by_file[entry.file]


def test_models_are_what_the_registry_says(data: Path) -> None:
    from edge_mnv2.runtime.interpreter import open_interpreter
    from edge_mnv2.tflite import model_file
    from edge_mnv2.zoo.cache import copies

    for entry in registry.load().models():
        files = [copy.path for copy in copies(entry)] + [data / "models" / entry.file]
        path = next((path for path in files if path.is_file()), None)
        if path is None:
            continue
        assert model_file.check(path).edgetpu == (entry.runs_on == "edgetpu")
        if entry.runs_on == "cpu":
            with open_interpreter(path) as interpreter:
                assert entry.input is not None
                assert interpreter.inputs[0].shape == entry.input.shape
                assert interpreter.inputs[0].dtype == entry.input.dtype
                assert interpreter.outputs[0].shape[-1] == entry.outputs


@pytest.mark.parametrize(
    "change, words",
    [
        ({"colour": "red"}, "parts: unknown key 'colour'.*known: "),
        ({"sha256": None}, "parts: 'sha256' is missing"),
        ({"sha256": "A" * 64}, "'sha256' must be 64 hex digits"),
        ({"sha256": 12}, "'sha256' must be text"),
        ({"bytes": None}, "'bytes' is missing"),
        ({"bytes": "100"}, "'bytes' must be a whole number"),
        ({"bytes": True}, "'bytes' must be a whole number"),
        ({"bytes": 0}, "'bytes' must be a whole number of at least 1"),
        ({"licence": None}, "'licence' is missing"),
        ({"origin": None}, "'origin' is missing"),
        ({"task": "detection"}, "'task' must be one of classification, regression, not 'detection'"),
        ({"kind": "zip"}, "'kind' must be one of"),
        ({"file": "../../etc/passwd"}, "'file' must be a plain file name"),
        ({"file": "/etc/passwd"}, "'file' must be a plain file name"),
        ({"file": ".bashrc"}, "'file' must be a plain file name"),
        ({"labels": "../x.txt"}, "'labels' must be a plain name"),
        ({"labels": "x.txt"}, "'labels' must be the name of a list"),
        ({"labels": [1, 2]}, "quote numbers"),
        ({"labels": []}, "'labels' must be"),
        ({"background": "middle"}, "'background' must be one of"),
        ({"input": {"shape": [224, 224], "dtype": "uint8"}}, "'shape' must be four whole numbers"),
        ({"input": {"shape": [1, 224, 224, 3]}}, "input: 'dtype' is missing"),
        ({"input": {"shape": [1, 2, 2, 3], "dtype": "uint8", "scale": 1}}, "input: unknown key 'scale'"),
        ({"sources": None}, "'sources' is missing"),
        ({"sources": []}, "'sources' is missing"),
        ({"sources": "https://x"}, "'sources' must be a list"),
        ({"sources": [{"ftp": "x"}]}, "sources: unknown key 'ftp'"),
        ({"sources": [{"https": "x", "package": "y"}]}, "one key each"),
        ({"sources": [{"https": "ftp://host/x"}]}, "'https' must be a URL"),
        ({"sources": [{"https": "https:///x"}]}, "'https' must be a URL"),
        ({"sources": [{"package": "../x"}]}, "'package' must be a file below models/"),
        ({"sources": [{"beside": "x"}]}, "'beside' must be"),
        ({"sources": [{"pip": {"package": "torch", "member": "x"}}]}, "pinned"),
        ({"sources": [{"pip": {"package": "--index-url=http://x", "member": "x"}}]}, "pinned"),
        ({"sources": [{"pip": {"package": "a==1", "member": "../x"}}]}, "'member' must be a path inside"),
        ({"sources": [{"pip": {"package": "a==1"}}]}, "'member' is missing"),
        ({"twin": "other"}, "its twin 'other'"),
        ({"recipe": {"weights": "/etc/passwd"}}, "recipe: 'weights' must be one of imagenet"),
        ({"recipe": {"resolution": "192"}}, "recipe: 'resolution' must be a whole number"),
        ({"recipe": {"float": 1}}, "recipe: 'float' must be true or false"),
        ({"recipe": {"command": "rm"}}, "recipe: unknown key 'command'"),
        ({"preprocess": {"std": 0}}, "'std' must be above 0"),
        ({"preprocess": {"mean": [1, 2]}}, "'mean' must be a number, or a list of 3"),
        ({"preprocess": {"resize": "zoom"}}, "'resize' must be one of"),
    ],
)
def test_the_schema_is_strict(change: dict, words: str) -> None:
    with pytest.raises(ProfileError, match=words) as caught:
        parse_entries(_document(**change), "registry.yaml")
    assert str(caught.value).startswith("registry.yaml: parts")
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "text",
        {},
        {"models": {}},
        {"models": None},
        {"models": {"a/b": GOOD}},
        {"models": {"x": None}},
        {"models": {1: GOOD}},
        {"model": {"x": GOOD}},
    ],
)
def test_documents_that_are_no_registry(document: Any) -> None:
    with pytest.raises(ProfileError, match=r"registry\.yaml"):
        parse_entries(document, "registry.yaml")


def test_twins_name_each_other() -> None:
    for entry in registry.load().models():
        if entry.twin is not None:
            twin = registry.load().get(entry.twin)
            assert (twin.cpu, twin.tpu) == (entry.cpu, entry.tpu)
            assert {entry.name, entry.twin} == {entry.cpu, entry.tpu}


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    for wrong, near in (
        ("mobilenet_v2_1.0_224_quatn", "mobilenet_v2_1.0_224_quant"),
        ("mobilnet", "mobilenet_v2_1.0_224_int8"),
        ("bird", "mobilenet_v2_1.0_224_inat_bird_quant"),
        ("Demo", "demo"),
    ):
        with pytest.raises(ModelError, match=near):
            registry.load().get(wrong)
    with pytest.raises(ModelError, match="models list"):
        registry.load().get("zzz")


def _team(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "team.yaml"
    path.write_text(yaml.safe_dump(_document(**{"sources": None, "licence": None, "origin": None, **changes})))
    return path


def test_a_teams_registry_adds_to_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _team(tmp_path)
    for address in (str(path), path.as_uri()):
        monkeypatch.setenv("EDGE_MNV2_REGISTRY", address)
        entry = registry.load().get("parts")
        assert entry.registry == str(path)
        assert entry.sources == (FolderSource(str(tmp_path / "parts.tflite")),)
        assert registry.DEFAULT_MODEL in registry.load()
    path.rename(tmp_path / "registry.yaml")
    monkeypatch.setenv("EDGE_MNV2_REGISTRY", str(tmp_path))
    assert "parts" in registry.load()


def test_a_teams_registry_never_replaces_a_name_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    document = {"models": {"demo": {"sha256": "b" * 64, "bytes": 5, "kind": "clip"}}}
    (tmp_path / "team.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("EDGE_MNV2_REGISTRY", str(tmp_path / "team.yaml"))
    ours = next(entry for entry in registry.packaged_entries() if entry.name == "demo")
    assert registry.load().get("demo") == ours
    assert "'demo' is a name of edge-mnv2's own" in caplog.text
    assert str(tmp_path / "team.yaml") in caplog.text

    document["models"]["demo"].update(sha256=ours.sha256, bytes=ours.bytes)
    (tmp_path / "team.yaml").write_text(yaml.safe_dump(document))
    more = FolderSource(str(tmp_path / "demo.tflite"))
    assert registry.load().get("demo") == replace(ours, sources=(more, *ours.sources))


@pytest.mark.parametrize(
    "content, words",
    [
        (b"models:\n  a: {sha256: 'x\n", r"team\.yaml:3:"),
        (b"models: {a: 1, a: 2}\n", "duplicate key 'a'"),
        (b"\xff\xfe\0", "UTF-16"),
        (b"<!DOCTYPE html><html><head><title>x</title>", r"team\.yaml"),
        (b"\0\0\0", r"team\.yaml"),
        (b"x" * 2_000_000, "larger than 1024 kB"),
        (b"models: !!python/object/apply:os.system ['true']\n", "a tag"),
        (b"[" * 5000, r"team\.yaml"),
        (b"", "not a mapping"),
    ],
)
def test_a_teams_registry_that_is_broken(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "team.yaml").write_bytes(content)
    monkeypatch.setenv("EDGE_MNV2_REGISTRY", str(tmp_path / "team.yaml"))
    with pytest.raises(ProfileError, match=words) as caught:
        registry.load()
    assert str(tmp_path / "team.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_teams_registry_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MNV2_REGISTRY", "/no/such/team.yaml")
    with pytest.raises(ProfileError, match=r"EDGE_MNV2_REGISTRY=/no/such/team\.yaml: no such file"):
        registry.load()


class TestFromAServer:
    @pytest.fixture(autouse=True)
    def _serve(self, server: Any, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        self.labels = b"bolt\nnut\n"
        self.document = _document(
            sources=None,
            sha256=hashlib.sha256(body).hexdigest(),
            bytes=len(body),
            labels="parts.txt",
            labels_sha256=hashlib.sha256(self.labels).hexdigest(),
        )
        self.files = {"/kit/registry.yaml": b"", "/kit/parts.tflite": body, "/kit/parts.txt": self.labels}
        self.publish()
        self.server = server
        server.answer = lambda handler, turn: (
            handler.reply(self.files[handler.path]) if handler.path in self.files else handler.reply(b"", 404)
        )
        self.url = f"{server.url}/kit/registry.yaml"
        monkeypatch.setenv("EDGE_MNV2_REGISTRY", self.url)

    def publish(self) -> None:
        self.files["/kit/registry.yaml"] = yaml.safe_dump(self.document).encode()

    def test_it_is_fetched_when_asked_and_served_from_its_copy(self, body: bytes) -> None:
        from edge_mnv2.zoo.pull import fetch
        from edge_mnv2.zoo.resolve import resolve

        assert "parts" not in registry.load()
        with pytest.raises(DownloadError, match="has not been fetched yet"):
            registry.load().get("parts")
        assert not self.server.requests
        assert fetch("parts").read_bytes() == body
        self.files.clear()
        found = resolve("parts")
        assert found.labels == ["bolt", "nut"]
        assert found.registry == self.url
        assert registry.load(refresh=True).get("parts").sources == (
            UrlSource(self.url.replace("registry.yaml", "parts.tflite")),
        )

    def test_a_portal_does_not_replace_the_copy(self, caplog: pytest.LogCaptureFixture) -> None:
        registry.load(refresh=True)
        self.files["/kit/registry.yaml"] = b"<html><title>Sign in</title></html>"
        assert "parts" in registry.load(refresh=True)
        assert "no registry" in caplog.text
        assert "copy of the last time" in caplog.text
        assert "parts" in registry.load()

    def test_a_server_that_is_away_does_not_stop_our_own_models(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDGE_MNV2_REGISTRY", "http://no-such-host.invalid/registry.yaml")
        known = registry.load(refresh=True)
        assert known.get(registry.DEFAULT_MODEL)
        with pytest.raises(DownloadError, match="'parts' is no model of edge-mnv2's own, and cannot fetch"):
            known.get("parts")

    def test_the_registry_itself_can_be_pinned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        good = hashlib.sha256(self.files["/kit/registry.yaml"]).hexdigest()
        monkeypatch.setenv("EDGE_MNV2_REGISTRY", f"{self.url}#sha256={good}")
        assert "parts" in registry.load(refresh=True)
        self.document["models"]["parts"]["summary"] = "changed by somebody"
        self.publish()
        assert registry.load(refresh=True).get("parts").summary == "parts of a machine"
        monkeypatch.setenv("EDGE_MNV2_REGISTRY", f"{self.url}#sha256={'0' * 64}")
        assert "parts" not in registry.load(refresh=True)
        monkeypatch.setenv("EDGE_MNV2_REGISTRY", f"{self.url}#md5=1")
        with pytest.raises(ProfileError, match="sha256=HEX"):
            registry.load()

    def test_an_unencrypted_registry_without_a_pin_is_said(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A proxy stands for the network: the address is no loopback one."""
        monkeypatch.setenv("http_proxy", self.url.rpartition("/kit/")[0])
        self.files.update({f"http://models.example{path}": content for path, content in self.files.items()})
        monkeypatch.setenv("EDGE_MNV2_REGISTRY", "http://models.example/kit/registry.yaml")
        known = registry.load(refresh=True)
        digest = hashlib.sha256(self.files["/kit/registry.yaml"]).hexdigest()
        assert "parts" in known and "comes unencrypted" in caplog.text and f"#sha256={digest}" in caplog.text
        caplog.clear()
        monkeypatch.setenv("EDGE_MNV2_REGISTRY", f"http://models.example/kit/registry.yaml#sha256={digest}")
        registry.load(refresh=True)
        assert "unencrypted" not in caplog.text

    def test_labels_are_pinned_too(self) -> None:
        from edge_mnv2.zoo.pull import fetch

        self.files["/kit/parts.txt"] = b"nut\nbolt\n"
        with pytest.raises(DownloadError, match="not the file that the registry pins"):
            fetch("parts")
        self.files["/kit/parts.txt"] = self.labels
        fetch("parts")
        del self.document["models"]["parts"]["labels_sha256"]
        self.publish()
        assert registry.load(refresh=True).get("parts").labels_sha256 is not None, "a worse registry is not taken"


def test_a_registry_is_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "registry.yaml")
    with pytest.raises(ProfileError, match=r"registry\.yaml is no registry: it is no file"):
        inventory.pin(tmp_path / "registry.yaml")


def test_pin_writes_what_teach_measured_and_takes_out_what_is_no_more(tmp_path: Path, body: bytes) -> None:
    measured = {"row": 1, "slope": 8.0, "threshold": 0.3, "curve": [[0.9, 0.4], [0.99, 0.1]]}
    registry_file, model, sidecar = (tmp_path / name for name in ("registry.yaml", "a.tflite", "a.yaml"))
    model.write_bytes(body)
    sidecar.write_text(f"sha256: '{hashlib.sha256(body).hexdigest()}'\nopen_set: {json.dumps(measured)}\n")
    registry_file.write_text(
        "models:\n  a:\n    open_set:\n      row: 7\n      curve:\n        - [0, 1]\n    labels: [x, unknown]\n"
        "    expected_errors:\n    - [0, 1, 2]\n    licence: ours\n"
    )
    assert inventory.pin(registry_file) == ["a"] and inventory.pin(registry_file) == []
    (entry,) = parse_entries(read_plain(registry_file, ProfileError), "it", "it", f"{tmp_path}/")
    assert entry.measured.open_set == OpenSet(1, 8.0, 0.3, ((0.9, 0.4), (0.99, 0.1)))
    assert (entry.measured.errors, entry.labels, entry.licence) == ((), ("x", "unknown"), "ours")
    # A sidecar that is another model's says nothing; one that says nothing of it takes it out.
    model.write_bytes(body[:100])
    assert inventory.pin(registry_file) == ["a"] and "open_set" in registry_file.read_text()
    sidecar.write_text("task: classification\n")
    assert inventory.pin(registry_file) == ["a"] and "open_set" not in registry_file.read_text()
    registry_file.write_text("models:\n  a:\n    open_set: {row: 1}\n    sha256: " + "a" * 64 + "\n    bytes: 1\n")
    with pytest.raises(ProfileError, match="a: open_set"):
        parse_entries(read_plain(registry_file, ProfileError), "it", "it", f"{tmp_path}/")


def test_pin_says_that_an_entry_lacks_the_labels_of_its_sidecar(
    tmp_path: Path, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Boards get the registry and the model, and not the sidecar: the classes were called 0, 1, 2 without a word."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.tflite").write_bytes(body)
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("labels: [nut, bolt]\n")
    registry_file = tmp_path / "registry.yaml"
    registry_file.write_text("models:\n  a:\n    licence: ours\n  b:\n    labels: [p, q]\n  c:\n    licence: ours\n")
    assert sorted(inventory.pin(registry_file)) == ["a", "b", "c"]
    assert [record.getMessage().partition(" here")[0] for record in caplog.records] == ["a has no labels"]
    assert str(tmp_path / "a.yaml") in caplog.text


def test_pin_writes_what_the_files_are(tmp_path: Path, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tflite").write_bytes(body)
    (tmp_path / "bee.tflite").write_bytes(body[:100])
    text = "# ours\nmodels:\n  a:   # first\n    labels: [x]\n  b:\n    file: bee.tflite  # renamed\n    bytes: 5\n"
    text += "  c:\n    sha256: " + "c" * 64 + "\n    bytes: 7\n"
    (tmp_path / "registry.yaml").write_text(text)
    assert sorted(inventory.pin(tmp_path / "registry.yaml")) == ["a", "b"]
    assert inventory.pin(tmp_path / "registry.yaml") == []
    assert (tmp_path / "registry.yaml").read_text().startswith("# ours\nmodels:\n  a:   # first\n")
    monkeypatch.setenv("EDGE_MNV2_REGISTRY", str(tmp_path))
    entry = registry.load().get("b")
    assert (entry.bytes, entry.sha256) == (100, hashlib.sha256(body[:100]).hexdigest())
