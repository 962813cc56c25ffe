"""The rename protocol where no kernel answers: an error of the rename says nothing until its source was moved away."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from upath import UPath

from atomicpath import AtomicRenameTemporaryPath, CommitError, OutcomeUnknownError, is_committed, read_record
from atomicpath._core.environment import use
from atomicpath.abc import AttemptOptions, Entry
from atomicpath_local.storage import LocalStorage
from tests.protocol.worlds import Quick

Rename = Callable[[LocalStorage, str, str], Awaitable[None]]
RENAME: Rename = LocalStorage.rename_directory
TIMEOUT = TimeoutError(errno.ETIMEDOUT, "no answer, as the test asked")


@pytest.fixture
def renames(monkeypatch: pytest.MonkeyPatch) -> list[Rename]:
    """What the next renames do, in this order; then they do what they should. The local disk counts as a server."""
    planned: list[Rename] = []

    async def rename(storage: LocalStorage, source: str, target: str) -> None:
        await (planned.pop(0) if planned else RENAME)(storage, source, target)

    monkeypatch.setattr(LocalStorage, "is_local", False)
    monkeypatch.setattr(LocalStorage, "rename_directory", rename)
    return planned


async def finalized(final: Path) -> None:
    with use(Quick()):
        attempt = AtomicRenameTemporaryPath.from_final(UPath(final))
        await attempt.create()
        Path(str(attempt.get()), "file").write_bytes(b"x")
        await attempt.finalize()


async def unanswered(storage: LocalStorage, source: str, target: str) -> None:
    raise TIMEOUT


async def done_but_unanswered(storage: LocalStorage, source: str, target: str) -> None:
    await RENAME(storage, source, target)
    raise TIMEOUT


async def test_a_rename_that_happened_without_an_answer_is_a_commit(tmp_path: Path, renames: list[Rename]) -> None:
    renames.append(done_but_unanswered)
    await finalized(tmp_path / "step_1")
    assert os.listdir(tmp_path) == ["step_1"]


async def test_a_rename_without_an_answer_is_withdrawn_before_it_counts_as_failed(
    tmp_path: Path, renames: list[Rename]
) -> None:
    late: list[tuple[LocalStorage, str, str]] = []

    async def delayed(storage: LocalStorage, source: str, target: str) -> None:
        late.append((storage, source, target))
        raise TIMEOUT

    renames.append(delayed)
    with pytest.raises(CommitError, match="was not committed") as caught:
        await finalized(tmp_path / "step_1")
    assert not isinstance(caught.value, OutcomeUnknownError)
    with pytest.raises(FileNotFoundError):
        await RENAME(*late[0])
    assert os.listdir(tmp_path) == []


async def test_a_rename_that_happens_while_it_is_withdrawn_is_a_commit(tmp_path: Path, renames: list[Rename]) -> None:
    async def overtaken(storage: LocalStorage, source: str, target: str) -> None:
        await RENAME(storage, source, str(tmp_path / "step_1"))
        await RENAME(storage, source, target)

    renames.extend([unanswered, overtaken])
    await finalized(tmp_path / "step_1")
    assert os.listdir(tmp_path) == ["step_1"]


async def test_a_withdrawal_without_an_answer_is_looked_after(tmp_path: Path, renames: list[Rename]) -> None:
    renames.extend([unanswered, unanswered, done_but_unanswered])
    with pytest.raises(CommitError, match="the attempt was discarded"):
        await finalized(tmp_path / "step_1")
    assert os.listdir(tmp_path) == []


async def test_what_cannot_be_withdrawn_is_unknown_and_left_alone(tmp_path: Path, renames: list[Rename]) -> None:
    renames.extend([unanswered] * 20)
    with pytest.raises(OutcomeUnknownError, match="Nothing was cleaned up"):
        await finalized(tmp_path / "step_1")
    assert os.listdir(tmp_path) == [".atomicpath"]
    left, record = sorted((tmp_path / ".atomicpath").iterdir())
    assert record.name == f"{left.name}.json"
    assert {path.name for path in left.iterdir()} == {"file", "_commit_record.json"}
    assert not is_committed(tmp_path / "step_1")


async def test_a_refusal_is_believed_at_once(tmp_path: Path, renames: list[Rename]) -> None:
    async def refused(storage: LocalStorage, source: str, target: str) -> None:
        raise PermissionError(errno.EACCES, "as the test asked")

    renames.append(refused)
    with pytest.raises(CommitError, match="the attempt was discarded"):
        await finalized(tmp_path / "step_1")
    assert os.listdir(tmp_path) == []


async def test_a_staged_file_goes_through_the_storage(
    tmp_path: Path, renames: list[Rename], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str]] = []
    taken = False

    async def upload(storage: LocalStorage, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:
        sent.append((path, owner))
        raise FileExistsError(path)

    async def stat(storage: LocalStorage, path: str) -> Entry:
        return Entry(name="", size=1, version="1", owner="somebody else" if taken else sent[-1][1])

    (tmp_path / "source").write_bytes(b"x")
    attempt = AtomicRenameTemporaryPath.from_final(UPath(tmp_path / "step_1"))
    attempt.configure(AttemptOptions(direct=False, checksums=True))
    await attempt.create()
    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "upload", upload)
        patched.setattr(LocalStorage, "stat", stat)
        await attempt.add("sub/file", tmp_path / "source")  # our own retry was told that it exists
        assert sent == [(f"{attempt.get()}/sub/file", str(attempt.get()).rpartition("-")[2])]
        taken = True
        with pytest.raises(FileExistsError):
            await attempt.add("file", tmp_path / "source")
    await attempt.finalize()
    (file,) = read_record(tmp_path / "step_1").files  # what was added, without a listing
    assert (file.name, file.size, file.sha256) == ("sub/file", 1, hashlib.sha256(b"x").hexdigest())
