"""What a mount promises by its kind, and the text forms in which Linux describes mounts; no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from atomicpath.abc import Declaration
from atomicpath.guarantees import Guarantee

from .file_systems import BY_KIND, GLUSTER_DISTRIBUTED, FileSystem, Refusal

__all__ = [
    "Mount",
    "by_number",
    "by_prefix",
    "declaration_of",
    "gluster_volume",
    "has_the_kernels_clock",
    "may_name",
    "mount_id",
    "parse_mountinfo",
    "points_within",
    "refusal_at",
]

_ESCAPED = re.compile(r"[\s\\#]")  # what the kernel may write in octal digits, and more

_OBSERVABLE = Guarantee.DIRECTORIES | Guarantee.LIST_AFTER_WRITE
_REFUTABLE = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE | Guarantee.EXCLUSIVE_CREATE
_SHOWN = BY_KIND["ext4"].declared
_MEMBERS = {row.declared: tuple(row.declared) for row in BY_KIND.values()}  # taking a flag apart is slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mounted file system: its number (None where the system gives none), where, of what kind, from what.

    `volume` is what the file system tells of itself where kinds of volumes differ in what they promise.
    """

    number: int | None
    point: str
    kind: str
    device: str
    volume: str = ""

    @property
    def row(self) -> FileSystem | None:
        """Return what is known of this kind of mount."""
        return BY_KIND.get(f"{self.kind} {self.volume}".strip())


def parse_mountinfo(text: str) -> list[Mount]:
    """Parse /proc/self/mountinfo (proc_pid_mountinfo(5)); a line that is not understood is left out."""
    return [mount for line in text.splitlines() if (mount := _parse_line(line))]


def mount_id(fdinfo: str) -> int | None:
    """Return the number of the mount that a descriptor is on, from its /proc/self/fdinfo."""
    found = re.search(r"^mnt_id:\s*(\d+)$", fdinfo, re.MULTILINE)
    return int(found.group(1)) if found else None


def by_number(text: str, number: int) -> Mount | None:
    """Return the mount of that number without parsing the others: on a busy host there are thousands."""
    _, found, rest = f"\n{text}".partition(f"\n{number} ")
    return _parse_line(f"{number} {rest.partition(chr(10))[0]}") if found else None


def by_prefix(mounts: Iterable[Mount], path: str) -> Mount | None:
    """Return the mount that a resolved path is on, by its name.

    That is the deepest mount, and of several at one place the last.
    """
    best = None
    for mount in mounts:
        inside = path == mount.point or path.startswith(f"{mount.point.rstrip('/')}/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def gluster_volume(pathinfo: bytes) -> str:
    """Return which kind of GlusterFS volume a mount is, from the attribute in which the volume describes itself."""
    return GLUSTER_DISTRIBUTED if not pathinfo or b"<DISTRIBUTE:" in pathinfo else ""


def refusal_at(mount: Mount | None) -> Refusal:
    """Return how a rename refuses an existing target on a mount, as far as that is declared."""
    row = mount.row if mount is not None else None
    return Refusal.UNKNOWN if row is None else row.refusal


def has_the_kernels_clock(mount: Mount | None) -> bool:
    """Tell whether times on it are this host's own: a server or another client gives them elsewhere, or may."""
    row = mount.row if mount is not None else None
    return row is not None and row.is_disk


def may_name(mountinfo: str, name: str) -> bool:
    """Tell whether a mount point may have a component of that name: False is certain, and costs no parsing.

    On a busy host there are thousands of lines, and none of them names an attempt, whose name is random.
    """
    return bool(_ESCAPED.search(name)) or f"/{name}" in mountinfo


def points_within(mountinfo: str, path: str) -> list[str]:
    """Return the mount points at a resolved path and below it, sorted. Bind mounts and mounted files are among them."""
    inside = f"{path.rstrip('/')}/"
    fields = (line.split(" ", 5) for line in mountinfo.splitlines())
    points = {_unescape(field[4]) for field in fields if len(field) > 5}
    return sorted(point for point in points if point == path or point.startswith(inside))


@lru_cache(maxsize=64)
def declaration_of(mount: Mount | None) -> Declaration:
    """Return what the kind of a mount promises.

    A disk promises everything. A mount that only looks like a disk promises nothing.
    """
    if mount is None:
        return _unknown("the mount this path is on could not be found out")
    where = f"{mount.kind} at {mount.point} (device {mount.device})"
    row = mount.row
    if row is not None and row.declared:
        return Declaration(
            declared=row.declared,
            evidence=dict.fromkeys(_MEMBERS[row.declared], f"{where}: {row.reason}"),
            renames_between_directories=row.renames_between_directories,
        )
    if row is not None:
        return _unknown(f"{where}: {row.reason}")
    if mount.kind.partition(".")[0] in ("fuse", "fuseblk"):
        return _unknown(f"{where}: a FUSE mount ({mount.kind}) is not taken for a disk")
    return _unknown(f"{where}: nothing is known of this kind of file system")


def _unknown(reason: str) -> Declaration:
    return Declaration(
        observable=_OBSERVABLE,
        refutable=_REFUTABLE,
        renames_between_directories=None,
        evidence=dict.fromkeys(_SHOWN, reason),
    )


def _parse_line(line: str) -> Mount | None:
    # 36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/sda1 rw
    before, separator, after = line.partition(" - ")
    first, last = before.split(" "), after.split(" ")
    if not separator or len(first) < 6 or len(last) < 2 or not first[0].isdigit():
        return None
    return Mount(number=int(first[0]), point=_unescape(first[4]), kind=last[0], device=_unescape(last[1]))


def _unescape(text: str) -> str:
    """Decode a name: the kernel writes space, tab, newline and backslash as three octal digits."""
    if "\\" not in text:
        return text
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)
