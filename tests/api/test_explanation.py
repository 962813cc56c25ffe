"""An explanation fits on one screen, says each thing once, and ends with the strategy or with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath import Guarantee, Profile
from atomicpath._commit.explanation import Explanation, explained
from atomicpath._core.environment import use
from atomicpath.abc import Declaration
from atomicpath.guarantees import NONE, RENAMING, WRITING
from atomicpath_azure import declaring as azure
from atomicpath_local.file_systems import BY_KIND
from atomicpath_local.mounts import Mount, declaration_of
from atomicpath_s3 import declaring as s3
from atomicpath_s3.stores import CONDITIONS, STORES
from atomicpath_sftp import server as sftp
from tests.api.test_rows_b import Mounted
from tests.support.proxy import Proxy, Rule, ignore_conditions
from tests.support.roots import MemoryRoot, Root, S3Root

WIDTH, HEIGHT = 100, 25


def check_message(text: str, profile: Profile, *shown: Guarantee) -> None:
    """Check what holds of explanations and of errors: they fit, and each piece of evidence is there once."""
    lines = text.splitlines()
    assert len(lines) <= HEIGHT, text
    assert [line for line in lines if len(line) > WIDTH and profile.location not in line] == [], text
    assert text.count(profile.location) == 1, text
    words = " ".join(text.split())
    pieces = {piece for member in shown for piece in profile.evidence.get(member, "").splitlines()}
    for piece in pieces:
        inside = sum(other.count(piece) for other in pieces if other != piece)
        assert words.count(" ".join(piece.split())) - inside == 1, f"{piece!r} in\n{text}"


def check(found: Explanation) -> None:
    """Check an explanation: its rows, its notes, and that it ends with the strategy or with what to do."""
    profile, text = found.profile, str(found)
    known = profile.effective | profile.refuted
    check_message(text, profile, *(known | (found.strategy.requires if found.strategy else RENAMING | WRITING)))
    lines = text.splitlines()
    assert lines[0] == profile.location
    rows = [line for line in lines if line.startswith("  ") and line.split()[0] in Guarantee.__members__]
    assert len({row.split()[0] for row in rows}) == len(rows)
    for member in known:
        (row,) = (line for line in rows if line.split()[0] == str(member))
        status = "refuted" if member in profile.refuted else row.split()[1]
        assert row.split()[1] == status
        assert member in getattr(profile, status)
    last = lines[-1]
    if found.strategy is not None:
        assert last == f"Commits here use {found.strategy.__name__} (needs {found.strategy.requires})."
    elif last.startswith("  guarantees="):
        asserted = NONE
        for name in last.removeprefix("  guarantees=").split(" | "):
            asserted |= Guarantee[name.removeprefix("Guarantee.")]
        helped = Profile(
            **{name: getattr(profile, name) for name in ("declared", "observed", "refuted")}, asserted=asserted
        )
        assert atomicpath.select(helped)
    else:
        assert last == "What was refuted cannot be asserted: use another location."


def of(declaration: Declaration, *, observed: Guarantee = NONE, refuted: Guarantee = NONE) -> Profile:
    """The profile after probes that found so, in the words that such a probe has."""
    evidence = dict(declaration.evidence)
    for member in refuted:
        evidence[member] = f"a probe found: 6 of 6 attempts at {member} succeeded\n{evidence.get(member, '')}".rstrip()
    return Profile(
        location="x://somewhere/run/step_1",
        declared=declaration.declared,
        observed=observed,
        refuted=refuted,
        evidence=evidence,
    )


def declarations() -> Iterator[tuple[str, Declaration]]:
    """Every row of the backends' tables."""
    for kind in (*BY_KIND, "fuse.unheard", "unheard"):
        yield kind, declaration_of(Mount(number=1, point="/data", kind=kind, device="/dev/vda"))
    yield "no mount", declaration_of(None)
    for store in STORES:
        for endpoint, header in [(f"https://{host}", "") for host in store.hosts[:1]] + [
            ("http://127.0.0.1", header) for header in store.servers[:1]
        ]:
            yield store.name, s3.declaration(endpoint, "bucket", server=header)
    yield "a custom endpoint", s3.declaration("http://127.0.0.1", "bucket", server="")
    for host in ("a.blob.core.windows.net", "127.0.0.1"):
        for hierarchical in (True, False, None):
            problem = "the endpoint does not tell whether it has a hierarchical namespace"
            yield f"{host} {hierarchical}", azure.declaration(host, hierarchical=hierarchical, problem=problem)
    for software, extensions in (("OpenSSH_9.2p1 Debian-2", True), ("rclone/v1.75", False), ("", False)):
        names = ("fsync", "hardlink", "posix_rename", "statvfs", "fstatvfs")
        server = sftp.Server(software=software, **dict.fromkeys(names, extensions))
        for volume in (7, None):
            yield f"{software or 'SFTP'} {volume}", sftp.declaration_of(server, volume)


@pytest.mark.parametrize("declaration", [one for _, one in declarations()], ids=[name for name, _ in declarations()])
def test_every_declaration_fits_whatever_probes_find(declaration: Declaration) -> None:
    for profile in (
        of(declaration),
        of(declaration, observed=declaration.observable),
        of(declaration, refuted=declaration.refutable | declaration.observable),
    ):
        check(explained(profile))
        check(explained(profile, is_local=True))


def test_what_a_refused_mount_looks_like(tmp_path: Path) -> None:
    with use(Mounted("fuse.gcsfuse")):
        found = atomicpath.explain(tmp_path / "run" / "step_1")
        check(found)
        assert (
            str(found)
            == f"""\
{tmp_path}/run/step_1
  ATOMIC_WRITE      unknown   (1)
  LIST_AFTER_WRITE  observed  a probe saw each of its writes in the next listing
  EXCLUSIVE_CREATE  unknown   (1)
  ATOMIC_RENAME     unknown   (1)
  RENAME_NOREPLACE  unknown   (1)
  RENAME_EXCHANGE   unknown   (1)
  DIRECTORIES       observed  a probe made a directory and saw it
  SYNC              unknown   (1)
  (1) fuse.gcsfuse at / (device device): gcsfuse renames directories in one step only in buckets
      with a hierarchical namespace
No commit strategy is safe here:
  AtomicRenameTemporaryPath needs ATOMIC_RENAME | RENAME_NOREPLACE, which are not known to hold
  CommitFileTemporaryPath needs ATOMIC_WRITE | EXCLUSIVE_CREATE, which are not known to hold
If you know that they hold there, pass
  guarantees=Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE"""
        )
        asserted = atomicpath.explain(tmp_path / "run" / "step_1", guarantees=RENAMING)
        check(asserted)
        assert str(asserted).splitlines()[-2:] == [
            "SYNC is not known to hold: pass durable=False, and a power cut may undo a commit.",
            "Commits here use AtomicRenameTemporaryPath (needs ATOMIC_RENAME | RENAME_NOREPLACE).",
        ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {},
            """\
no commit strategy is safe at {}:
  AtomicRenameTemporaryPath needs ATOMIC_RENAME | RENAME_NOREPLACE, which are not known to hold (1)
  CommitFileTemporaryPath needs ATOMIC_WRITE | EXCLUSIVE_CREATE, which are not known to hold (1)
  (1) fuse.gcsfuse at / (device device): gcsfuse renames directories in one step only in buckets
      with a hierarchical namespace
If you know that they hold there, pass
  guarantees=Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE""",
        ),
        (
            {"temporary_path_class": atomicpath.CommitFileTemporaryPath},
            """\
CommitFileTemporaryPath is not safe at {}:
  it needs ATOMIC_WRITE | EXCLUSIVE_CREATE, which are not known to hold (1)
  (1) fuse.gcsfuse at / (device device): gcsfuse renames directories in one step only in buckets
      with a hierarchical namespace
If you know that they hold there, pass
  guarantees=Guarantee.ATOMIC_WRITE | Guarantee.EXCLUSIVE_CREATE""",
        ),
        (
            {"guarantees": RENAMING},
            """\
durable=True (durable=False accepts less) is not safe at {}:
  it needs SYNC, which is not known to hold (1)
  (1) fuse.gcsfuse at / (device device): gcsfuse renames directories in one step only in buckets
      with a hierarchical namespace
If you know that it holds there, pass
  guarantees=Guarantee.SYNC""",
        ),
        (
            {"guarantees": RENAMING, "durable": False, "replace": True},
            """\
replace=True is not safe at {}:
  AtomicRenameTemporaryPath needs RENAME_EXCHANGE, which is not known to hold (1)
  (1) fuse.gcsfuse at / (device device): gcsfuse renames directories in one step only in buckets
      with a hierarchical namespace
Readers would see neither directory for a moment, or a mixture of both.
Commit under another name, and let readers take latest(...); or remove(...) what is there first,
and accept that for a while nothing is there.
If you know that it holds there, pass
  guarantees=Guarantee.RENAME_EXCHANGE""",
        ),
    ],
    ids=["no strategy", "a named strategy", "durable", "replace"],
)
def test_what_an_error_looks_like(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    with use(Mounted("fuse.gcsfuse")):
        profile = atomicpath.profile(tmp_path / "step_1")
        with (
            pytest.raises(atomicpath.GuaranteeError) as caught,
            atomicpath.commit(tmp_path / "step_1", **options),
        ):
            pytest.fail("the block was entered")
    assert str(caught.value) == expected.format(tmp_path / "step_1")
    check_message(str(caught.value), profile, Guarantee.SYNC)


def test_what_memory_looks_like(memory_place: MemoryRoot) -> None:
    found = atomicpath.explain(memory_place / "step_1")
    check(found)
    assert (
        str(found)
        == f"""\
{memory_place / "step_1"}
  ATOMIC_WRITE         declared  (1)
  LIST_AFTER_WRITE     declared  (1)
  EXCLUSIVE_CREATE     declared  (1)
  EXCLUSIVE_MULTIPART  declared  (1)
  COMPARE_AND_SWAP     declared  (1)
  CONDITIONAL_DELETE   declared  (1)
  (1) this process's memory
Commits here use CommitFileTemporaryPath (needs ATOMIC_WRITE | LIST_AFTER_WRITE | EXCLUSIVE_CREATE)."""
    )


def test_what_a_look_alike_looks_like(moto_place: S3Root, server: str) -> None:
    with Proxy(server) as proxy:
        proxy.rules.append(Rule(match=lambda request: bool(request.conditions), action=ignore_conditions, times=None))
        moto_place.storage_options["endpoint_url"] = proxy.url
        url, options = moto_place / "run/step_1", {"storage_options": moto_place.storage_options}
        found = atomicpath.explain(url, **options)
        check(found)
        assert (
            str(found)
            == f"""\
{url}
  ATOMIC_WRITE         declared  S3's protocol has no other way to store an object than whole
  LIST_AFTER_WRITE     observed  a probe saw each of its writes in the next listing
  EXCLUSIVE_CREATE     refuted   a probe found: 6 of 6 concurrent creations of one name succeeded
  EXCLUSIVE_MULTIPART  refuted   (1, 2)
  COMPARE_AND_SWAP     refuted   a probe found: 6 of 6 concurrent swaps from one version succeeded
  CONDITIONAL_DELETE   refuted   a probe found: a delete that named an old version was not refused
  ATOMIC_RENAME        unknown
  RENAME_NOREPLACE     unknown
  (1) a probe found: 6 of 6 concurrent multi-part completions of one name succeeded
  (2) no probe can show it: a large file is sent in one request
No commit strategy is safe here:
  AtomicRenameTemporaryPath needs ATOMIC_RENAME | RENAME_NOREPLACE, which are not known to hold
  CommitFileTemporaryPath needs EXCLUSIVE_CREATE, which was refuted
What was refuted cannot be asserted: use another location."""
        )
        with pytest.raises(atomicpath.GuaranteeError) as caught, atomicpath.commit(url, **options):
            pytest.fail("the block was entered")
    assert (
        str(caught.value)
        == f"""\
no commit strategy is safe at {url}:
  AtomicRenameTemporaryPath needs ATOMIC_RENAME | RENAME_NOREPLACE, which are not known to hold
  CommitFileTemporaryPath needs EXCLUSIVE_CREATE, which was refuted (1)
  (1) a probe found: 6 of 6 concurrent creations of one name succeeded
What was refuted cannot be asserted: use another location."""
    )


@pytest.mark.parametrize(
    "place", ["local", "memory", "moto", "seaweedfs", "gcs", "gcs_hns", "azure", "adls", "sftp"], indirect=True
)
def test_every_place_is_explained_on_one_screen(place: Root) -> None:
    found = atomicpath.explain(place / "run/step_1", storage_options=place.storage_options)
    assert found.strategy is not None
    check(found)


def test_shared_memory_says_that_nothing_survives() -> None:
    found = atomicpath.explain("/dev/shm/run/step_1")
    check(found)
    assert "sync succeeds, nothing survives a power cut" in " ".join(str(found).split())


@pytest.mark.parametrize("url", ["no-such://host/run/step_1", "nosuch://host/run/step_1"])
def test_an_unknown_protocol_is_refused_in_lines_that_fit(url: str) -> None:
    with pytest.raises(atomicpath.BackendError) as caught:
        atomicpath.explain(url)
    lines = str(caught.value).splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []
    assert 2 <= len(lines) <= 8


def test_what_no_probe_can_see_is_said_of_a_store_that_the_user_may_know() -> None:
    (tigris,) = (store for store in STORES if store.name == "Tigris")
    found = explained(of(s3.declaration(f"https://{tigris.hosts[0]}", "bucket", server="")))
    check(found)
    assert found.strategy is None
    assert tigris.beyond_probes == CONDITIONS
    assert "strong everywhere for multi-region" in " ".join(str(found).split())
