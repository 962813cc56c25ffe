"""The rules of retention: which commits of one series stay, and why. Pure: no I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeAlias

from atomicpath.errors import ValidationError

__all__ = ["Candidate", "Decision", "Mode", "Rules", "decide"]

Mode: TypeAlias = Literal["min", "max"]
"""Which value of a metric is the best: the least or the greatest."""

_SUPERSEDED = "it is temporary, and a newer commit has superseded it"
_NO_RULE = "no rule keeps it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One complete commit, as the rules see it.

    Attributes:
        name: The name below the root.
        step: The step; None if it has none.
        time: The moment of the commit in nanoseconds; None if it is not known.
        metric: The value of the metric that the rules name; None if the commit has none.
        is_wanted: The caller's own function has chosen it.
        is_pinned: The caller protects it.
        is_alias_target: A link or an alias in the root leads to it.
        is_last_committed: No other commit of the series is known to have been made later.
        is_temporary: The next commit supersedes it, whatever the rules say.
    """

    name: str
    step: int | None = None
    time: int | None = None
    metric: float | None = None
    is_wanted: bool = False
    is_pinned: bool = False
    is_alias_target: bool = False
    is_last_committed: bool = False
    is_temporary: bool = False

    @property
    def has_metric(self) -> bool:
        """True if the metric can be compared with those of other candidates: NaN cannot."""
        return self.metric is not None and not math.isnan(self.metric)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a commit stays, and the reason in words."""

    name: str
    kept: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is to stay; a commit stays if any rule keeps it. Without a rule everything but superseded ones stays.

    Attributes:
        keep_last: The newest so many.
        keep_every_n_steps: Those whose step is a multiple of it. One without a step is not kept by this rule.
        keep_every: One for each such time: the first, and each that came at least so long after the last one kept.
        keep_within: Those committed at most so long before the newest commit, whatever the clock says now.
        keep_best: The best so many by a metric. One without the metric, or with NaN, is not counted. Of equal ones the
            newer is better.
        metric: The name of the metric.
        mode: Which value is the best.
        by_function: A function of the caller chooses too.
    """

    keep_last: int | None = None
    keep_every_n_steps: int | None = None
    keep_every: timedelta | None = None
    keep_within: timedelta | None = None
    keep_best: int | None = None
    metric: str | None = None
    mode: Mode = "min"
    by_function: bool = False

    def __post_init__(self) -> None:
        if self.keep_last is not None:
            _expect_count("keep_last keeps at least one: n", self.keep_last)
        if self.keep_every_n_steps is not None:
            _expect_count("keep_every_n_steps", self.keep_every_n_steps)
        if self.keep_best is not None:
            _expect_count("keep_best", self.keep_best)
        for name in ("keep_every", "keep_within"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, timedelta) and value > timedelta(0)):
                raise ValidationError(f"{name} must be a timedelta above zero, not {value!r}")
        if (self.keep_best is None) != (self.metric is None):
            raise ValidationError(
                "keep_best and metric belong together: pass keep_best=3, metric='loss' to keep the three best by loss"
            )
        if self.mode not in ("min", "max"):
            raise ValidationError(f"mode must be 'min' or 'max', not {self.mode!r}")

    @property
    def is_empty(self) -> bool:
        """True if there is no rule at all."""
        rules = (self.keep_last, self.keep_every_n_steps, self.keep_every, self.keep_within, self.keep_best)
        return not self.by_function and all(rule is None for rule in rules)


def decide(candidates: Sequence[Candidate], rules: Rules) -> list[Decision]:
    """Decide about each commit of one series, in the order given: oldest first.

    Whatever the rules say, these stay: the newest, the newest that is not temporary, what was committed last, what is
    protected, and what an alias leads to. A temporary commit is kept for these reasons alone.

    Whatever the rules say these stay: the newest, the newest that is not temporary, what was committed last, what is
    protected, and what an alias leads to. A temporary commit is kept by these alone.

    Raises:
        ValidationError: `keep_best` is asked for, and no commit has the metric: its name may be misspelt.
    """
    lasting = [one for one in candidates if not one.is_temporary]
    reasons: dict[str, list[str]] = {one.name: [] for one in candidates}
    for one in candidates:
        found = (
            (one is candidates[-1], "it is the newest"),
            (bool(lasting) and one is lasting[-1] and one is not candidates[-1], "it is the newest that is to last"),
            (one.is_last_committed and one is not candidates[-1], "it was committed last"),
            (one.is_pinned, "it is protected"),
            (one.is_alias_target, "an alias leads to it"),
        )
        reasons[one.name] += [reason for holds, reason in found if holds]
    for one, reason in _by_rules(lasting, rules):
        reasons[one.name].append(reason)
    return [
        Decision(name=one.name, kept=bool(why), reason="; ".join(why) or _why_not(one, rules))
        for one in candidates
        for why in (reasons[one.name],)
    ]


def _by_rules(lasting: Sequence[Candidate], rules: Rules) -> Iterable[tuple[Candidate, str]]:
    if rules.is_empty:
        yield from ((one, "there is no rule by which anything goes") for one in lasting)
    if rules.keep_last is not None:
        yield from ((one, f"it is one of the newest {rules.keep_last}") for one in lasting[-rules.keep_last :])
    if rules.keep_every_n_steps is not None:
        for one in lasting:
            if one.step is not None and one.step % rules.keep_every_n_steps == 0:
                yield one, f"its step is a multiple of {rules.keep_every_n_steps}"
    if rules.keep_every is not None:
        yield from ((one, f"one is kept for each {rules.keep_every}") for one in _spaced(lasting, rules.keep_every))
    if rules.keep_within is not None:
        for one in _recent(lasting, rules.keep_within):
            yield one, f"it was committed within {rules.keep_within} of the newest"
    if rules.keep_best is not None:
        for one in _best(lasting, rules.keep_best, rules):
            yield one, f"it is one of the best {rules.keep_best} by {rules.metric} ({one.metric:g})"
    yield from ((one, "keep= has chosen it") for one in lasting if one.is_wanted)


def _why_not(one: Candidate, rules: Rules) -> str:
    if one.is_temporary:
        return _SUPERSEDED
    if rules.keep_best is None or one.has_metric:
        return _NO_RULE
    value = f"it has no metric {rules.metric!r}" if one.metric is None else f"its {rules.metric} is NaN"
    return f"{_NO_RULE}; {value}, and so it is not counted among the best"


def _nanoseconds(delta: timedelta) -> int:
    return delta // timedelta(microseconds=1) * 1000


def _timed(candidates: Sequence[Candidate]) -> list[tuple[int, Candidate]]:
    found = [(one.time, one) for one in candidates if one.time is not None]
    return sorted(found, key=lambda pair: pair[0])


def _spaced(candidates: Sequence[Candidate], distance: timedelta) -> Iterable[Candidate]:
    last: int | None = None
    for time, one in _timed(candidates):
        if last is None or time - last >= _nanoseconds(distance):
            last = time
            yield one


def _recent(candidates: Sequence[Candidate], age: timedelta) -> Iterable[Candidate]:
    timed = _timed(candidates)
    return [one for time, one in timed if timed[-1][0] - time <= _nanoseconds(age)]


def _best(candidates: Sequence[Candidate], count: int, rules: Rules) -> Iterable[Candidate]:
    measured = [(one.metric, one) for one in reversed(candidates) if one.metric is not None and one.has_metric]
    if candidates and not any(one.metric is not None for one in candidates):
        raise ValidationError(
            f"no commit has the metric {rules.metric!r}, so that none would be kept as the best. Nothing was removed:"
            " is its name misspelt? It is looked for in metadata['metrics'], then in metadata itself"
        )
    return [one for _, one in sorted(measured, key=lambda pair: pair[0], reverse=rules.mode == "max")[:count]]


def _expect_count(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValidationError(f"{what} must be an integer of 1 or more, not {value!r}")
