"""What is said of a URL that no plug-in serves: nothing is guessed of a store, and nothing is written there."""

from __future__ import annotations

import pytest

import atomicpath
from atomicpath import guarantees

_CLIENT = pytest.mark.servers  # its class in fsspec imports the client of a store


@pytest.mark.parametrize(
    "protocol", ["hdfs", pytest.param("hf", marks=_CLIENT), "ftp", pytest.param("http", marks=_CLIENT)]
)
def test_what_only_fsspec_can_reach_is_refused_with_what_to_assert_or_write(protocol: str) -> None:
    with pytest.raises(atomicpath.GuaranteeError) as caught, atomicpath.commit(f"{protocol}://host/run/step_1"):
        pytest.fail("the block was entered")
    words = str(caught.value)
    for needed in (
        "ATOMIC_RENAME",
        "RENAME_NOREPLACE",
        "a plug-in with a rename of its own",
        "docs/writing-a-backend.md",
    ):
        assert needed in words
    assert "guarantees=Guarantee.ATOMIC_WRITE | Guarantee.LIST_AFTER_WRITE | Guarantee.EXCLUSIVE_CREATE" in words


@pytest.mark.parametrize(("protocol", "brings"), [("box", "boxfs"), ("dropbox", "dropboxdrivefs"), ("tos", "tosfs")])
def test_what_fsspec_needs_a_library_for_is_refused_with_its_name(protocol: str, brings: str) -> None:
    with pytest.raises(atomicpath.BackendError, match=brings), atomicpath.commit(f"{protocol}://host/run/step_1"):
        pytest.fail("the block was entered")


def test_an_unknown_scheme_is_called_so() -> None:
    with pytest.raises(atomicpath.BackendError, match="fsspec does not know it either: check the spelling") as caught:
        atomicpath.is_committed("nosuch://host/run/step_1")
    for needed in ("no backend serves 'nosuch' URLs", "'atomicpath.backends'", "s3"):
        assert needed in str(caught.value)


def test_the_needs_named_are_those_of_the_strategies() -> None:
    assert atomicpath.AtomicRenameTemporaryPath.requires == guarantees.RENAMING
    assert atomicpath.CommitFileTemporaryPath.requires == guarantees.WRITING
