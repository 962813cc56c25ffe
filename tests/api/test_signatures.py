"""The two faces are one interface: parameters, defaults, types, documentation; and every argument arrives."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import anyio
import pytest

import atomicpath
from atomicpath import aio, atomicity, sync
from atomicpath._commit.options import CommitOptions
from tests.support.roots import Root

PURE = {"select", "create_all_async"}
"""Functions that are the same in both faces, since they wait for nothing."""
FUNCTIONS = sorted(set(aio.__all__) - PURE)
RESULTS = {
    "AsyncCommit": "BlockingCommit",
    "AsyncHandle": "Handle",
    "AsyncJoined": "Joined",
    "AsyncIterator[Commit]": "Iterator[Commit]",
}


def sections(function: Callable[..., object]) -> dict[str, str]:
    """The sections of a docstring by their titles; under "" is what comes before."""
    text = inspect.getdoc(function) or ""
    parts = re.split(r"^(Args|Returns|Raises):\n", text, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def test_both_faces_have_the_same_functions() -> None:
    assert set(aio.__all__) <= set(atomicpath.__all__)
    for name in PURE:
        assert getattr(atomicpath, name) is getattr(aio, name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_defaults_and_types_are_the_same(name: str) -> None:
    blocking, coroutine = getattr(atomicpath, name), getattr(aio, name)
    assert not inspect.iscoroutinefunction(blocking)
    assert not hasattr(blocking, "__wrapped__"), "an explicit function, which help() and editors show"
    assert blocking.__module__ == "atomicpath.sync"
    ours, theirs = inspect.signature(blocking), inspect.signature(coroutine)
    assert list(ours.parameters.values()) == list(theirs.parameters.values())
    assert ours.return_annotation == RESULTS.get(theirs.return_annotation, theirs.return_annotation)
    types = get_type_hints(coroutine)
    assert {**get_type_hints(blocking), "return": None} == {**types, "return": None}
    assert inspect.iscoroutinefunction(coroutine) == (name not in ("commit", "watch"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_both_docstrings_say_the_same_of_each_parameter_result_and_error(name: str) -> None:
    blocking, coroutine = sections(getattr(atomicpath, name)), sections(getattr(aio, name))
    for part in ("Args", "Raises") if name == "commit" else ("", "Args", "Returns", "Raises"):
        assert blocking.get(part) == coroutine.get(part), part
    parameters = list(inspect.signature(getattr(atomicpath, name)).parameters)
    assert re.findall(r"^    (\w+): ", blocking["Args"], re.MULTILINE) == parameters
    returns_something = get_type_hints(getattr(atomicpath, name))["return"] is not type(None)
    assert ("Returns" in blocking) == returns_something
    raised = re.findall(r"^    (\w+): ", blocking["Raises"], re.MULTILINE)
    assert raised
    assert all(issubclass(getattr(atomicpath, error), atomicpath.AtomicPathError) for error in raised)
    assert blocking[""].count("\n\n") >= 1, "after the summary: what concurrent callers see"


def test_help_describes_the_blocking_call() -> None:
    words = inspect.getdoc(atomicpath.commit) or ""
    assert "Enter the result with `with`." in words
    assert "async" not in words
    assert "Enter the result with `async with`." in (inspect.getdoc(aio.commit) or "")


OPTIONS: dict[str, Any] = {
    "storage_options": {"one": 1},
    "temporary_path_class": atomicpath.CommitFileTemporaryPath,
    "direct": True,
    "replace": True,
    "exists": "replace",
    "durable": False,
    "coordinator": atomicpath.SingleProcess(),
    "file_options": atomicpath.FileOptions(path_permission_mode=0o750),
    "metadata": {"step": 7},
    "checksums": True,
    "staging_dir": Path("/tmp"),
    "progress": True,
    "guarantees": atomicpath.Guarantee.SYNC,
    "unsafe_takeover": True,
    "allow_empty": True,
    "marker": "_SUCCESS",
}


@pytest.mark.parametrize("face", [sync, aio])
@pytest.mark.parametrize("name", ["commit", "begin", "put"])
def test_every_option_arrives(face: Any, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Arrived(Exception):
        pass

    seen: list[CommitOptions] = []

    def options(**given: Any) -> CommitOptions:
        seen.append(CommitOptions(**given))
        raise Arrived

    monkeypatch.setattr(aio, "CommitOptions", options)
    places = (tmp_path / "source", tmp_path / "final") if name == "put" else (tmp_path / "final",)
    with pytest.raises(Arrived):
        if face is aio and name != "commit":
            anyio.run(partial(getattr(aio, name), *places, **OPTIONS))
        getattr(face, name)(*places, **OPTIONS)
    public = {field.name for field in fields(CommitOptions)} - {"allow_unfinished", "copied_from"}
    assert (
        public
        == set(OPTIONS)
        == set(inspect.signature(getattr(face, name)).parameters) - {"url", "local_dir", "consume"}
    )
    for option, value in OPTIONS.items():
        assert getattr(seen[0], option) == value
        assert getattr(CommitOptions(), option) != value


def test_a_session_and_put_say_what_was_committed(root: Root, tmp_path: Path) -> None:
    session = atomicpath.commit(root / "step_7", storage_options=root.storage_options)
    with pytest.raises(atomicpath.CommitError, match="has no result"):
        session.result  # noqa: B018 - it raises
    with session as path:
        (path / "x").write_bytes(b"1")
    assert session.result == atomicpath.latest(root.url, storage_options=root.storage_options)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "y").write_bytes(b"2")
    done = atomicpath.put(tmp_path / "made", root / "step_8", storage_options=root.storage_options)
    assert done == atomicpath.latest(root.url, storage_options=root.storage_options)
    assert (done.name, done.step) == ("step_8", 8)
    assert done.record is not None
    assert [file.name for file in done.record.files] == ["y"]


def test_a_session_that_failed_has_no_result(root: Root) -> None:
    session = atomicpath.commit(root / "step_7", storage_options=root.storage_options)
    with pytest.raises(ZeroDivisionError), session:
        raise ZeroDivisionError
    with pytest.raises(atomicpath.CommitError, match="has no result"):
        session.result  # noqa: B018 - it raises


def test_the_interface_of_the_seeds_is_in_one_module() -> None:
    for name in atomicity.__all__:
        if name in ("create_all", "on_commit_callback"):
            assert getattr(atomicity, name) is getattr(aio, name)
        else:
            assert getattr(atomicity, name) is getattr(atomicpath, name)
