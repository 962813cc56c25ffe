"""What every strategy checks before it begins: options it knows, and a location that meets its needs."""

from __future__ import annotations

from dataclasses import replace

from atomicpath._core.free_space import describe
from atomicpath._core.layout import is_temporary
from atomicpath._profile.location import Location, PathLike, locate
from atomicpath._profile.places import read
from atomicpath._profile.probing import profile_of
from atomicpath.abc import AttemptOptions, EntryKind, SnapshotType, Storage, TemporaryPath
from atomicpath.errors import ValidationError
from atomicpath.guarantees import Guarantee, Profile, check, check_replacing

from .fences import WANTED

__all__ = ["expect_absolute", "expect_directory", "in_words", "refuse", "resolve_guarantees"]


async def resolve_guarantees(
    strategy: type[TemporaryPath], final: Location, options: AttemptOptions, *, replacing: str | None = None
) -> AttemptOptions:
    """Return the options with the guarantees that are effective at `final`.

    The guarantees are looked up unless `commit` has done so. Raise GuaranteeError if they are not enough.

    `replacing` says what asks for a committed directory to be replaced, if anything does.
    """
    if is_temporary(final.path):
        raise ValidationError(f"{final} is below a temporary path, where nothing ever counts as committed: use another")
    if options.guarantees is not None:
        if replacing is not None:
            known = Profile(location=str(final), declared=options.guarantees)
            check_replacing(strategy.__name__, strategy.replacing, replacing, known)
        return options
    wanted = strategy.requires | WANTED | Guarantee.DIRECTORIES
    profile = await profile_of(final, wanted=wanted)
    check(strategy.__name__, strategy.requires, profile)
    if replacing is not None:
        check_replacing(strategy.__name__, strategy.replacing, replacing, profile)
    return replace(options, guarantees=profile.effective)


def expect_absolute(path: PathLike, snapshot_type: SnapshotType | None) -> None:
    """Raise ValidationError if a snapshot is asked for with a relative path.

    The path must name an existing directory, and which directory a relative path names may change.
    """
    if snapshot_type is not None and (place := read(path)).is_relative:
        raise ValidationError(f"a snapshot needs absolute paths, and {place.text!r} is relative: pass {locate(path)}")


def refuse(value: object, name: str) -> None:
    """Raise ValidationError for an argument of the interface that this version does not serve yet."""
    if value is not None:
        raise ValidationError(f"{name} is not supported by this version of atomicpath: leave it out")


def in_words(storage: Storage, final: Location, error: OSError) -> str:
    """Describe an error of a storage.

    If a local file system accepts no more data, the text names what is full, and says what to do.
    """
    if not storage.is_local:
        return str(error)
    return describe(storage.environment, error, final.parent.path, "Free some, or commit to another file system")


async def expect_directory(location: Location) -> None:
    """Raise ValidationError unless a directory, not a link to one, is there."""
    kind = await location.open().kind(location.path)
    if kind is not EntryKind.DIRECTORY:
        raise ValidationError(f"{location} is {kind or 'missing'}: expected an existing directory")
