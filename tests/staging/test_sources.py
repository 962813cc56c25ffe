"""What put cannot commit is refused by its whole path, with the reason and with what to do."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

import atomicpath
from tests.staging.users import NOBODY, as_user, needs_root
from tests.support.roots import MemoryRoot


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source" / "sub").mkdir(parents=True)
    (tmp_path / "source" / "x").write_bytes(b"1")
    return tmp_path / "source"


def refused(source: Path, *told: str) -> None:
    memory = MemoryRoot()
    with pytest.raises(atomicpath.ValidationError) as caught:
        atomicpath.put(source, memory / "step_1")
    for part in (*told, "nothing was committed"):
        assert part in str(caught.value)
    assert memory.read_all() == {}


def test_a_broken_link_is_named_with_its_target(source: Path) -> None:
    (source / "sub" / "link").symlink_to("../gone")
    refused(source, str(source / "sub/link"), "a link to ../gone", "Repair the link")


def test_a_link_to_itself_is_named(source: Path) -> None:
    (source / "sub" / "link").symlink_to("link")
    refused(source, str(source / "sub/link"), "a link to link", "Repair the link")


def test_a_link_to_a_directory_is_named(source: Path, tmp_path: Path) -> None:
    (source / "sub" / "link").symlink_to(tmp_path)
    refused(source, str(source / "sub/link"), "a link to a directory")


def test_a_fifo_is_named(source: Path) -> None:
    os.mkfifo(source / "sub" / "fifo")
    refused(source, str(source / "sub/fifo"), "a FIFO")


def test_a_socket_is_named(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source / "sub")  # the name of a socket may have only about a hundred characters
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        refused(source, str(source / "sub/socket"), "a socket")


@needs_root
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_this_user_may_not_read_is_named(kind: str, source: Path, shared: Path) -> None:
    (source / "sub" / "y").write_bytes(b"2")
    there = shared / "source"
    shutil.copytree(source, there)
    closed = there / "sub" if kind == "directory" else there / "sub" / "y"
    closed.chmod(0)
    as_user(NOBODY, lambda: refused(there, str(closed), "Make it readable"))
