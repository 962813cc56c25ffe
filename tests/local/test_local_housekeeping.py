"""The house-keeping directory is looked at before anything is written in it, whoever has made it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import atomicpath
from atomicpath._core.layout import HOUSEKEEPING
from tests.staging.users import NOBODY, as_user, needs_root, shared_place


def test_a_link_in_the_place_of_the_housekeeping_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / HOUSEKEEPING).symlink_to("elsewhere")
    with pytest.raises(atomicpath.ValidationError, match="symbolic link"), atomicpath.commit(tmp_path / "step_1"):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


@needs_root
def test_where_all_may_write_a_housekeeping_directory_of_another_user_is_refused() -> None:
    with shared_place() as place:
        house = place / HOUSEKEEPING

        def plant() -> None:
            house.mkdir()
            os.chmod(house, 0o777)
            (house / "theirs").touch()

        as_user(NOBODY, plant)
        with (
            pytest.raises(atomicpath.ValidationError, match=f"belongs to user {NOBODY}, who could exchange"),
            atomicpath.commit(place / "step_1"),
        ):
            pass
        assert [file.name for file in house.iterdir()] == ["theirs"]
