"""Aliases: a second name for a committed directory, which every reader follows and no cleaner loses."""

from __future__ import annotations

import os
import shutil
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath._core.environment import Environment, use
from atomicpath._core.layout import HOUSEKEEPING
from tests.support.roots import LocalRoot, Root, S3Root


def _commit(root: Root, *names: str) -> None:
    for name in names:
        with atomicpath.commit(root / name, storage_options=root.storage_options) as path:
            (path / "x").write_text(name)


def _alias(root: Root, name: str, target: str) -> None:
    atomicpath.alias(root / name, target, storage_options=root.storage_options)


def _leads_to(root: Root, name: str) -> str:
    return atomicpath.resolve(root / name, storage_options=root.storage_options).name


def _first_names(root: Root) -> list[str]:
    return [name for name in root.names() if name != HOUSEKEEPING]


def test_every_reader_follows_an_alias_and_the_lists_leave_it_out(root: Root, tmp_path: Path) -> None:
    options = {"storage_options": root.storage_options}
    _commit(root, "step_1", "step_2")
    _alias(root, "last", "step_2")
    _alias(root, "best", root / "step_1")
    _alias(root, "last", root / "best")  # an alias for an alias
    assert _leads_to(root, "best") == _leads_to(root, "last") == "step_1"
    assert (atomicpath.resolve(root / "last", **options) / "x").read_text() == "step_1"
    assert atomicpath.is_committed(root / "last", **options)
    assert atomicpath.read_record(root / "last", **options) == atomicpath.read_record(root / "step_1", **options)
    assert atomicpath.verify(root / "last", **options).ok
    assert (atomicpath.get(root / "last", tmp_path / "got", **options) / "x").read_text() == "step_1"
    assert [commit.name for commit in atomicpath.committed(root.url, **options)] == ["step_1", "step_2"]
    newest = atomicpath.latest(root.url, **options)
    assert newest is not None
    assert newest.name == "step_2"
    assert atomicpath.attempts(root.url, **options) == []


def test_an_alias_that_looks_like_a_step_is_no_step(root: Root) -> None:
    _commit(root, "step_1")
    _alias(root, "step_9", "step_1")
    newest = atomicpath.latest(root.url, storage_options=root.storage_options)
    assert newest is not None
    assert newest.name == "step_1"


def test_on_a_disk_it_is_a_relative_link_that_other_tools_follow(local: LocalRoot, tmp_path: Path) -> None:
    _commit(local, "step_1", "step_2")
    _alias(local, "last", "step_1")
    _alias(local, "last", "step_2")
    assert os.readlink(local.path / "last") == "step_2"
    assert (local.path / "last" / "x").read_text() == "step_2"
    shutil.copytree(local.path, tmp_path / "moved", symlinks=True)
    assert atomicpath.resolve(tmp_path / "moved" / "last").name == "step_2"


@pytest.mark.parametrize("target", ["step_9", "never"])
def test_an_alias_for_nothing_is_refused_and_changes_nothing(root: Root, target: str) -> None:
    _commit(root, "step_1")
    root.write("step_9/x", b"1")  # there, and not committed
    before = root.read_all()
    with pytest.raises(atomicpath.NotCommittedError, match=target):
        _alias(root, "last", target)
    assert root.read_all() == before
    _alias(root, "last", "step_1")
    with pytest.raises(atomicpath.NotCommittedError, match=target):
        _alias(root, "last", target)
    assert _leads_to(root, "last") == "step_1"


def test_a_target_elsewhere_is_refused(root: Root) -> None:
    _commit(root, "step_1", "other/step_1")
    for target in (root / "other/step_1", "other/step_1", "../step_1", root.url):
        with pytest.raises(atomicpath.ValidationError, match="not right below"):
            _alias(root, "last", target)
    for target in ("", " "):
        with pytest.raises(atomicpath.ValidationError):
            _alias(root, "last", target)


def test_a_circle_is_refused_and_one_that_is_there_is_named(root: Root) -> None:
    _commit(root, "step_1")
    with pytest.raises(atomicpath.ValidationError, match="leads back to it"):
        _alias(root, "step_1", "step_1")
    _alias(root, "a", "step_1")
    _alias(root, "b", "a")
    _alias(root, "c", "b")
    with pytest.raises(atomicpath.ValidationError, match=r"leads back to it \(a -> c -> b -> a\)"):
        _alias(root, "a", "c")
    assert _leads_to(root, "c") == "step_1"


def test_readers_of_a_circle_of_links_say_so(local: LocalRoot) -> None:
    (local.path / "a").symlink_to("b")
    (local.path / "b").symlink_to("a")
    for read in (atomicpath.resolve, atomicpath.read_record, atomicpath.verify):
        with pytest.raises(atomicpath.IntegrityError, match=r"in a circle \(a -> b -> a\)"):
            read(local / "a")
    atomicpath.remove(local / "a")
    assert local.names() == ["b"]


def test_an_alias_whose_target_was_deleted_by_other_means_says_so(root: Root) -> None:
    _commit(root, "step_1", "step_2")
    _alias(root, "last", "step_1")
    for name in root.read_all("step_1"):
        root.delete(f"step_1/{name}")
    assert not atomicpath.is_committed(root / "last", storage_options=root.storage_options)
    with pytest.raises(atomicpath.NotCommittedError, match="step_1 that the alias .*last leads to"):
        _leads_to(root, "last")
    _alias(root, "last", "step_2")
    assert _leads_to(root, "last") == "step_2"


def test_nothing_is_committed_through_an_alias_and_none_takes_the_place_of_anything(root: Root) -> None:
    _commit(root, "step_1", "step_2")
    _alias(root, "last", "step_1")
    for options in ({}, {"exists": "keep"}):
        with (
            pytest.raises(atomicpath.ConflictError, match="is an alias for 'step_1'"),
            atomicpath.commit(root / "last", storage_options=root.storage_options, **options),  # type: ignore[arg-type]
        ):
            pytest.fail("entered")
    with pytest.raises(atomicpath.AlreadyCommittedError):
        _alias(root, "step_2", "step_1")
    root.write("theirs/x", b"1")
    with pytest.raises(atomicpath.ConflictError, match="not written by atomicpath"):
        _alias(root, "theirs", "step_1")
    assert _leads_to(root, "last") == "step_1"
    assert root.read_all("theirs") == {"x": b"1"}


def test_a_file_or_a_link_to_elsewhere_is_left_alone(local: LocalRoot, tmp_path: Path) -> None:
    _commit(local, "step_1")
    local.write("file", b"theirs")
    (local.path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(atomicpath.ConflictError, match="not written by atomicpath"):
            _alias(local, name, "step_1")
    assert local.read_all()["file"] == b"theirs"
    assert os.readlink(local.path / "link") == str(tmp_path)


def test_no_cleaner_removes_the_target_of_an_alias_nor_the_alias(root: Root) -> None:
    options = {"storage_options": root.storage_options}
    _commit(root, "step_1", "step_2", "step_3", "step_4")
    _alias(root, "best", "step_1")
    _alias(root, "favourite", "best")
    with pytest.raises(atomicpath.ConflictError, match=r"the alias .*best leads to it"):
        atomicpath.remove(root / "step_1", **options)
    assert [commit.name for commit in atomicpath.keep_last(root.url, 1, **options)] == ["step_2", "step_3"]
    swept = atomicpath.sweep(root.url, older_than=timedelta(0), **options)
    assert not [one for one in swept if one.done or one.path.name in ("best", "favourite")]
    assert _leads_to(root, "favourite") == "step_1"
    with pytest.raises(atomicpath.ConflictError, match=r"the alias .*favourite leads to it"):
        atomicpath.remove(root / "best", **options)
    atomicpath.remove(root / "favourite", **options)
    atomicpath.remove(root / "best", **options)
    assert _first_names(root) == ["step_1", "step_4"]
    _commit(root, "best")  # the name is free again
    _alias(root, "favourite", "best")
    atomicpath.remove(root / "step_1", **options)
    assert _leads_to(root, "favourite") == "best"


def test_long_names_work(root: Root) -> None:
    long = "n" * 250
    _commit(root, "step_1")
    _alias(root, long, "step_1")
    with pytest.raises(atomicpath.ConflictError, match="leads to it"):
        atomicpath.remove(root / "step_1", storage_options=root.storage_options)
    assert _leads_to(root, long) == "step_1"


def test_a_place_that_cannot_swap_says_so(s3: S3Root) -> None:
    _commit(s3, "step_1")
    from atomicpath._commit import aliases
    from atomicpath.guarantees import Profile

    async def poor(*_: object, **__: object) -> Profile:
        return Profile(location="there", declared=atomicpath.Guarantee.EXCLUSIVE_CREATE)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(atomicpath.GuaranteeError, match="COMPARE_AND_SWAP"):
        patch.setattr(aliases, "profile_of", poor)
        _alias(s3, "last", "step_1")


class _Meanwhile(Environment):
    """Does something else at the moment at which an alias has been made, or a directory hidden."""

    def __init__(self, at: str, work: Any) -> None:
        self._at, self._work = at, work

    async def step(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._seen(await super().step(function, *args, **kwargs), function, args)

    async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._seen(await super().request(function, *args, **kwargs), function, args)

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._seen(super().call(function, *args, **kwargs), function, args)

    def _seen(self, found: Any, function: Any, args: Any) -> Any:
        text = f"{getattr(function, '__name__', '')} {args}"
        if self._work is not None and self._at in text:
            work, self._work = self._work, None
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        return found


def test_a_target_that_is_removed_as_the_alias_is_made_leaves_no_alias_for_nothing(local: LocalRoot) -> None:
    _commit(local, "step_1", "step_2")
    _alias(local, "last", "step_2")
    with (
        use(_Meanwhile("symlink", lambda: atomicpath.remove(local / "step_1"))),
        pytest.raises(atomicpath.NotCommittedError) as caught,
    ):
        _alias(local, "last", "step_1")
    assert caught.value.__notes__ == [f"{local / 'last'} is what it was before"]
    assert _leads_to(local, "last") == "step_2"
    assert _first_names(local) == ["last", "step_2"]


def test_an_alias_that_is_made_while_its_target_is_removed_keeps_it(root: Root) -> None:
    """Between the removal's first look and the step that hides the directory."""
    if root.kind == "memory":
        pytest.skip("its steps do not tell what they are about")
    _commit(root, "step_1")
    made: list[object] = []

    def make() -> None:
        try:
            _alias(root, "last", "step_1")
            made.append("made")
        except atomicpath.AtomicPathError as error:
            made.append(error)

    # the request or call right before the one that hides it
    at = "flock" if root.kind == "local" else "list_objects"
    with use(_Meanwhile(at, make)):
        try:
            atomicpath.remove(root / "step_1", storage_options=root.storage_options)
        except atomicpath.ConflictError as error:
            assert "leads to it" in str(error)
    if made == ["made"]:
        assert _leads_to(root, "last") == "step_1"
        assert (atomicpath.resolve(root / "last", storage_options=root.storage_options) / "x").read_text() == "step_1"
    else:
        assert isinstance(made[0], atomicpath.NotCommittedError)
