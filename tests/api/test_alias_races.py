"""Eight writers that move one alias at once, and a reader that always finds it."""

from __future__ import annotations

import threading

import pytest

import atomicpath
from atomicpath._core.layout import HOUSEKEEPING
from tests.support.roots import Root


@pytest.mark.parametrize(("kind", "rounds"), [("local", 50), ("s3", 3), ("s3", 50)])
def test_of_eight_writers_one_value_stays_and_there_is_always_one(
    kind: str, rounds: int, request: pytest.FixtureRequest
) -> None:
    root: Root = request.getfixturevalue(kind)
    names = [f"step_{number}" for number in range(8)]
    for name in names:
        with atomicpath.commit(root / name, storage_options=root.storage_options) as path:
            (path / "x").write_text(name)

    def alias(name: str) -> None:
        atomicpath.alias(root / "last", name, storage_options=root.storage_options)

    def leads_to() -> str:
        return atomicpath.resolve(root / "last", storage_options=root.storage_options).name

    alias(names[0])
    failures: list[BaseException] = []
    over = threading.Event()

    def write(name: str) -> None:
        try:
            for _ in range(rounds):
                alias(name)
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        try:
            while not over.is_set():
                assert leads_to() in names
                assert atomicpath.is_committed(root / "last", storage_options=root.storage_options)
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    reader.join()
    assert failures == []
    assert leads_to() in names
    assert [name for name in root.names() if name != HOUSEKEEPING] == ["last", *names]
