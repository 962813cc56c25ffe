"""The whole of what a backend has to show: the conformance kit, on a real server, with a look at its directory."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp

import atomicpath
from atomicpath.testing import Factory, Place
from atomicpath.testing.suite import ConformanceTests


class WebdavPlace(Place):
    """A directory on a server, looked at in the file system that it serves."""

    def __init__(self, root: Path, base_url: str) -> None:
        self._directory = root / f"place-{uuid.uuid4().hex[:8]}"
        self._directory.mkdir()
        self.url = f"webdav://{self._directory.name}"
        self.storage_options = {"base_url": base_url}

    def read_all(self, below: str = "") -> dict[str, bytes]:
        top = self._directory / below
        files = [path for path in top.rglob("*") if path.is_file()]
        return {path.relative_to(top).as_posix(): path.read_bytes() for path in files}

    def write(self, name: str, data: bytes) -> None:
        (self._directory / name).parent.mkdir(parents=True, exist_ok=True)
        (self._directory / name).write_bytes(data)

    def delete(self, name: str) -> None:
        (self._directory / name).unlink()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dav")


@pytest.fixture(scope="session")
def base_url(root: Path) -> Iterator[str]:
    """wsgidav, on a port of its own."""
    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(root)},
            "simple_dc": {"user_mapping": {"*": True}},
            "http_authenticator": {"domain_controller": None},
            "logging": {"enable": False},
        }
    )
    server = wsgi.Server(("127.0.0.1", 0), app, numthreads=10)
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.bind_addr[1]}"
    server.stop()
    thread.join(timeout=60)


@pytest.fixture
def place(root: Path, base_url: str) -> WebdavPlace:
    return WebdavPlace(root, base_url)


class TestWebdav(ConformanceTests):
    @pytest.fixture
    def make_place(self, root: Path, base_url: str) -> Factory:
        return lambda: WebdavPlace(root, base_url)


def test_it_is_found_by_its_entry_point() -> None:
    (point,) = entry_points(group="atomicpath.backends", name="webdav")
    assert point.load().__module__ == "atomicpath_webdav"


def test_a_commit_is_one_move_that_replaces_nothing(place: WebdavPlace) -> None:
    with atomicpath.commit(place / "step_1", storage_options=place.storage_options) as path:
        (path / "model.bin").write_bytes(b"weights")
    explanation = atomicpath.explain(place / "step_1", storage_options=place.storage_options)
    assert explanation.strategy is atomicpath.AtomicRenameTemporaryPath
    assert atomicpath.verify(place / "step_1", storage_options=place.storage_options).ok
    with pytest.raises(atomicpath.AlreadyCommittedError):
        atomicpath.put(Path(__file__).parent, place / "step_1", storage_options=place.storage_options)
    assert place.read_all()["step_1/model.bin"] == b"weights"
