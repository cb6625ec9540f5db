from __future__ import annotations

import os
from pathlib import Path

from edge_mnv2.board.sysroot import Sysroot
from tests.board.trees import Tree


def test_absolute_links_stay_inside(tmp_path: Path) -> None:
    Tree(tmp_path / "tree").write("etc/machine-id", "inside")
    (tmp_path / "outside").write_text("outside")
    (tmp_path / "tree/link").symlink_to("/etc/machine-id")
    (tmp_path / "tree/escape").symlink_to("../../../outside")
    (tmp_path / "tree/absolute").symlink_to(tmp_path / "outside")
    root = Sysroot(tmp_path / "tree")
    assert root.read("link") == "inside"
    assert root.read("escape") is None
    assert root.read("absolute") is None
    assert root.read("../outside") is None


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert Sysroot(tmp_path).read("a") is None
    assert not Sysroot(tmp_path).exists("a")


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    tree = Tree(tmp_path).write("folder/file", "x").write("empty", b"").write("text", "4 apples")
    os.mkfifo(tmp_path / "pipe")
    root = Sysroot(tree.root)
    assert [root.read(name) for name in ("folder", "missing", "pipe", "empty")] == [None] * 4
    assert root.read_int("text") is None
    assert root.names("missing") == []


def test_names_in_numeric_order(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        Tree(tmp_path).write(f"zones/zone{number}", "x")
    assert Sysroot(tmp_path).names("zones", "zone") == ["zone1", "zone9", "zone10"]


def test_programs_of_a_tree_are_its_own(tmp_path: Path) -> None:
    assert Sysroot("/").which("sh")
    assert Sysroot(tmp_path).which("sh") is None
    Tree(tmp_path).script("vcgencmd", "echo hello")
    assert Sysroot(tmp_path).which("vcgencmd") == str(tmp_path / "usr/bin/vcgencmd")
