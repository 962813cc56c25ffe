"""Probes end in bounded time in every face, whatever the mount does; one that hangs is left behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio
import pytest

import atomicpath
from atomicpath import Guarantee, GuaranteeError, Profile, aio
from atomicpath._core.environment import Environment, use
from atomicpath._profile import probes, probing
from atomicpath._profile.location import locate
from atomicpath._profile.trials import TRIED
from atomicpath_local.rename import no_replace
from tests.support.mounts import ASKED, answer
from tests.support.servers.fuse import rclone_mount
from tests.support.servers.s3 import KEY, SECRET

P = ParamSpec("P")
T = TypeVar("T")
FACES = ("blocking", "asyncio", "trio")
OF_MOUNTS = (
    Guarantee.ATOMIC_RENAME
    | Guarantee.RENAME_NOREPLACE
    | Guarantee.EXCLUSIVE_CREATE
    | Guarantee.DIRECTORIES
    | Guarantee.LIST_AFTER_WRITE
)
_MOUNTINFO = "1 0 0:1 / / rw - fuse.unheard server rw\n"


class Elsewhere(Environment):
    """Every mount is of a kind that nobody knows. `hangs` is a function that does not return until `go` is set."""

    def __init__(self) -> None:
        self.hangs: object = None
        self.go = threading.Event()

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function is self.hangs:
            self.go.wait()
            raise OSError("the test is over")
        if function in ASKED:
            return answer(_MOUNTINFO, function, args[0])  # type: ignore[return-value,arg-type]
        return function(*args, **kwargs)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    environment = Elsewhere()
    with use(environment):
        yield environment
    environment.go.set()


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_PATIENCE", 1.0)


def profile(face: str, url: object, **options: Any) -> Profile:
    if face == "blocking":
        return atomicpath.profile(str(url), **options)
    return anyio.run(partial(aio.profile, str(url), **options), backend=face)


def refused(face: str, url: object) -> str:
    """The words in which a commit is refused there."""

    async def main() -> None:
        async with aio.commit(str(url)):
            pytest.fail("the block was entered")

    with pytest.raises(GuaranteeError) as caught:
        if face == "blocking":
            with atomicpath.commit(str(url)):
                pytest.fail("the block was entered")
        else:
            anyio.run(main, backend=face)
    return " ".join(str(caught.value).split())


def tried(url: object, options: dict[str, Any] | None = None) -> Guarantee:
    return probing._known[locate(str(url), options).parent.identity].tried


def test_every_trial_of_mounts_is_carried_out(face: str, elsewhere: Elsewhere, tmp_path: Path) -> None:
    found = profile(face, tmp_path / "run" / "step_1")
    assert tried(tmp_path / "run" / "step_1") == OF_MOUNTS
    assert found.refuted == Guarantee(0)
    assert found.observed == Guarantee.DIRECTORIES | Guarantee.LIST_AFTER_WRITE
    assert list(tmp_path.iterdir()) == []


def test_every_other_trial_is_carried_out(face: str, bucket: str, s3_options: dict[str, Any]) -> None:
    url = f"s3://{bucket}/{face}/step_1"
    found = profile(face, url, storage_options=s3_options)
    carried_out = tried(url, s3_options)
    assert TRIED & ~(carried_out | OF_MOUNTS) == Guarantee(0)
    assert not [words for words in found.evidence.values() if "could not be carried out" in words]


def test_a_trial_that_hangs_is_left_behind_and_the_others_are_not_begun(
    face: str, elsewhere: Elsewhere, impatient: None, tmp_path: Path
) -> None:
    elsewhere.hangs = no_replace
    found = profile(face, tmp_path / "step_1")
    words = found.evidence[Guarantee.ATOMIC_RENAME]
    assert words == "the probe could not be carried out: no answer within 1 s"
    assert found.evidence[Guarantee.RENAME_NOREPLACE] == words
    assert (Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE) & found.effective == Guarantee(0)
    assert Guarantee.ATOMIC_RENAME not in found.refuted, "no answer is not a finding"
    (left,) = [thread for thread in threading.enumerate() if thread.name == "atomicpath-probe"]
    assert left.daemon, "the interpreter would wait for it at its end"
    elsewhere.go.set()
    left.join()
    elsewhere.hangs = None
    assert profile(face, tmp_path / "step_1").refuted == Guarantee(0)
    assert Guarantee.ATOMIC_RENAME in tried(tmp_path / "step_1"), "it is tried again when there is an answer"


@pytest.mark.servers
def test_a_real_fuse_mount_is_put_to_the_test(face: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with rclone_mount(str(tmp_path / "source"), tmp_path) as (point, _):
        found = profile(face, point / "run" / "step_1")
        assert tried(point / "run" / "step_1") == OF_MOUNTS
        assert Guarantee.EXCLUSIVE_CREATE in found.refuted
        assert "fuse.rclone" in refused(face, point / "run" / "step_1")
        assert os.listdir(point) == []


def test_a_mount_of_a_store_is_put_to_the_test(face: str, bucket: str, server: str, tmp_path: Path) -> None:
    settings = {"provider": "Other", "endpoint": f'"{server}"', "access_key_id": KEY, "secret_access_key": SECRET}
    remote = ":s3," + ",".join(f"{name}={value}" for name, value in settings.items()) + f":{bucket}"
    with rclone_mount(remote, tmp_path) as (point, _):
        found = profile(face, point / "step_1")
        assert Guarantee.EXCLUSIVE_CREATE in found.refuted
        assert Guarantee.ATOMIC_RENAME not in found.effective
        refused(face, point / "step_1")


@pytest.mark.servers
def test_a_mount_whose_server_hangs_keeps_nobody_waiting(face: str, impatient: None, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with rclone_mount(str(tmp_path / "source"), tmp_path) as (point, server):
        server.send_signal(signal.SIGSTOP)
        found = profile(face, point / "run" / "step_1")
        assert found.effective == Guarantee(0)
        assert set(found.evidence.values()) == {
            f"the mount that {point}/run/step_1 is on could not be found out: no answer within 1 s"
        }
        assert "no answer within 1 s" in refused(face, point / "run" / "step_1")


@pytest.mark.servers
def test_an_assertion_needs_no_probe_that_hangs_again(impatient: None, tmp_path: Path) -> None:
    """Whoever asserts what holds on a mount that hangs is told that nothing there answers."""
    (tmp_path / "source").mkdir()
    with rclone_mount(str(tmp_path / "source"), tmp_path) as (point, server):
        server.send_signal(signal.SIGSTOP)
        found = atomicpath.profile(str(point / "step_1"), guarantees=Guarantee.ATOMIC_RENAME)
        assert found.effective == Guarantee.ATOMIC_RENAME
        assert "no answer" in found.evidence[Guarantee.RENAME_NOREPLACE]
