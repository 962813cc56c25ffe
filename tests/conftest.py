"""What every test shares: both event loops, a server that speaks S3, and a client that looks past our code."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec.config
import hypothesis
import pytest

from tests.support import tiers
from tests.support.probed import probed
from tests.support.proxy import Proxy
from tests.support.roots import SECRET, LocalRoot, MemoryRoot, Root, S3Root

if TYPE_CHECKING:  # at run time each fixture imports the client that it needs: the tests of the core need none
    from azure.storage.blob import BlobServiceClient, ContainerClient

    from tests.support.servers.azurite import AzureRoot
    from tests.support.servers.fake_adls import AdlsRoot, FakeAdls
    from tests.support.servers.fake_hns import FakeGcs
    from tests.support.servers.gcs import FakeGcsRoot, GcsRoot
    from tests.support.servers.rclone import RcloneRoot
    from tests.support.servers.sftp import SftpRoot, SftpServer

# Read by gcsfs when it is imported: without it, a path that a user gets asks for its bucket's layout by gRPC, which
# no emulator answers for minutes. Our backend never does, whatever the environment.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

# A shell starts background jobs with SIGINT ignored, and the processes that tests interrupt inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's affair, which may be busy.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

_AMBIENT = ("AWS_", "AZURE_", "GCSFS_DEFAULT", "GOOGLE_", "STORAGE_EMULATOR_HOST")


_FULL = os.environ.get("ATOMICPATH_FULL") == "1"
_NETWORK = {"azure", "gcs", "s3", "sftp"}  # folders of tests whose code leaves the event loop to fsspec's
_BOTH_LOOPS = {"local", "memory", "moto"}  # places of the conformance kit
_WHOLE_COMMITS = {
    "a_lost_reply_is_settled",
    "a_cancelled_commit_is_whole_or_absent",
    "a_failed_request_commits_nothing_by_halves",
}
_COMMITS_DAILY = {*_BOTH_LOOPS, "gcs_flat", "gcs_hns"}
"""Places where those checks of the kit, which repeat a commit for each of its requests, run every day."""
_SLOW = {"seaweedfs"}  # a second for every contended write; tests/s3 and tests/test_race.py are on it in any case
_ON_A_SERVER = "server"  # a fixture: what tests/protocol has of trio is shown by its tests of the memory


@pytest.hookimpl(tryfirst=True)  # before -m is applied
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Set the marks of tests/support/tiers.py.

    Without ATOMICPATH_FULL=1 also leave out what is repeated or marked `full`: trio where asyncio shows the same, and
    of slow servers what is long. `@pytest.mark.full`, on a test or one of its parameters, leaves out more: each time
    another test, or another parameter, shows the same behaviour of the same code in `make test` or `make test-long`.
    """
    left_out = [] if _FULL else [item for item in items if _is_left_out(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]
    for item in items:
        for name in tiers.marks_of(item):
            item.add_marker(name)


def _is_left_out(item: pytest.Item) -> bool:
    if item.get_closest_marker("full"):
        return True
    params = getattr(getattr(item, "callspec", None), "params", {})
    if "make_place" in params:
        place = params["make_place"]
        long = params["check"].name in _WHOLE_COMMITS and place not in _COMMITS_DAILY
        return long or place in _SLOW or (params["loop"] == "trio" and place not in _BOTH_LOOPS)
    on_trio = params.get("anyio_backend") == "trio" or params.get("world") == "trio-moto_server"
    folder = item.path.parent.name
    return on_trio and (folder in _NETWORK or (folder == "protocol" and _ON_A_SERVER in _fixtures_of(item)))


def _fixtures_of(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def conf() -> Iterator[dict[str, dict[str, Any]]]:
    """fsspec's own configuration, as files and FSSPEC_ variables fill it. After the test it is as it was before."""
    before = {name: dict(options) for name, options in fsspec.config.conf.items()}
    yield fsspec.config.conf
    fsspec.config.conf.clear()
    fsspec.config.conf.update(before)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every connection that a client has tried to make."""

    import aiohttp

    tried: list[str] = []
    connect = aiohttp.TCPConnector._create_connection

    async def counted(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        tried.append(str(request.url))
        return await connect(self, request, *args, **kwargs)

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", counted)
    return tried


@pytest.fixture(scope="session", autouse=True)
def _no_ambient_configuration() -> Iterator[None]:
    """Whatever the developer's own account is, no test knows it."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_AMBIENT)}
    os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    yield
    for name in [name for name in os.environ if name.startswith(_AMBIENT)]:
        del os.environ[name]
    os.environ.update(kept)


@pytest.fixture(scope="session")
def server(moto_server: str) -> str:
    """The endpoint of S3 as most tests have it."""
    return moto_server


@pytest.fixture(scope="session")
def moto_server(_no_ambient_configuration: None) -> Iterator[str]:
    """The endpoint of moto's S3."""

    from tests.support.servers import s3 as s3_servers

    with s3_servers.moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def raw(server: str) -> Iterator[Any]:
    """boto's own client, directly to the server."""

    from tests.support.servers import s3 as s3_servers

    with s3_servers.client(server) as client:
        yield client


@pytest.fixture
def bucket(raw: Any) -> str:
    """An empty bucket of the test's own."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    raw.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def azurite(_no_ambient_configuration: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of Microsoft's emulator of Blob Storage."""

    from tests.support.servers import azurite as azurite_server

    with azurite_server.azurite(tmp_path_factory.mktemp("azurite") / "log") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def azure_client(azurite: str) -> Iterator[BlobServiceClient]:
    """Microsoft's own client, directly to the emulator."""

    from tests.support.servers import azurite as azurite_server

    with azurite_server.raw(azurite) as client:
        yield client


@pytest.fixture
def container(azure_client: BlobServiceClient) -> ContainerClient:
    """An empty container of the test's own."""

    from tests.support.servers import azurite as azurite_server

    return azurite_server.new_container(azure_client)


@pytest.fixture
def fake_adls(_no_ambient_configuration: None) -> Iterator[FakeAdls]:
    """A fake of an Azure account with a hierarchical namespace."""

    from tests.support.servers.fake_adls import FakeAdls

    with FakeAdls() as fake:
        yield fake


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    """Between the client and the server, and wrong on request."""
    with Proxy(server) as proxy:
        yield proxy


@pytest.fixture
def truth(raw: Any, bucket: str) -> Callable[[], dict[str, bytes]]:
    """Every object of the bucket, as the server has it."""

    def look() -> dict[str, bytes]:
        pages = raw.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: raw.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    return look


@pytest.fixture
def s3_options(server: str) -> dict[str, Any]:
    """Storage options for the server itself."""

    from tests.support.servers import s3 as s3_servers

    return {"endpoint_url": server, "key": s3_servers.KEY, "secret": SECRET}


@pytest.fixture
def s3_root(bucket: str, truth: Callable[[], dict[str, bytes]]) -> tuple[str, Callable[[], dict[str, bytes]]]:
    """A prefix in a bucket of its own, and a look at every object of it."""
    return f"s3://{bucket}/run", truth


# A place of the test's own on every backend: `place` is the one that the test's parameter names.


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Root:
    """`@pytest.mark.parametrize("place", ["local", "moto"], indirect=True)`"""
    found: Root = request.getfixturevalue(f"{request.param}_place")
    return probed(request.param, found)


@pytest.fixture
def local_place(tmp_path: Path) -> LocalRoot:
    (tmp_path / "place").mkdir()
    return LocalRoot(tmp_path / "place")


@pytest.fixture
def memory_place() -> MemoryRoot:
    return MemoryRoot()


@pytest.fixture
def moto_place(raw: Any, bucket: str, server: str) -> S3Root:
    return probed("moto", S3Root(raw, bucket, server))


# Stores that speak S3 and were written by others.


@pytest.fixture(scope="session")
def seaweedfs(_no_ambient_configuration: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of SeaweedFS."""

    from tests.support.servers.seaweedfs import seaweedfs as running_seaweedfs

    with running_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def seaweedfs_client(seaweedfs: str) -> Iterator[Any]:
    from tests.support.servers import s3 as s3_servers

    with s3_servers.client(seaweedfs) as client:
        client.create_bucket(Bucket="places")
        yield client


@pytest.fixture
def seaweedfs_place(seaweedfs_client: Any, seaweedfs: str) -> S3Root:
    return S3Root(seaweedfs_client, "places", seaweedfs)


@pytest.fixture(scope="session")
def rclone_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rclone")


@pytest.fixture(scope="session")
def rclone(_no_ambient_configuration: None, rclone_directory: Path) -> Iterator[str]:
    """The endpoint of rclone's S3 server."""

    from tests.support.servers.rclone import rclone as running_rclone

    with running_rclone(rclone_directory) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def rclone_client(rclone: str) -> Iterator[Any]:
    from tests.support.servers import s3 as s3_servers

    with s3_servers.client(rclone) as client:
        client.create_bucket(Bucket="places")
        yield client


@pytest.fixture
def rclone_place(rclone_client: Any, rclone: str, rclone_directory: Path) -> RcloneRoot:
    from tests.support.servers.rclone import RcloneRoot

    return RcloneRoot(rclone_client, "places", rclone, rclone_directory)


# Google Cloud Storage: a server nobody here wrote, and our own fake with what it lacks.


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory, _no_ambient_configuration: None) -> Iterator[str]:
    """The endpoint of fake-gcs-server."""

    from tests.support.servers.gcs import fake_gcs_server

    with fake_gcs_server(tmp_path_factory.mktemp("gcs") / "log") as url:
        yield url


@pytest.fixture(scope="session")
def gcs_raw(gcs_server: str) -> Iterator[Any]:
    """Google's own client, directly to the server."""

    from tests.support.servers.gcs import client_of

    with client_of(gcs_server) as client:
        yield client


@pytest.fixture
def gcs_bucket(gcs_raw: Any) -> str:
    """An empty bucket of the test's own on fake-gcs-server."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    gcs_raw.create_bucket(name)
    return name


@pytest.fixture
def gcs_place(gcs_raw: Any, gcs_bucket: str, gcs_server: str) -> GcsRoot:
    from tests.support.servers.gcs import GcsRoot

    return GcsRoot(gcs_raw, gcs_bucket, gcs_server)


@pytest.fixture
def fake_gcs(_no_ambient_configuration: None) -> Iterator[FakeGcs]:
    """Our own fake, which has folders and keeps every condition, and is wrong on request."""

    from tests.support.servers.fake_hns import FakeGcs

    with FakeGcs() as server:
        yield server


@pytest.fixture
def gcs_flat_place(fake_gcs: FakeGcs) -> FakeGcsRoot:
    from tests.support.servers.gcs import FakeGcsRoot

    return FakeGcsRoot(fake_gcs, hierarchical=False)


@pytest.fixture
def gcs_hns_place(fake_gcs: FakeGcs) -> FakeGcsRoot:
    from tests.support.servers.gcs import FakeGcsRoot

    return FakeGcsRoot(fake_gcs, hierarchical=True)


@pytest.fixture
def azure_place(azurite: str, container: ContainerClient) -> AzureRoot:
    from tests.support.servers.azurite import AzureRoot

    return AzureRoot(azurite, container)


@pytest.fixture
def adls_place(fake_adls: FakeAdls) -> Iterator[AdlsRoot]:
    from tests.support.servers import azurite as azurite_server
    from tests.support.servers.fake_adls import AdlsRoot

    with azurite_server.raw(fake_adls.url) as client:
        yield AdlsRoot(fake_adls.url, azurite_server.new_container(client))


@pytest.fixture(scope="session")
def openssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    """OpenSSH's own server."""

    from tests.support.servers.sftp import openssh as running_openssh

    with running_openssh(tmp_path_factory.mktemp("openssh")) as server:
        yield server


@pytest.fixture
def sftp_place(openssh: SftpServer) -> SftpRoot:
    from tests.support.servers.sftp import SftpRoot

    return SftpRoot(openssh)
