"""Paths, places, and the shape of the port."""

import os
import platform
from pathlib import Path

import pytest

from atomicpath._core.environment import Environment
from atomicpath.errors import ValidationError
from atomicpath_local import LocalBackend
from atomicpath_local.storage import LocalStorage


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b"),
        ("//a//b/../c", "/a/c"),
        ("file:///a/b", "/a/b"),
        ("local:///a/b", "/a/b"),
        ("file:/a/b", "/a/b"),
        ("file://localhost/a/b", "/a/b"),
        ("FILE://LocalHost/a/b", "/a/b"),
        ("file:///a/100%", "/a/100%"),
        ("/a/file:/b", "/a/file:/b"),
        ("/a/~/b", "/a/~/b"),
    ],
)
def test_a_url_has_one_absolute_path(url: str, path: str) -> None:
    assert LocalBackend().path(url) == path
    assert LocalBackend().path(LocalBackend().url(path)) == path


def test_a_relative_path_is_made_absolute_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert LocalBackend().path("run/step_1") == f"{tmp_path}/run/step_1"
    assert LocalBackend().path("~/step_1") == "/home/someone/step_1"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file://run/step_1", "names the host 'run'.*three slashes"),
        ("local://run/step_1", "names the host 'run'"),
        ("file://~/step_1", "names the host '~'"),
        ("file:run/step_1", "no absolute path"),
        ("file:/localhost/a", "pathlib has eaten a slash.*'/a'"),
        ("file:///a%20b", "pass the path itself"),
        ("file:///a?b", "pass the path itself"),
        ("file:///a#b", "pass the path itself"),
        ("~nobody-here/a", "'~nobody-here' has no home directory"),
    ],
)
def test_a_path_that_may_mean_two_places_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LocalBackend().path(url)


def test_dots_after_a_link_lead_where_the_kernel_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/link").symlink_to(tmp_path / "elsewhere/deep")
    monkeypatch.chdir(tmp_path / "here")
    for path in ("link/../x", f"{tmp_path}/here/link/../x", f"{tmp_path}/here/./link/../../elsewhere/x"):
        assert LocalBackend().path(path) == f"{tmp_path}/elsewhere/x"
    assert LocalBackend().path("link/x") == f"{tmp_path}/here/link/x", "a link without '..' after it is not looked up"
    assert LocalBackend().path("missing/../x") == f"{tmp_path}/here/x"


@pytest.mark.parametrize("url", ["/", "//", "/a/..", "file:///", "file://"])
def test_the_root_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(ValidationError, match="directory below it"):
        LocalBackend().path(url)


def test_a_relative_path_in_a_deleted_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ValidationError, match="pass an absolute path"):
        LocalBackend().path("step_1")
    assert LocalBackend().path("/a") == "/a"


def test_a_place_names_the_host_and_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    here = LocalBackend().place("/a", {})
    assert here != LocalBackend().place("/b", {})
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    assert LocalBackend().place("/a", {}) == "file://elsewhere/a"
    assert here != LocalBackend().place("/a", {})


def test_the_files_can_be_opened_by_their_path() -> None:
    storage = LocalBackend().open({"auto_mkdir": True}, Environment())
    assert isinstance(storage, LocalStorage)
    assert storage.is_local


async def test_every_method_is_one_step(storage: LocalStorage, world, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"data")
    root = f"{tmp_path}/a"
    await storage.make_directory(root, mode=0o700, durable=True)
    methods = [
        storage.declare(root),
        storage.create(f"{root}/f", b""),
        storage.read(f"{root}/f"),
        storage.write(f"{root}/f", b""),
        storage.write(f"{root}/f", b"", private=True),
        storage.upload(source, f"{root}/b/c", owner="", multipart=False),
        storage.download(f"{root}/b/c", tmp_path / "copy"),
        storage.kind(root),
        storage.list(root, recursive=True),
        storage.delete(f"{root}/f"),
        storage.sync_tree(root),
        storage.sync_directory(root),
        storage.rename_directory(root, f"{root}2"),
        storage.remove_tree(f"{root}2"),
    ]
    assert world.steps == 1
    for number, method in enumerate(methods):
        await method
        assert world.steps == number + 2
    assert sorted(os.listdir(tmp_path)) == ["copy", "source"]
