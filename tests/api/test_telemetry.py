"""What a monitoring system is told, by the real SDK, and what is done where there is none."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, Tracer
from upath import UPath

import atomicpath
from atomicpath import TMP_DIR_SUFFIX, AtomicRenameTemporaryPath, CommitFileTemporaryPath
from atomicpath._core import telemetry
from atomicpath._core.environment import Environment, use
from atomicpath._core.telemetry import instruments, parts
from tests.support.roots import SECRET, LocalRoot, MemoryRoot, Root
from tests.support.waiting import PATIENCE


@dataclass
class Monitor:
    """What has been exported so far."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracer: Tracer

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.spans() if span.name == name)
        return found

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        metrics = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
        assert all(metric.unit == ("By" if name.endswith(".io") else "s") for metric in metrics)
        return [point for metric in metrics for point in metric.data.data_points]


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    spans, metrics = TracerProvider(shutdown_on_exit=False), InMemoryMetricReader()
    meters = MeterProvider([metrics], shutdown_on_exit=False)
    exporter = InMemorySpanExporter()
    spans.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = spans.get_tracer("atomicpath")
    monkeypatch.setattr(instruments, "_instruments", instruments._made(tracer, meters.get_meter("atomicpath")))
    monkeypatch.setattr(parts, "_last_commit", [])
    yield Monitor(exporter, metrics, tracer)
    spans.shutdown()
    meters.shutdown()


def _children(monitor: Monitor) -> dict[str, ReadableSpan]:
    top = monitor.span("atomicpath.commit")
    return {span.name: span for span in monitor.spans() if span.parent and span.parent.span_id == top.context.span_id}


def test_a_commit_is_a_span_with_its_parts_below_it_and_below_the_callers(memory: MemoryRoot, monitor: Monitor) -> None:
    with (
        monitor.tracer.start_as_current_span("training") as outer,
        atomicpath.commit(memory / "step_1", staging_dir=None) as path,
    ):
        (path / "x").write_bytes(b"12345")
    commit = monitor.span("atomicpath.commit")
    assert commit.parent is not None
    assert commit.parent.span_id == outer.get_span_context().span_id
    assert dict(commit.attributes or {}) == {
        "atomicpath.backend": "memory",
        "atomicpath.strategy": "CommitFileTemporaryPath",
        "atomicpath.outcome": "committed",
    }
    parts = _children(monitor)
    assert list(parts) == ["atomicpath.create", "atomicpath.upload", "atomicpath.finalize"]
    assert dict(parts["atomicpath.upload"].attributes or {}) == {"atomicpath.upload.size": 5}
    assert commit.status.status_code is StatusCode.UNSET
    (io,) = monitor.points("atomicpath.upload.io")
    assert io.value == 5


async def test_many_commits_at_once_keep_their_parts_apart(memory: MemoryRoot, monitor: Monitor) -> None:
    async def one(number: int) -> None:
        async with atomicpath.aio.commit(memory / f"step_{number}", allow_empty=True):
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(one, number)
    spans = monitor.spans()
    tops = [span for span in spans if span.name == "atomicpath.commit"]
    assert len(tops) == 5
    assert all(span.parent is None for span in tops)
    for top in tops:
        below = [span.name for span in spans if span.parent and span.parent.span_id == top.context.span_id]
        assert below == ["atomicpath.create", "atomicpath.upload", "atomicpath.finalize"]


def test_a_block_that_raises_is_abandoned_and_a_commit_that_is_refused_has_failed(
    local: LocalRoot, monitor: Monitor
) -> None:
    with pytest.raises(ZeroDivisionError), atomicpath.commit(local / "step_1", allow_empty=True):
        raise ZeroDivisionError
    with atomicpath.commit(local / "step_2", allow_empty=True):
        pass
    with pytest.raises(atomicpath.AlreadyCommittedError), atomicpath.commit(local / "step_2", allow_empty=True):
        pass
    outcomes = {point.attributes["atomicpath.outcome"]: point for point in monitor.points("atomicpath.commit.duration")}
    assert set(outcomes) == {"abandoned", "committed", "failed"}
    assert outcomes["failed"].attributes["error.type"] == "atomicpath.errors.AlreadyCommittedError"
    assert all(point.count == 1 for point in outcomes.values())
    (failed,) = (span for span in monitor.spans() if (span.attributes or {}).get("atomicpath.outcome") == "failed")
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description is None
    assert len(monitor.points("atomicpath.commit.interval")) == 1  # only what was committed


def test_an_unknown_outcome_is_called_so(local: LocalRoot, monitor: Monitor) -> None:
    class Unknown(AtomicRenameTemporaryPath):
        async def finalize(self) -> None:
            raise atomicpath.OutcomeUnknownError("nobody answers")

    with (
        pytest.raises(atomicpath.OutcomeUnknownError),
        atomicpath.commit(local / "step_1", temporary_path_class=Unknown),
    ):
        pass
    (point,) = monitor.points("atomicpath.commit.duration")
    assert point.attributes["atomicpath.outcome"] == "unknown"
    assert point.attributes["error.type"] == "atomicpath.errors.OutcomeUnknownError"


class Clock(Environment):
    """Time passes only where a test says so."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_the_interval_between_commits_is_recorded_and_the_first_counts_from_the_start_of_the_process(
    local: LocalRoot, monitor: Monitor
) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    with use(Clock()) as clock:
        with atomicpath.commit(local / "step_1", allow_empty=True):
            pass
        (first,) = monitor.points("atomicpath.commit.interval")
        assert isinstance(clock, Clock)
        clock.now += 90.0
        with pytest.raises(ZeroDivisionError), atomicpath.commit(local / "never", allow_empty=True):
            raise ZeroDivisionError
        clock.now += 10.0
        with atomicpath.commit(local / "step_2", allow_empty=True):
            clock.now += 1.0
    (both,) = monitor.points("atomicpath.commit.interval")
    assert (first.count, both.count) == (1, 2)
    assert both.sum - first.sum == pytest.approx(101.0)
    own = time.clock_gettime(time.CLOCK_BOOTTIME) - before  # none of it was before this process began
    assert own < first.sum
    assert first.sum <= before + own


def test_how_long_the_creation_took_and_whether_somebody_waited(local: LocalRoot, monitor: Monitor) -> None:
    class Slow(Clock):
        def call(self, function, /, *args, **kwargs):  # type: ignore[no-untyped-def]
            self.now += 0.25 if getattr(function, "__name__", "") == "mkdir" and TMP_DIR_SUFFIX in str(args[0]) else 0.0
            return super().call(function, *args, **kwargs)

    with use(Slow()), atomicpath.commit(local / "step_1", allow_empty=True):
        pass
    (point,) = monitor.points("atomicpath.directory.create.duration")
    assert (point.count, point.sum) == (1, 0.25)
    assert point.attributes["atomicpath.create.mode"] == "blocking"
    assert point.attributes["atomicpath.strategy"] == "AtomicRenameTemporaryPath"


def test_who_creates_in_the_background_keeps_nobody_waiting(local: LocalRoot, monitor: Monitor) -> None:
    attempts = [AtomicRenameTemporaryPath.from_final(UPath(local / name)) for name in ("a", "b", "c")]
    with monitor.tracer.start_as_current_span("training") as outer:
        atomicpath.create_all(attempts[:1])
        atomicpath.create_all_async(attempts[1:]).result(PATIENCE)
    points = monitor.points("atomicpath.directory.create.duration")
    assert {point.attributes["atomicpath.create.mode"]: point.count for point in points} == {
        "blocking": 1,
        "background": 2,
    }
    spans = [span for span in monitor.spans() if span.name == "atomicpath.create"]
    assert {span.parent and span.parent.span_id for span in spans} == {outer.get_span_context().span_id}


def test_the_commit_callback_records_the_duration_of_the_save(local: LocalRoot, monitor: Monitor) -> None:
    attempt = AtomicRenameTemporaryPath.from_final(UPath(local / "step_1"))
    atomicpath.create_all([attempt])
    atomicpath.on_commit_callback(attempt, checkpoint_start_time=time.time() - 100)
    (point,) = monitor.points("atomicpath.commit.duration")
    assert (point.count, point.attributes["atomicpath.outcome"]) == (1, "committed")
    assert point.sum >= 100
    (interval,) = monitor.points("atomicpath.commit.interval")
    assert interval.count == 1


@pytest.mark.parametrize("strategy", [AtomicRenameTemporaryPath, CommitFileTemporaryPath])
async def test_an_attempt_made_by_hand_is_told_of_too_and_once(
    strategy: type[atomicpath.TemporaryPath], local: LocalRoot, monitor: Monitor
) -> None:
    class Mine(strategy):  # type: ignore[valid-type, misc]
        async def create(self) -> Any:
            with telemetry.creating(self):
                return await super().create()

    for kind, name in ((strategy, "step_1"), (Mine, "step_2")):
        attempt = kind.from_final(UPath(local / name))
        await attempt.create()
        await attempt.finalize()
    points = monitor.points("atomicpath.directory.create.duration")
    assert [(point.attributes["atomicpath.strategy"], point.count) for point in points] == [
        (strategy.__name__, 1),
        ("Mine", 1),
    ]
    assert [span.name for span in monitor.spans()] == ["atomicpath.create", "atomicpath.finalize"] * 2
    assert monitor.points("atomicpath.commit.duration") == []


def test_no_credential_no_url_and_no_name_of_a_file_is_exported(s3: Root, monitor: Monitor) -> None:
    with atomicpath.commit(s3 / "step_1", storage_options=s3.storage_options) as path:
        (path / "named").write_bytes(b"1")
    with pytest.raises(atomicpath.CommitError), atomicpath.commit(s3 / "step_1", storage_options=s3.storage_options):
        pass
    data = monitor.reader.get_metrics_data()
    shown = [span.to_json() for span in monitor.spans()] + [data.to_json() if data else ""]
    assert any("atomicpath.upload.io" in text for text in shown)
    for text in shown:
        assert not [word for word in (SECRET, "step_1", "named", "endpoint_url", "s3://", "key") if word in text]


SILENT = """
import sys, tempfile
{before}
import atomicpath
root = tempfile.mkdtemp()
with atomicpath.commit(root + "/step_1", allow_empty=True):
    pass
with atomicpath.commit("memory://" + root + "/step_1") as path:
    (path / "x").write_bytes(b"1")
print(sorted(name for name in sys.modules if name.partition(".")[0] == "opentelemetry"))
"""


def test_where_nobody_can_listen_the_api_is_not_even_imported(
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = python(SILENT.format(before=""))
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_with_the_api_alone_nothing_happens(python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = python(SILENT.format(before="import opentelemetry.trace"))
    assert done.stderr == ""
    assert "opentelemetry.trace" in done.stdout
    assert "opentelemetry.sdk" not in done.stdout


LATE = """
import sys, tempfile
import atomicpath
root = tempfile.mkdtemp()
with atomicpath.commit(root + "/step_1", allow_empty=True):
    pass
from opentelemetry import metrics, trace
with atomicpath.commit(root + "/step_2", allow_empty=True):
    pass
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
metrics.set_meter_provider(MeterProvider([reader]))
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
with atomicpath.commit(root + "/step_3", allow_empty=True):
    pass
print([span.name for span in exporter.get_finished_spans()])
print(sorted(metric.name for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics))
"""


def test_an_application_may_set_up_its_sdk_after_the_first_commits(
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = python(LATE)
    assert done.stderr == ""
    spans, metrics = done.stdout.splitlines()
    assert spans == "['atomicpath.create', 'atomicpath.finalize', 'atomicpath.commit']"
    assert metrics == str(
        ["atomicpath.commit.duration", "atomicpath.commit.interval", "atomicpath.directory.create.duration"]
    )
