"""What is said of a URL that no backend serves: nothing is guessed of a store, and nothing is written there."""

from __future__ import annotations

import pytest

import atomicpath
from atomicpath import registry


@pytest.mark.parametrize("protocol", ["smb", "webdav", "hdfs", "hf", "ftp", "http"])
def test_what_only_fsspec_can_reach_is_refused_with_the_way_to_have_it(protocol: str) -> None:
    with pytest.raises(atomicpath.BackendError) as caught, atomicpath.commit(f"{protocol}://host/run/step_1"):
        pytest.fail("the block was entered")
    words = str(caught.value)
    assert f"no backend serves {protocol!r} URLs" in words
    assert "fsspec can read and write there, but nothing is known of what such a store guarantees" in words
    for needed in ("ATOMIC_RENAME | RENAME_NOREPLACE", "'atomicpath.backends'", "docs/writing-a-backend.md", "s3"):
        assert needed in words


def test_an_unknown_scheme_is_called_so() -> None:
    with pytest.raises(atomicpath.BackendError, match="fsspec does not know it either: check the spelling"):
        atomicpath.is_committed("nosuch://host/run/step_1")


def test_asserting_guarantees_makes_no_backend() -> None:
    asserted = atomicpath.AtomicRenameTemporaryPath.requires
    with pytest.raises(atomicpath.BackendError), atomicpath.commit("webdav://host/run", guarantees=asserted):
        pytest.fail("the block was entered")


def test_the_needs_named_are_those_of_the_strategies() -> None:
    assert atomicpath.AtomicRenameTemporaryPath.requires == registry.RENAMING
    assert atomicpath.CommitFileTemporaryPath.requires == registry.WRITING
