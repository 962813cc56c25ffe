"""The floor, row by row (SPEC.md A1 to A7, A17, A18): the interface that training code already knows."""

from __future__ import annotations

import inspect
import os
import secrets
import stat
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest
from upath import UPath

import atomicpath
from atomicpath import (
    AtomicRenameTemporaryPath,
    CommitFileTemporaryPath,
    FileOptions,
    SnapshotType,
    TemporaryPath,
)
from atomicpath._core.layout import temporary_of
from tests.support.roots import LocalRoot, MemoryRoot, Root

from .conftest import Counting

STRATEGIES = [AtomicRenameTemporaryPath, CommitFileTemporaryPath]
strategies = pytest.mark.parametrize("strategy", STRATEGIES)


class FromScratch(TemporaryPath):
    """A user's own strategy on plain pathlib: unsafe against rivals, but it follows the interface."""

    calls: list[str] = []  # noqa: RUF012 - reset by the tests

    def __init__(self, final: Path, temporary: Path) -> None:
        self._final, self._temporary = final, temporary

    @classmethod
    async def validate(cls, temporary_path: UPath) -> None:
        raise NotImplementedError

    @classmethod
    async def validate_final(cls, final_path: UPath) -> None:
        raise NotImplementedError

    @classmethod
    def from_temporary(cls, temporary_path: Any, *, file_options: Any = None, snapshot_type: Any = None) -> Self:
        raise NotImplementedError

    @classmethod
    def from_final(
        cls,
        final_path: Any,
        *,
        checkpoint_metadata_store: Any = None,
        file_options: Any = None,
        snapshot_type: Any = None,
    ) -> Self:
        cls.calls.append("from_final")
        final = Path(os.fspath(final_path))
        return cls(final, final.with_name(f"{final.name}.mine-{secrets.token_hex(4)}"))

    def get(self) -> Any:
        return self._temporary

    def get_final(self) -> Any:
        return self._final

    async def create(self) -> Any:
        self.calls.append("create")
        self._temporary.mkdir()
        return self._temporary

    async def finalize(self) -> None:
        self.calls.append("finalize")
        (self._temporary / "commit_success.txt").write_text("done by hand")
        self._temporary.rename(self._final)

    async def discard(self) -> None:
        self.calls.append("discard")
        if self._temporary.exists():
            for file in self._temporary.iterdir():
                file.unlink()
            self._temporary.rmdir()


class Thoughtful(AtomicRenameTemporaryPath):
    """A user's refinement of ours."""

    async def finalize(self) -> None:
        await anyio.lowlevel.checkpoint()
        await super().finalize()


def _at(root: Root, name: str) -> UPath:
    options: dict[str, Any] = root.storage_options
    path: UPath = UPath(root / name, **options)
    return path


# A1


def test_the_interface_is_abstract_and_has_the_names_training_code_knows() -> None:
    assert TemporaryPath.__abstractmethods__ == {
        *("validate", "validate_final", "from_temporary", "from_final"),
        *("get", "get_final", "create", "finalize", "discard"),
    }
    with pytest.raises(TypeError):
        TemporaryPath()  # type: ignore[abstract]
    for name in ("create", "finalize", "discard", "validate", "validate_final"):
        assert inspect.iscoroutinefunction(getattr(TemporaryPath, name)), name
    for name, extra in (("from_temporary", set()), ("from_final", {"checkpoint_metadata_store"})):
        parameters = dict(inspect.signature(getattr(TemporaryPath, name)).parameters)
        parameters.pop(next(iter(parameters)))
        assert parameters.keys() == {"file_options", "snapshot_type"} | extra
        assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
        assert all(parameter.default is None for parameter in parameters.values())


@strategies
def test_get_is_stable_and_nothing_is_asked_of_the_world_before_create(
    strategy: type[TemporaryPath], root: Root, world: Counting
) -> None:
    attempt = strategy.from_final(_at(root, "step_1"))
    assert attempt.get() == attempt.get()
    assert str(attempt.get_final()) == str(_at(root, "step_1"))
    strategy.from_temporary(attempt.get())
    assert world.asked == []
    assert root.read_all() == {}


async def test_the_path_that_create_returns_is_the_one_get_told_before(root: Root) -> None:
    strategy = AtomicRenameTemporaryPath if root.kind == "local" else CommitFileTemporaryPath
    attempt = strategy.from_final(_at(root, "step_1"))
    told = attempt.get()
    assert await attempt.create() == told == attempt.get()
    (told / "x").write_bytes(b"1")
    await attempt.finalize()
    assert await atomicpath.aio.is_committed(root / "step_1", storage_options=root.storage_options)
    assert root.read_all("step_1")["x"] == b"1"


def test_a_users_own_strategy_can_be_handed_in(local: LocalRoot) -> None:
    FromScratch.calls = []
    with atomicpath.commit(local / "step_1", temporary_path_class=FromScratch) as path:
        assert isinstance(path, Path)
        assert ".mine-" in path.name
        (path / "x").write_bytes(b"1")
    assert FromScratch.calls == ["from_final", "create", "finalize"]
    assert atomicpath.is_committed(local / "step_1")
    assert local.names() == ["step_1"]


def test_a_users_own_strategy_is_discarded_when_the_block_raises(local: LocalRoot) -> None:
    FromScratch.calls = []
    with (
        pytest.raises(ZeroDivisionError),
        atomicpath.commit(local / "step_1", temporary_path_class=FromScratch) as path,
    ):
        (path / "x").write_bytes(b"1")
        raise ZeroDivisionError
    assert FromScratch.calls == ["from_final", "create", "discard"]
    assert local.names() == []


def test_a_users_refinement_of_ours_can_be_handed_in(local: LocalRoot) -> None:
    with atomicpath.commit(local / "step_1", temporary_path_class=Thoughtful) as path:
        (path / "x").write_bytes(b"1")
    assert local.read_all("step_1")["x"] == b"1"
    assert local.names() == ["step_1"]


async def test_a_users_refinement_works_asynchronously_and_leaves_nothing_when_cancelled(local: LocalRoot) -> None:
    async with atomicpath.aio.commit(local / "step_1", temporary_path_class=Thoughtful) as path:
        (path / "x").write_bytes(b"1")
    with anyio.CancelScope() as scope:
        async with atomicpath.aio.commit(local / "step_2", temporary_path_class=Thoughtful) as path:
            (path / "x").write_bytes(b"1")
            scope.cancel()  # its first await is inside the user's finalize
    assert scope.cancelled_caught
    assert local.names() == ["step_1"]


def test_a_users_strategy_that_fails_to_finalize_is_discarded(local: LocalRoot) -> None:
    class Failing(AtomicRenameTemporaryPath):
        async def finalize(self) -> None:
            raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        atomicpath.commit(local / "step_1", temporary_path_class=Failing, allow_empty=True),
    ):
        pass
    assert local.names() == []


@strategies
async def test_an_attempt_created_by_another_object_is_recovered_and_finalized(
    strategy: type[TemporaryPath], local: LocalRoot
) -> None:
    first = strategy.from_final(_at(local, "step_1"))
    (await first.create() / "x").write_bytes(b"1")
    second = strategy.from_temporary(first.get())
    assert second.get() == first.get()
    assert second.get_final() == first.get_final() == _at(local, "step_1")
    await second.finalize()
    assert local.read_all("step_1")["x"] == b"1"
    assert (await atomicpath.aio.verify(local / "step_1")).ok


@strategies
async def test_what_another_object_finalized_is_not_held_by_the_one_that_created_it(
    strategy: type[TemporaryPath], local: LocalRoot
) -> None:
    """Else nobody could replace or remove it for as long as this process lives."""
    first = strategy.from_final(_at(local, "step_1"))
    await first.create()
    (first.get() / "file").write_bytes(b"x")
    await strategy.from_temporary(first.get()).finalize()
    async with atomicpath.aio.commit(first.get_final(), replace=True) as path:
        (path / "file").write_bytes(b"y")
    await atomicpath.aio.remove(first.get_final())
    await first.discard()
    assert local.names() == []


async def test_an_attempt_on_a_store_is_recovered_and_finalized(store: Root) -> None:
    first = CommitFileTemporaryPath.from_final(_at(store, "step_1"))
    (await first.create() / "x").write_bytes(b"1")
    token = (await CommitFileTemporaryPath.from_temporary(first.get())._adopt()).record.token
    await CommitFileTemporaryPath.from_temporary(first.get()).finalize()
    await first.discard()  # it is not the first's any more: nothing happens
    record = await atomicpath.aio.read_record(store / "step_1", storage_options=store.storage_options)
    assert (record.token, [file.name for file in record.files]) == (token, ["x"])


@strategies
async def test_create_twice_is_an_error_and_harms_nothing(strategy: type[TemporaryPath], local: LocalRoot) -> None:
    attempt = strategy.from_final(_at(local, "step_1"))
    (await attempt.create() / "x").write_bytes(b"1")
    with pytest.raises(atomicpath.CommitError, match="created before"):
        await attempt.create()
    await attempt.finalize()
    assert local.read_all("step_1")["x"] == b"1"
    with pytest.raises(atomicpath.CommitError, match="created before"):
        await attempt.create()


@strategies
async def test_finalize_before_create_is_an_error(strategy: type[TemporaryPath], root: Root) -> None:
    if root.kind != "local" and strategy is AtomicRenameTemporaryPath:
        strategy = CommitFileTemporaryPath
    with pytest.raises(atomicpath.CommitError, match="call create first"):
        await strategy.from_final(_at(root, "step_1")).finalize()
    assert root.read_all() == {}


@strategies
async def test_finalize_twice_is_an_error_and_the_commit_stays(strategy: type[TemporaryPath], local: LocalRoot) -> None:
    attempt = strategy.from_final(_at(local, "step_1"))
    (await attempt.create() / "x").write_bytes(b"1")
    await attempt.finalize()
    before = local.read_all()
    with pytest.raises(atomicpath.CommitError, match="over"):
        await attempt.finalize()
    assert local.read_all() == before


async def test_discard_can_be_repeated_and_does_nothing_before_create_or_after_finalize(root: Root) -> None:
    strategy = AtomicRenameTemporaryPath if root.kind == "local" else CommitFileTemporaryPath
    never = strategy.from_final(_at(root, "step_0"))
    await never.discard()
    given_up = strategy.from_final(_at(root, "step_1"))
    (await given_up.create() / "x").write_bytes(b"1")
    await given_up.discard()
    await given_up.discard()
    assert root.read_all() == {}
    with pytest.raises(atomicpath.CommitError, match="over"):
        await given_up.finalize()
    done = strategy.from_final(_at(root, "step_2"))
    await done.create()
    await done.finalize()
    before = root.read_all()
    await done.discard()
    assert root.read_all() == before
    assert root.names() == ["step_2"]


# A2


async def test_the_temporary_directory_is_beside_the_final_one_and_carries_the_suffix(
    local: LocalRoot,
) -> None:
    attempt = AtomicRenameTemporaryPath.from_final(_at(local, "step_1"))
    path = await attempt.create()
    assert str(path.parent) == f"{local.url}/.atomicpath"
    assert os.listdir(path) == []
    assert path.name.startswith(f"step_1{atomicpath.TMP_DIR_SUFFIX}")
    (path / "x").write_bytes(b"1")
    inode = os.stat(path).st_ino
    assert not (local.path / "step_1").exists()
    await attempt.finalize()
    assert local.names() == ["step_1"]
    assert (local.path / "step_1").stat().st_ino == inode, "it was copied, not renamed"


def test_the_final_path_is_recovered_from_the_name_and_one_without_the_suffix_is_a_value_error(
    local: LocalRoot,
) -> None:
    attempt = AtomicRenameTemporaryPath.from_temporary(_at(local, temporary_of("step_1", "0123")))
    assert attempt.get_final() == _at(local, "step_1")
    with pytest.raises(ValueError, match=r"\.atomicpath-tmp-"):
        AtomicRenameTemporaryPath.from_temporary(_at(local, "step_1"))


def test_empty_dir_target_silently_replaced(local: LocalRoot) -> None:
    (local.path / "step_1").mkdir()
    with (
        pytest.raises(atomicpath.ConflictError, match="move it away"),
        atomicpath.commit(local / "step_1", temporary_path_class=AtomicRenameTemporaryPath, allow_empty=True),
    ):
        pytest.fail("entered")
    with (
        pytest.raises(atomicpath.ConflictError, match="move it away"),
        atomicpath.commit(local / "step_2", temporary_path_class=AtomicRenameTemporaryPath, allow_empty=True),
    ):
        (local.path / "step_2").mkdir()
    assert local.names() == ["step_1", "step_2"]
    assert local.read_all() == {}


# A3


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
async def test_the_commit_file_strategy_writes_in_place_and_the_marker_comes_last(
    kind: str, request: pytest.FixtureRequest
) -> None:
    root: Root = request.getfixturevalue(kind)
    attempt = CommitFileTemporaryPath.from_final(_at(root, "step_1"))
    path = await attempt.create()
    assert str(path) == str(_at(root, "step_1"))
    (path / "x").write_bytes(b"1")
    assert set(root.read_all("step_1")) == {"x", "_commit_record.json"}
    assert not await atomicpath.aio.is_committed(root / "step_1", storage_options=root.storage_options)
    await attempt.finalize()
    assert set(root.read_all("step_1")) == {"x", "_commit_record.json", atomicpath.COMMIT_SUCCESS_FILE}
    assert await atomicpath.aio.is_committed(root / "step_1", storage_options=root.storage_options)


@pytest.mark.parametrize("snapshot", list(SnapshotType))
def test_a_snapshot_type_is_refused_with_a_value_error(snapshot: SnapshotType, root: Root) -> None:
    for make in (CommitFileTemporaryPath.from_final, CommitFileTemporaryPath.from_temporary):
        with pytest.raises(ValueError, match="snapshot"):
            make(_at(root, "step_1"), snapshot_type=snapshot)


# A4


async def test_validate_wants_a_temporary_directory_that_is_no_link(local: LocalRoot) -> None:
    name = temporary_of("step_1", "0123")
    (local.path / name).mkdir(parents=True)
    await AtomicRenameTemporaryPath.validate(_at(local, name))
    (local.path / temporary_of("step_2", "0123")).symlink_to(local.path / name)
    (local.path / temporary_of("step_3", "0123")).write_bytes(b"")
    (local.path / "step_4").mkdir()
    for wrong, reason in {
        temporary_of("step_2", "0123"): "a symbolic link",
        temporary_of("step_3", "0123"): "is a file",
        "step_4": r"no '\.atomicpath-tmp-'",
        temporary_of("step_5", "0123"): "missing",
    }.items():
        with pytest.raises(atomicpath.ValidationError, match=reason) as raised:
            await AtomicRenameTemporaryPath.validate(_at(local, wrong))
        assert wrong in str(raised.value)
        assert isinstance(raised.value, ValueError)


async def test_validate_wants_a_directory_without_a_commit_file(root: Root) -> None:
    root.write("step_1/x", b"")
    await CommitFileTemporaryPath.validate(_at(root, "step_1"))
    root.write(f"step_2/{atomicpath.COMMIT_SUCCESS_FILE}", b"")
    for wrong, reason in {"step_2": r"commit_success\.txt is there", "step_3": "missing"}.items():
        with pytest.raises(atomicpath.ValidationError, match=reason) as raised:
            await CommitFileTemporaryPath.validate(_at(root, wrong))
        assert wrong in str(raised.value)


# A5


async def test_validate_final_wants_a_finished_directory(root: Root) -> None:
    root.write(f"step_1/{atomicpath.COMMIT_SUCCESS_FILE}", b"")
    root.write("step_2/x", b"")
    root.write(f"{temporary_of('step_3', '0123')}/{atomicpath.COMMIT_SUCCESS_FILE}", b"")
    await CommitFileTemporaryPath.validate_final(_at(root, "step_1"))
    await AtomicRenameTemporaryPath.validate_final(_at(root, "step_2"))
    for strategy, wrong, reason in [
        (CommitFileTemporaryPath, "step_2", r"commit_success\.txt is missing"),
        (CommitFileTemporaryPath, "step_4", "missing"),
        (AtomicRenameTemporaryPath, "step_4", "missing"),
        (AtomicRenameTemporaryPath, temporary_of("step_3", "0123"), "temporary path"),
    ]:
        with pytest.raises(atomicpath.ValidationError, match=reason) as raised:
            await strategy.validate_final(_at(root, wrong))
        assert wrong in str(raised.value)


async def test_validate_final_refuses_links(local: LocalRoot) -> None:
    local.write(f"step_1/{atomicpath.COMMIT_SUCCESS_FILE}", b"")
    (local.path / "step_2").symlink_to(local.path / "step_1")
    for strategy in STRATEGIES:
        with pytest.raises(atomicpath.ValidationError, match="a symbolic link"):
            await strategy.validate_final(_at(local, "step_2"))


# A6


def test_stale_temp_name_collision(local: LocalRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a preempted run left behind stays for `sweep`, and never stands in the way."""
    local.write(f"{temporary_of('step_1', 'ffff')}/x", b"left behind")
    with atomicpath.commit(local / "step_1") as path:
        (path / "x").write_bytes(b"new")
    assert local.read_all("step_1")["x"] == b"new"
    assert local.read_all(temporary_of("step_1", "ffff")) == {"x": b"left behind"}


async def test_a_name_that_another_attempt_has_already_is_left_alone(local: LocalRoot) -> None:
    taken = temporary_of("step_1", "ffff")
    local.write(f"{taken}/x", b"live")
    attempt = AtomicRenameTemporaryPath.from_temporary(_at(local, taken))
    with pytest.raises(atomicpath.CommitError, match="another attempt"):
        await attempt.create()
    assert local.read_all() == {f"{taken}/x": b"live"}


def test_a_killed_run_is_continued_by_the_next_one_at_once(root: Root, python: Any) -> None:
    """On the same host the system itself says that the holder is gone: no lease is waited for."""
    if root.kind == "memory":
        pytest.skip("memory is lost with its process")
    script = """
import os, sys, atomicpath
with atomicpath.commit(sys.argv[1], storage_options=eval(sys.argv[2])) as path:
    (path / "half").write_bytes(b"1")
    os._exit(9)
"""
    assert python(script, root / "step_1", repr(root.storage_options)).returncode == 9
    assert not atomicpath.is_committed(root / "step_1", storage_options=root.storage_options)
    left = atomicpath.attempts(root.url, storage_options=root.storage_options)
    assert [found.alive for found in left] == [False]
    with atomicpath.commit(root / "step_1", storage_options=root.storage_options) as path:
        (path / "x").write_bytes(b"2")
    marker = {"commit_success.txt"} if root.kind == "s3" else set()
    assert set(root.read_all("step_1")) == {"x", "_commit_record.json"} | marker
    assert atomicpath.attempts(root.url, storage_options=root.storage_options) == []


# A7


@strategies
@pytest.mark.parametrize("mode", [0o750, 0o777, 0o700])
def test_the_mode_of_the_directory_is_the_one_asked_for(
    strategy: type[TemporaryPath], mode: int, local: LocalRoot
) -> None:
    options = FileOptions(path_permission_mode=mode)
    with atomicpath.commit(
        local / "step_1", temporary_path_class=strategy, file_options=options, allow_empty=True
    ) as path:
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert stat.S_IMODE((local.path / "step_1").stat().st_mode) == mode


def test_a_mode_that_cannot_be_honoured_is_refused(store: Root) -> None:
    with (
        pytest.raises(atomicpath.GuaranteeError, match=r"DIRECTORIES.*Leave it out"),
        atomicpath.commit(
            store / "step_1",
            storage_options=store.storage_options,
            file_options=FileOptions(path_permission_mode=0o750),
        ),
    ):
        pytest.fail("entered")
    assert store.read_all() == {}


# A17


@strategies
def test_the_class_named_by_the_caller_is_the_one_used(strategy: type[TemporaryPath], local: LocalRoot) -> None:
    with atomicpath.commit(local / "step_1", temporary_path_class=strategy, allow_empty=True) as path:
        assert (path.name == "step_1") is (strategy is CommitFileTemporaryPath)
    expected = {AtomicRenameTemporaryPath: "atomic_rename", CommitFileTemporaryPath: "commit_file"}[strategy]
    assert atomicpath.read_record(local / "step_1").strategy == expected


@pytest.mark.parametrize(
    ("kind", "strategy"), [("local", "atomic_rename"), ("memory", "commit_file"), ("s3", "commit_file")]
)
def test_left_to_the_library_the_class_follows_from_the_guarantees(
    kind: str, strategy: str, request: pytest.FixtureRequest
) -> None:
    root: Root = request.getfixturevalue(kind)
    with atomicpath.commit(root / "step_1", storage_options=root.storage_options, allow_empty=True):
        pass
    assert atomicpath.read_record(root / "step_1", storage_options=root.storage_options).strategy == strategy
    chosen = atomicpath.explain(root / "step_1", storage_options=root.storage_options).strategy
    assert chosen in STRATEGIES
    assert chosen is atomicpath.select(atomicpath.profile(root / "step_1", storage_options=root.storage_options))


def test_a_class_whose_needs_are_not_met_is_refused(memory: MemoryRoot) -> None:
    with (
        pytest.raises(atomicpath.GuaranteeError, match="ATOMIC_RENAME"),
        atomicpath.commit(memory / "step_1", temporary_path_class=AtomicRenameTemporaryPath),
    ):
        pytest.fail("entered")
    assert memory.read_all() == {}


# A18


def test_temporary_and_finished_directories_below_a_root_are_told_apart(root: Root) -> None:
    options = root.storage_options
    with atomicpath.commit(root / "step_1", storage_options=options, allow_empty=True):
        pass
    root.write("logs/events", b"not ours")
    strategy = AtomicRenameTemporaryPath if root.kind == "local" else CommitFileTemporaryPath
    attempt = strategy.from_final(_at(root, "step_2"))
    anyio.run(attempt.create)
    assert [found.name for found in atomicpath.committed(root.url, storage_options=options)] == ["step_1"]
    (found,) = atomicpath.attempts(root.url, storage_options=options)
    assert str(found.path) == str(attempt.get())
    assert str(found.final) == str(_at(root, "step_2"))
    assert found.alive is True
    assert found.record is not None
    anyio.run(attempt.discard)
    assert atomicpath.attempts(root.url, storage_options=options) == []


def test_a_damaged_attempt_is_listed_too(root: Root) -> None:
    root.write(f"{temporary_of('step_1', 'ffff')}/_commit_record.json", b'{"format"')
    root.write("step_2/_commit_record.json", b"")
    found = atomicpath.attempts(root.url, storage_options=root.storage_options)
    assert [(item.final.name, item.record, item.alive) for item in found] == [
        ("step_1", None, None),
        ("step_2", None, None),
    ]
