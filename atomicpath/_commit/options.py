"""What a commit is asked for: its keyword arguments, and what follows from them for a place and for a strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Literal, TypeAlias, get_args

from atomicpath._core.failures import Document
from atomicpath._core.layout import check_marker, is_temporary
from atomicpath._core.progress import progress_bar
from atomicpath._core.record import JSONValue
from atomicpath._profile.location import Location, PathLike, local_directory, locate
from atomicpath._profile.probing import profile_of
from atomicpath._strategies.fences import WANTED
from atomicpath.abc import AttemptOptions, Coordinator, FileOptions, TemporaryPath
from atomicpath.coordinators.options import check_coordinator
from atomicpath.errors import ValidationError
from atomicpath.guarantees import NONE, RENAMING, Guarantee, Profile, check, check_replacing

from .meter import Progress
from .selection import select

__all__ = ["CommitOptions", "Exists", "check_agreement"]

Exists: TypeAlias = Literal["error", "keep", "replace"]
"""What to do if a committed directory is at the URL already."""

_WANTED = RENAMING | WANTED | Guarantee.DIRECTORIES
"""What is always worth a probe before a commit; multi-part completion only once a large file comes."""

_WANTED_BY_ANY = _WANTED | Guarantee.EXCLUSIVE_CREATE | Guarantee.LIST_AFTER_WRITE
"""What is worth one if the strategy is yet to be selected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOptions:
    """The keyword arguments of `commit`; their meaning stands there."""

    storage_options: Mapping[str, object] | None = field(default=None, repr=False)  # may hold credentials
    temporary_path_class: type[TemporaryPath] | None = None
    direct: bool = False
    replace: bool = False
    exists: Exists | None = None  # None only until __post_init__, which makes the two of them agree
    durable: bool = True
    coordinator: Coordinator | Literal["auto"] | None = None
    file_options: FileOptions | None = None
    metadata: Mapping[str, JSONValue] | None = None
    checksums: bool = False
    staging_dir: PathLike | None = None
    progress: Progress | bool | None = None
    guarantees: Guarantee | None = None
    unsafe_takeover: bool = False
    allow_empty: bool = False
    marker: str | EllipsisType | None = ...
    allow_unfinished: bool = False  # this and the next are for copies of committed directories, not for commit
    copied_from: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.marker, str):
            check_marker(self.marker)
        elif self.marker not in (None, ...):
            raise ValidationError(f"marker= takes the name of a file, or None for none, not {self.marker!r}")
        self._check_exists()
        check_coordinator(self.coordinator)
        if self.staging_dir is not None:  # at once, and absolute: the current directory may change until it is used
            object.__setattr__(self, "staging_dir", local_directory(self.staging_dir, "staging_dir"))

    def _check_exists(self) -> None:
        if self.exists not in (None, *get_args(Exists)):
            raise ValidationError(f"exists= takes 'error', 'keep' or 'replace', not {self.exists!r}")
        if self.replace and self.exists not in (None, "replace"):
            raise ValidationError(f"replace=True and exists={self.exists!r} contradict each other: pass one of them")
        object.__setattr__(self, "exists", "replace" if self.replace else self.exists or "error")
        object.__setattr__(self, "replace", self.exists == "replace")

    @property
    def keeps(self) -> bool:
        """Tell whether a committed directory that is there already is the result."""
        return self.exists == "keep"

    def final(self, url: PathLike) -> Location:
        """Return the location that `url` means, if a commit is possible there. No I/O.

        Raise ValidationError if it is below a temporary path, or a whole bucket.
        """
        location = locate(url, self.storage_options)
        if is_temporary(location.path):
            raise ValidationError(
                f"{location} is below a temporary path, where nothing ever counts as committed: use another"
            )
        if "/" not in location.path:
            raise ValidationError(
                f"{location} is a whole bucket: add a directory's name, as in {location}/run/step_100"
            )
        return location

    def callback(self) -> Progress | None:
        """Return the callback to report progress to, or None."""
        if callable(self.progress):
            return self.progress
        return progress_bar() if self.progress else None

    async def strategy(self, location: Location, *, is_local: bool) -> tuple[type[TemporaryPath], Profile]:
        """Choose the strategy for a location; return it with what holds there.

        Raise GuaranteeError if no strategy is safe there.
        """
        chosen = self.temporary_path_class
        wanted = _WANTED | chosen.requires if chosen else _WANTED_BY_ANY
        asserted = self.guarantees or NONE
        if asserted:  # put to the test too: what a probe refutes cannot be asserted
            wanted |= asserted
        profile = await profile_of(location, wanted=wanted, asserted=asserted)
        if chosen is None:
            chosen = select(profile, replace=self.replace)
        else:
            check(chosen.__name__, chosen.requires, profile)
            if self.replace:
                check_replacing(chosen.__name__, chosen.replacing, "replace=True", profile)
        if self.durable and is_local:
            check("durable=True (durable=False accepts less)", Guarantee.SYNC, profile)
        return chosen, profile

    def attempt(self, guarantees: Guarantee, *, direct: bool, metadata: Mapping[str, JSONValue]) -> AttemptOptions:
        """Return the options to pass to a strategy."""
        return AttemptOptions(
            guarantees=guarantees,
            durable=self.durable,
            direct=direct,
            checksums=self.checksums,
            unsafe_takeover=self.unsafe_takeover,
            replace=self.replace,
            allow_empty=self.allow_empty,
            allow_unfinished=self.allow_unfinished,
            marker=self.marker,
            copied_from=self.copied_from,
            metadata=metadata,
        )

    def view(self, location: Location, *, direct: bool) -> Document:
        """Return the options that must be the same in every process of a job."""
        return {
            "place": location.identity,
            "url": str(location),
            "direct": direct,
            "exists": self.exists,
            "checksums": self.checksums,
            "temporary_path_class": self.temporary_path_class.__name__ if self.temporary_path_class else None,
        }


def check_agreement(views: Sequence[Document]) -> None:
    """Raise ValidationError unless the processes of the job mean the same commit."""
    for name in views[0]:
        said = {str(view.get(name)) for view in views}
        if len(said) > 1:
            shown = "url" if name == "place" else name
            told = "; ".join(f"rank {rank}: {view.get(shown)}" for rank, view in enumerate(views))
            raise ValidationError(
                f"the ranks of this job do not pass the same {shown}: {told}. Nothing was begun. Every rank calls"
                " commit with the same arguments; one that commits alone passes coordinator=atomicpath.SingleProcess()"
            )
