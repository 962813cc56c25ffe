"""Every public argument that is a place is read alike: what is none, or may be two, is refused, and nothing is made."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from upath import UPath

import atomicpath
from atomicpath import SnapshotType, aio
from atomicpath._profile.location import locate
from atomicpath._profile.registry import serving
from atomicpath_memory import MemoryBackend
from tests.support.roots import SECRET


class FsPath:
    """As etils' epath: its fspath is a URL."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __fspath__(self) -> str:
        return self.text

    def __str__(self) -> str:
        return self.text


class CloudPath:
    """As cloudpathlib's, whose fspath downloads the file and names the copy."""

    cloud_prefix = "s3://"
    drive = "bucket"

    def __fspath__(self) -> str:
        raise AssertionError("the file was downloaded")

    def __str__(self) -> str:
        return "s3://bucket/run/step_1"


class BucketPath(pathlib.PurePosixPath):
    """As s3path's, whose fspath looks like that of a local file."""

    def as_uri(self) -> str:
        return f"s3:/{self}"


EATEN = r"pathlib has eaten a slash"
ODD: dict[str, tuple[Any, str]] = {
    "a pathlib of a URL": (pathlib.Path("s3://bucket/run/step_1"), rf"{EATEN} of 's3://bucket/run/step_1'"),
    "a child of one": (pathlib.Path("s3://bucket/run") / "step_1", rf"{EATEN}.*UPath\('s3://bucket/run/step_1'\)"),
    "a pathlib of an upper-case URL": (pathlib.PurePosixPath("S3://bucket/x"), rf"{EATEN} of 's3://bucket/x'"),
    "a URL with one slash": ("s3:/bucket/x", EATEN),
    "a URL without one": ("gs:bucket/x", EATEN),
    "memory with one slash": ("memory:/run/x", EATEN),
    "databricks": ("dbfs:/run/x", rf"{EATEN} of 'dbfs://run/x'"),
    "azure": (pathlib.Path("abfss://box@acct.dfs.core.windows.net/x"), EATEN),
    "a URL made absolute": ("/data/s3:/bucket/x", rf"{EATEN} of 's3://bucket/x'"),
    "a URL made absolute by pathlib": (pathlib.Path("/data") / pathlib.Path("gs://bucket/x"), EATEN),
    "a URL below a directory": ("runs/s3://bucket/x", EATEN),
    "a UPath of a pathlib of a URL": (UPath(pathlib.Path("s3://bucket/x")), EATEN),
    "a file URL made absolute": ("/data/file:/x", EATEN),
    "a file URL with an eaten URL in it": ("file:///data/s3:/bucket/x", EATEN),
    "a file URL of another host": ("file://server/share/x", "names the host 'server'"),
    "a file URL that is relative": ("file:runs/x", "no absolute path"),
    "a file URL in pathlib": (pathlib.Path("file://localhost/x"), EATEN),
    "a file URL in UPath": (UPath("file://localhost/x"), "UPath takes the host"),
    "an encoded file URL": ("file:///data/a%20b", "pass the path itself"),
    "an unknown protocol in pathlib": (pathlib.Path("wasbs://box@acct/x"), rf"{EATEN}.*never as pathlib.Path"),
    "a host and a path": ("host:/data/x", "host:/path"),
    "a home that nobody has": ("~nobody-here/x", "'~nobody-here' has no home directory"),
    "a home made absolute": ("/data/~/x", "'~' in the middle.*expanduser"),
    "a chain": ("simplecache::s3://bucket/x", "chained URL.*Pass the store's own URL"),
    "a chain in UPath": (UPath("simplecache::memory://bucket/x"), "chained URL"),
    "a chain in pathlib": (pathlib.Path("simplecache::s3://bucket/x"), "chained URL|eaten a slash"),
    "a directory of another": ("dir::file:///data", "chained URL"),
    "an archive": ("zip://inner::s3://bucket/x.zip", "chained URL"),
    "an archive on a disk": ("zip::/data/x.zip", "chained URL"),
    "two file systems in a key": ("memory://run/a::b", "chained URL"),
    "a query": ("memory://run/x?version=3", "query or a fragment"),
    "a fragment": ("memory://run/x#frag", "query or a fragment"),
    "a cloud path": (CloudPath(), "says that it is on s3://.*pass its URL as text"),
    "a path of a bucket": (BucketPath("/bucket/x"), "says that it is on s3://"),
    "an fspath with an eaten slash": (FsPath("gs:/bucket/x"), EATEN),
    "white space before it": (" /data/x", "white space"),
    "a line's end": ("memory://run/x\n", "white space"),
    "nothing": ("", "path is empty"),
    "blanks": (FsPath("  "), "path is empty"),
    "a NUL": ("runs/a\0b", "NUL"),
    "bytes": (b"/data/x", "not bytes"),
    "an fspath of bytes": (FsPath(b"/data/x"), "not bytes"),  # type: ignore[arg-type]
    "no path": (None, "not NoneType"),
    "a number": (3, "not int"),
    "a file": (pathlib.PurePath, "not type"),
}

Call = Callable[[Any, Path], object]


def _block(url: Any, **options: Any) -> None:
    with atomicpath.commit(url, **options):
        pytest.fail("the block was entered")


async def _async_block(url: Any) -> None:
    async with aio.commit(url):
        pytest.fail("the block was entered")


def _snapshot(*paths: Any) -> object:
    return anyio.run(atomicpath.Snapshot(*paths).create_snapshot)


PLACES: dict[str, Call] = {
    "commit": lambda odd, here: _block(odd),
    "commit, replacing": lambda odd, here: _block(odd, replace=True),
    "aio.commit": lambda odd, here: anyio.run(_async_block, odd),
    "put": lambda odd, here: atomicpath.put(here / "source", odd),
    "get": lambda odd, here: atomicpath.get(odd, here / "copy"),
    "resolve": lambda odd, here: atomicpath.resolve(odd),
    "is_committed": lambda odd, here: atomicpath.is_committed(odd),
    "read_record": lambda odd, here: atomicpath.read_record(odd),
    "committed": lambda odd, here: atomicpath.committed(odd),
    "latest": lambda odd, here: atomicpath.latest(odd),
    "attempts": lambda odd, here: atomicpath.attempts(odd),
    "verify": lambda odd, here: atomicpath.verify(odd),
    "sweep": lambda odd, here: atomicpath.sweep(odd),
    "remove": lambda odd, here: atomicpath.remove(odd),
    "keep_last": lambda odd, here: atomicpath.keep_last(odd, 1),
    "profile": lambda odd, here: atomicpath.profile(odd),
    "explain": lambda odd, here: atomicpath.explain(odd),
    "Snapshot's source": lambda odd, here: _snapshot(odd),
    "Snapshot's destination": lambda odd, here: _snapshot(here / "source", odd),
    "rename, from_final": lambda odd, here: atomicpath.AtomicRenameTemporaryPath.from_final(odd),
    "rename, from_final of a snapshot": lambda odd, here: atomicpath.AtomicRenameTemporaryPath.from_final(
        odd, snapshot_type=SnapshotType.IN_PLACE
    ),
    "rename, from_temporary": lambda odd, here: atomicpath.AtomicRenameTemporaryPath.from_temporary(odd),
    "rename, validate": lambda odd, here: anyio.run(atomicpath.AtomicRenameTemporaryPath.validate, odd),
    "rename, validate_final": lambda odd, here: anyio.run(atomicpath.AtomicRenameTemporaryPath.validate_final, odd),
    "commit file, from_final": lambda odd, here: atomicpath.CommitFileTemporaryPath.from_final(odd),
    "commit file, from_temporary": lambda odd, here: atomicpath.CommitFileTemporaryPath.from_temporary(odd),
    "commit file, validate": lambda odd, here: anyio.run(atomicpath.CommitFileTemporaryPath.validate, odd),
    "commit file, validate_final": lambda odd, here: anyio.run(atomicpath.CommitFileTemporaryPath.validate_final, odd),
    "read only, temporary": lambda odd, here: atomicpath.ReadOnlyTemporaryPath.from_paths(
        temporary_path=odd, final_path=here / "x"
    ),
    "read only, final": lambda odd, here: atomicpath.ReadOnlyTemporaryPath.from_paths(
        temporary_path=here / "x", final_path=odd
    ),
    "set_path": lambda odd, here: atomicpath.DeferredPath().set_path(odd),
    "metadata, write": lambda odd, here: atomicpath.JsonMetadataStore().write(odd, {}),
    "metadata, read": lambda odd, here: atomicpath.JsonMetadataStore().read(odd),
    "metadata, update": lambda odd, here: atomicpath.JsonMetadataStore().update(odd, a=1),
}
LOCAL: dict[str, Call] = {
    "put's source": lambda odd, here: atomicpath.put(odd, here / "x"),
    "get's target": lambda odd, here: atomicpath.get(here / "committed", odd),
    "staging_dir": lambda odd, here: _block("memory://never/x", staging_dir=odd),
    "put's staging_dir": lambda odd, here: atomicpath.put(here / "source", "memory://never/x", staging_dir=odd),
    "the staging_dir that is not needed": lambda odd, here: _block(here / "x", staging_dir=odd),
}
OPTIONAL = ("Snapshot's destination", "staging_dir", "put's staging_dir", "the staging_dir that is not needed")
UNSERVED = ("set_path", "metadata, write", "metadata, read", "metadata, update")  # fsspec reads there, no backend does


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory; nothing may appear in it, nor in the home directory or where a mistake would lead."""
    for name in ("here", "home"):
        (tmp_path / name).mkdir()
    here = tmp_path / "here"
    (here / "source").mkdir()
    (here / "source/file").write_bytes(b"1")
    with atomicpath.commit(here / "committed") as path:
        (path / "file").write_bytes(b"1")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    before = sorted(tmp_path.rglob("*"))
    yield here
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.path.exists("/data/s3:")
    assert not atomicpath.attempts("memory://run")


@pytest.mark.parametrize("function", [*PLACES, *LOCAL])
def test_what_is_no_place_is_refused_by_every_function(function: str, here: Path) -> None:
    for odd, (value, said) in ODD.items():
        if value is None and function in OPTIONAL:
            continue
        if odd in ("a query", "a fragment"):
            if function in UNSERVED:
                continue
            said = "takes a directory on this host" if function in LOCAL else said
        with pytest.raises(atomicpath.ValidationError, match=f"(?s){said}") as raised:
            (PLACES | LOCAL)[function](value, here)
        assert type(raised.value) is atomicpath.ValidationError, odd


def test_what_is_no_place_protects_nothing_and_nothing_is_removed(here: Path) -> None:
    for value, said in ODD.values():
        if isinstance(value, str) and "/" not in value and value:
            continue  # a name below the root
        with pytest.raises(atomicpath.ValidationError, match=f"(?s){said}"):
            atomicpath.keep_last(here, 1, protect=[value])


@pytest.mark.parametrize(
    "elsewhere",
    ["s3://bucket/x", "memory://run/x", "nope://run/x", UPath("memory://run/x"), FsPath("gs://bucket/x")],
    ids=str,
)
@pytest.mark.parametrize("function", LOCAL)
def test_a_url_where_a_local_directory_is_needed(function: str, elsewhere: Any, here: Path) -> None:
    with pytest.raises(atomicpath.ValidationError, match=r"takes a directory on this host.* is on \w+://.*put\("):
        LOCAL[function](elsewhere, here)


def _spellings(path: Path) -> Iterator[Any]:
    below = path.name
    yield from (str(path), f"{path}/", f"//{path}", path, UPath(path), FsPath(str(path)))
    yield from (f"file://{path}", f"file://localhost{path}", f"file:{path}", f"local://{path}", f"FILE://{path}")
    yield from (path.as_uri(), UPath(f"file://{path}"), UPath(path, protocol="file"))
    yield from (
        f"~/{below}",
        Path("~") / below,
        f"~root/..{path}",
        f"{path.parent}/missing/../{below}",
        below,
        Path(below),
    )
    yield from (f"./{below}", f"{path.parent}/./{below}")


def test_every_spelling_of_a_local_path_is_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    step = tmp_path / "step_1"
    with atomicpath.commit(step) as path:
        (path / "file").write_bytes(b"1")
    for number, spelling in enumerate(_spellings(step)):
        assert atomicpath.is_committed(spelling), spelling
        atomicpath.put(spelling, f"memory://spelt-{tmp_path.name}/{number}")
        assert atomicpath.keep_last(tmp_path, 1, protect=[spelling] if "/" in str(spelling) else []) == []
    for number, target in enumerate(_spellings(tmp_path / "copy")):
        assert atomicpath.get(step, target) == tmp_path / "copy", target
        (tmp_path / "copy").rename(tmp_path / f"was-{number}")
    assert not (tmp_path / "~").exists()


def test_staging_below_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "staging").mkdir()
    for number, spelling in enumerate(("~/staging", Path("~/staging"), (tmp_path / "staging").as_uri())):
        with atomicpath.commit(f"memory://{tmp_path.name}/{number}", staging_dir=spelling, allow_empty=True) as path:
            assert path.is_relative_to(tmp_path / "staging")


def test_a_relative_staging_dir_is_that_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path)
    committing = atomicpath.commit(f"memory://{tmp_path.name}/x", staging_dir="staging", allow_empty=True)
    monkeypatch.chdir(tmp_path / "later")
    with committing as path:
        assert path.is_relative_to(tmp_path / "staging")


def test_a_path_object_may_name_what_would_be_a_slip_as_text(tmp_path: Path) -> None:
    final = _committed(tmp_path / " step_1\n")
    sent = atomicpath.ReadOnlyTemporaryPath.from_paths(temporary_path=tmp_path / "x ", final_path=final)
    received = atomicpath.ReadOnlyTemporaryPath.from_bytes(sent.to_bytes())
    assert (str(received.get()), str(received.get_final())) == (f"{tmp_path}/x ", str(final))
    for commit in atomicpath.committed(tmp_path):
        atomicpath.remove(commit.path)
    assert not final.exists()


def test_a_scheme_in_upper_case_is_the_same_store(tmp_path: Path) -> None:
    with atomicpath.commit(f"MEMORY://{tmp_path.name}/x") as path:
        (path / "file").write_bytes(b"1")
    assert atomicpath.is_committed(f"memory://{tmp_path.name}/x")
    assert locate("S3://bucket/x") == locate("s3://bucket/x")


@pytest.mark.parametrize("url", ["s3://bucket/a%20b c/é", "memory://run/100%/☃", "gs://bucket/a:b/x"])
def test_what_a_key_may_hold_is_left_as_it_is(url: str) -> None:
    assert str(locate(url)) == str(locate(FsPath(url))) == str(locate(locate(url).upath)) == url


@pytest.mark.parametrize("name", ["a::b", "12:30:00", "a?b#c", "$HOME", "100%", "é ☃", "s3", "a~", "~a", "C:"])
def test_what_a_local_name_may_hold_is_left_as_it_is(name: str, tmp_path: Path) -> None:
    assert atomicpath.get(_committed(tmp_path / "step_1"), tmp_path / name / "x") == tmp_path / name / "x"
    assert str(atomicpath.resolve(f"{tmp_path}/{name}/x")) == f"{tmp_path}/{name}/x"


def _committed(path: Path) -> Path:
    with atomicpath.commit(path) as block:
        (block / "file").write_bytes(b"1")
    return path


@pytest.mark.parametrize(
    "url",
    [
        pathlib.Path(f"s3://key:{SECRET}@bucket/x"),
        f"s3:/key:{SECRET}@bucket/x",
        f"simplecache::s3://key:{SECRET}@bucket/x",
        f"zip://inner::ftp://me:{SECRET}@host/x.zip",
        f"memory://run/x?token={SECRET}",
        f"s3://bucket/x?X-Amz-Signature={SECRET}",
        f" s3://key:{SECRET}@bucket/x",
    ],
)
def test_a_refusal_shows_no_secret(url: Any, here: Path) -> None:
    for function in (call for name, call in (PLACES | LOCAL).items() if name not in UNSERVED):
        with pytest.raises(atomicpath.ValidationError) as raised:
            function(url, here)
        assert SECRET not in str(raised.value)


def test_the_protocol_of_a_plug_in_is_known_too(here: Path) -> None:
    class Acme(MemoryBackend):
        protocols = ("acme",)

    with serving(Acme()):
        for odd in (Path("acme://run/x"), "acme:/run/x", "/data/acme:/run/x", Path("acme://run/x").absolute()):
            with pytest.raises(atomicpath.ValidationError, match=f"{EATEN} of 'acme://run/x'"):
                atomicpath.latest(odd)


def test_a_host_in_a_path_is_no_protocol_of_a_file_that_exists(here: Path) -> None:
    """A name with a colon is a local name unless it reads like the start of a URL, and "./" says that it is one."""
    for name in ("12:30", "run:3/x", "./s3:x", "./data:1"):
        assert str(locate(name)) == str(here / name)


def test_create_all_takes_attempts_and_no_paths(here: Path) -> None:
    for call in (atomicpath.create_all, atomicpath.create_all_async):
        for wrong in (["s3://bucket/x"], [here / "x"], here / "x", "x"):
            with pytest.raises(atomicpath.ValidationError, match="from_final|list of attempts"):
                call(wrong)  # type: ignore[arg-type]
