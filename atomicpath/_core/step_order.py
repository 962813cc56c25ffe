"""The order of committed directories: their steps, the series they belong to, and which was committed later."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atomicpath.errors import ValidationError

from .layout import is_pending
from .record import CommitRecord

__all__ = ["DEFAULT", "Moment", "Order", "StepRule", "in_order", "moments", "step_of"]

StepRule: TypeAlias = str | re.Pattern[str] | Callable[[str], int | None]
"""How a name tells its step: a regular expression with one group, which is searched for, or a function."""

Moment: TypeAlias = tuple[int, str, int]
"""A place in the order of commits; comparable with the others of one call of `moments`."""

# One word and a number (`step_100`, `checkpoint-100`, Megatron's `iter_0000100`), or the number alone. The one name
# of two words is DeepSpeed's tag (`global_step100` in runtime/engine.py), which verl writes as `global_step_100`.
_STEP = re.compile(r"([A-Za-z]+[_-]|global_step_?|)([0-9]+)")
_INTEGER = re.compile(r"-?[0-9]+")


def step_of(name: str) -> int | None:
    """Return the step that a name tells by itself, or None.

    `N`, `word_N`, `word-N` and `global_stepN` have a step. A date, a hash, or a name with several numbers has none:
    which of the numbers is the step would be a guess.
    """
    found = None if is_pending(name) else _STEP.fullmatch(name)  # its end is part of a random token
    return int(found.group(2)) if found else None


def _series_of(name: str) -> str | None:
    """Return what stands before the step in a name, the same in all names of a series.

    Return None if the name tells no step.
    """
    found = None if is_pending(name) else _STEP.fullmatch(name)
    return found.group(1) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which directories are asked for, and how they are ordered.

    `rule` is the caller's own: then only what it gives a step belongs to the answer, which is one series. Without it
    `metadata["step"]` of the record is the step, if that is an integer, else what the name tells. `prefix`: only names
    that begin with it; what follows it may be the step, too.
    """

    rule: Callable[[str], int | None] | None = None
    prefix: str = ""

    @classmethod
    def of(cls, step: StepRule | None, prefix: str | None) -> Order:
        """Make an order from the caller's arguments.

        Raise ValidationError if they cannot be used.
        """
        if prefix is not None and (not isinstance(prefix, str) or "/" in prefix):
            raise ValidationError(
                f"prefix= is what names begin with, a str without '/', not {prefix!r}: pass the directory they are in"
                " as the root"
            )
        return cls(rule=None if step is None else _rule(step), prefix=prefix or "")

    def takes(self, name: str) -> bool:
        """Tell whether a name may belong to the answer."""
        return name.startswith(self.prefix) and (self.rule is None or self.named_step(name) is not None)

    def named_step(self, name: str) -> int | None:
        """Return the step that the name tells, by the caller's rule or by ours."""
        if self.rule is not None:
            return self.rule(name)
        found = step_of(name)
        return step_of(name[len(self.prefix) :]) if found is None and self.prefix else found

    def step(self, name: str, record: CommitRecord | None) -> int | None:
        """Return the step of a committed directory."""
        if self.rule is None and record is not None:
            noted = record.metadata.get("step")
            if isinstance(noted, int) and not isinstance(noted, bool):
                return noted
        return self.named_step(name)

    def series(self, name: str) -> str | None:
        """Return what names of the same series share; None for a name without a step."""
        if self.named_step(name) is None:
            return None
        return "" if self.rule is not None or self.prefix else _series_of(name)


DEFAULT = Order()
"""All names, by our own rule."""


def moments(records: Mapping[str, CommitRecord | None], *, trust_later: bool = False) -> dict[str, Moment]:
    """Return for each name its place in the order of commits, by the records.

    A directory that another tool committed comes first.

    The wall clocks of the writers order the commits. For two commits of one boot of one host, the clock that counts
    since the boot decides, because nobody can set it. If the two clocks contradict each other, somebody set the wall
    clock in between. Then the time of the earlier commit is believed, and with `trust_later` that of the later one.
    Where the two answers differ, the order is not known.
    """
    boots: dict[str, list[tuple[int, str]]] = {}
    found: dict[str, Moment] = {}
    for name, record in records.items():
        wall = (record.committed or 0) if record else 0
        found[name] = (wall, "", 0)
        if record is not None and record.boot_clock is not None and record.writer.boot:
            boots.setdefault(record.writer.boot, []).append((record.boot_clock, name))
    for boot, members in boots.items():
        members.sort(reverse=trust_later)
        corrected: int | None = None
        for clock, name in members:
            wall = found[name][0]
            if corrected is not None:
                wall = min(corrected, wall) if trust_later else max(corrected, wall)
            corrected = wall
            found[name] = (wall, boot, clock)
    return found


def _rule(step: object) -> Callable[[str], int | None]:
    if isinstance(step, str):
        try:
            step = re.compile(step)
        except re.error as error:
            raise ValidationError(f"step={step!r} is not a regular expression: {error}") from error
    if isinstance(step, re.Pattern):
        return _pattern_rule(step)
    if callable(step):
        return _function_rule(step)
    raise ValidationError(
        f"step= is a regular expression with one group, such as r'step-(\\d+)', or a function of the name, not {step!r}"
    )


def _pattern_rule(pattern: re.Pattern[str]) -> Callable[[str], int | None]:
    if not isinstance(pattern.pattern, str) or pattern.groups != 1:
        raise ValidationError(
            f"step={pattern.pattern!r} has {pattern.groups} groups: a regular expression for str with exactly one, the"
            " digits of the step, is needed, such as r'step-(\\d+)'; write (?:...) for what else is to be grouped"
        )

    def rule(name: str) -> int | None:
        found = pattern.search(name)
        text = found.group(1) if found else None
        if text is None:
            return None
        if not _INTEGER.fullmatch(text):
            raise ValidationError(f"step={pattern.pattern!r} finds {text!r} in {name!r}, which is not an integer")
        return int(text)

    return rule


def _function_rule(function: Callable[[str], object]) -> Callable[[str], int | None]:
    def rule(name: str) -> int | None:
        try:
            found = function(name)
        except Exception as error:
            raise ValidationError(
                f"step= failed for the name {name!r} ({type(error).__name__}: {error}): return None for names without"
                " a step"
            ) from error
        if found is None or (isinstance(found, int) and not isinstance(found, bool)):
            return found
        raise ValidationError(f"step= returned {found!r} for the name {name!r}: return an int, or None without a step")

    return rule


def in_order(names: Sequence[str], steps: Mapping[str, int | None], when: Mapping[str, Moment]) -> list[str]:
    """Return the names of one series, oldest first.

    Names without a step come first, then the others by step. Equal ones are in the order of their commits.
    """
    return sorted(names, key=lambda name: (_rank(steps[name]), when[name], name))


def _rank(step: int | None) -> tuple[bool, int]:
    return (step is not None, step or 0)
