"""Where a directory cannot be renamed out of the house-keeping directory, attempts are hidden siblings."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import anyio
import pytest
from upath import UPath

import atomicpath
from atomicpath import AlreadyCommittedError, AtomicRenameTemporaryPath, Guarantee, aio
from atomicpath._core.environment import Environment, use
from atomicpath._core.layout import HOUSEKEEPING
from atomicpath_local.rename import no_replace
from tests.support.mounts import ASKED, answer

P = ParamSpec("P")
T = TypeVar("T")
RENAME = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE


class Mounted(Environment):
    """Everything is on a mount of a kind; BeeGFS and the unknown one refuse as their sources say."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.renamed: list[tuple[str, str]] = []
        self.made: list[str] = []

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function in ASKED:
            mounts = f"1 0 0:1 / / rw - {self.kind} server rw\n"
            return answer(mounts, function, args[0])  # type: ignore[arg-type,return-value]
        if function in (no_replace, os.rename):
            self._check_rename(function, str(args[0]), str(args[1]))
        if function is os.mkdir:
            self.made.append(str(args[0]))
        return function(*args, **kwargs)

    def _check_rename(self, function: object, source: str, target: str) -> None:
        if self.kind == "beegfs":
            if function is no_replace:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            if os.path.isdir(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        elif os.path.dirname(source) != os.path.dirname(target) and os.path.isdir(source):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        self.renamed.append((source, target))


@pytest.fixture(params=["beegfs", "fuse.unheard"])
def mounted(request: pytest.FixtureRequest) -> Iterator[Mounted]:
    environment = Mounted(request.param)
    with use(environment):
        yield environment


def guarantees_of(mounted: Mounted) -> Guarantee | None:
    return None if mounted.kind == "beegfs" else RENAME | Guarantee.SYNC


def committed_by_the_face(face: str, url: Path, guarantees: Guarantee | None) -> None:
    async def main() -> None:
        async with aio.commit(url, guarantees=guarantees) as path:
            (Path(path) / "file").write_bytes(b"x")

    if face == "blocking":
        with atomicpath.commit(url, guarantees=guarantees) as path:
            (Path(path) / "file").write_bytes(b"x")
    else:
        anyio.run(main, backend=face)


@pytest.mark.parametrize("face", ["blocking", "asyncio", "trio"])
def test_the_first_commit_already_is_a_hidden_sibling(face: str, mounted: Mounted, tmp_path: Path) -> None:
    for number in range(2):
        committed_by_the_face(face, tmp_path / f"step_{number}", guarantees_of(mounted))
        renamed = [source for source, target in mounted.renamed if target == f"{tmp_path}/step_{number}"]
        (source,) = renamed
        assert os.path.dirname(source) == str(tmp_path)
        assert os.path.basename(source).startswith(f".step_{number}.atomicpath-tmp-")
    assert sorted(os.listdir(tmp_path)) == ["step_0", "step_1"], "nothing of the probes is left"
    with pytest.raises(AlreadyCommittedError):
        committed_by_the_face(face, tmp_path / "step_0", guarantees_of(mounted))
    assert sorted(os.listdir(tmp_path)) == ["step_0", "step_1"]


def test_a_server_that_refuses_by_itself_needs_no_placeholder(tmp_path: Path) -> None:
    with use(Mounted("beegfs")) as mounted:
        assert isinstance(mounted, Mounted)
        committed_by_the_face("blocking", tmp_path / "step_1", None)
        assert f"{tmp_path}/step_1" not in mounted.made
        sources = [source.split("/") for source, target in mounted.renamed if target.endswith("/step_1")]
        assert len(sources) == 1
        assert HOUSEKEEPING not in sources[0]


async def test_the_strategy_by_itself_finds_it_out_too(tmp_path: Path) -> None:
    with use(Mounted("beegfs")):
        attempt = AtomicRenameTemporaryPath.from_final(UPath(tmp_path / "step_1"))
        path = await attempt.create()
        assert Path(str(path)).parent == tmp_path
        (Path(str(path)) / "file").write_bytes(b"x")
        await attempt.finalize()
    assert os.listdir(tmp_path) == ["step_1"]


def test_on_a_known_disk_nothing_is_tried(tmp_path: Path) -> None:
    with use(Mounted("ext4")) as mounted:
        assert isinstance(mounted, Mounted)
        mounted._check_rename = lambda *_: None  # type: ignore[method-assign]
        committed_by_the_face("blocking", tmp_path / "step_1", None)
        assert [path for path in mounted.made if "probe" in path] == []
