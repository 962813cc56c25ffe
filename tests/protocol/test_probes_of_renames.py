"""The probe of renames finds out those that replace, merge or copy, and says of honest ones what it saw."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from atomicpath._profile.location import Location
from atomicpath._profile.probing import profile_of
from atomicpath.abc import Backend, Declaration, Environment
from atomicpath.guarantees import Guarantee
from atomicpath_local.storage import LocalStorage

RENAME = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE


class Remote(LocalStorage):
    """As if it were far away: what is declared are directories, what may be observed are renames."""

    is_local = False

    async def declare(self, path: str) -> Declaration:
        return Declaration(declared=Guarantee.DIRECTORIES, observable=RENAME)


class Replacing(Remote):
    """rename(2): an empty directory at the target is gone."""

    async def rename_directory(self, source: str, target: str) -> None:
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(errno.EEXIST, "taken") from error
            raise


class Merging(Remote):
    async def rename_directory(self, source: str, target: str) -> None:
        shutil.copytree(source, target, dirs_exist_ok=True)
        shutil.rmtree(source)


class Copying(Remote):
    async def rename_directory(self, source: str, target: str) -> None:
        try:
            shutil.copytree(source, target)
        except FileExistsError as error:
            raise FileExistsError(errno.EEXIST, "taken") from error


class Of(Backend):
    protocols = ("of",)

    def __init__(self, storage: type[LocalStorage]) -> None:
        self._storage = storage

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> LocalStorage:
        return self._storage(environment)


@pytest.mark.parametrize(
    ("storage", "refuted", "words"),
    [
        (Replacing, Guarantee.RENAME_NOREPLACE, "renamed onto an empty one"),
        (Merging, Guarantee.RENAME_NOREPLACE, "6 of 6 directories were renamed to one name"),
        (Copying, Guarantee.ATOMIC_RENAME, "still at its old name"),
    ],
)
async def test_a_rename_that_is_none_is_refuted(
    tmp_path: Path, storage: type[LocalStorage], refuted: Guarantee, words: str
) -> None:
    profile = await profile_of(Location(backend=Of(storage), path=f"{tmp_path}/new/step_1"))
    assert refuted in profile.refuted
    assert words in profile.evidence[refuted]
    assert list(tmp_path.iterdir()) == [], "not even the parent was made"


async def test_an_honest_rename_is_observed(tmp_path: Path) -> None:
    profile = await profile_of(Location(backend=Of(Remote), path=f"{tmp_path}/new/step_1"))
    assert profile.observed == RENAME
    assert "seen whole or not at all" in profile.evidence[Guarantee.ATOMIC_RENAME]
    assert "one won, nothing was replaced" in profile.evidence[Guarantee.RENAME_NOREPLACE]
    assert list(tmp_path.iterdir()) == []
