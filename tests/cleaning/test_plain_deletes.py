"""Retention and take-over on real stores that honour conditions on writes and ignore them on DELETE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import atomicpath
from atomicpath._core.layout import is_probe
from atomicpath._core.record import State
from atomicpath._profile import probing
from atomicpath._profile.location import locate
from atomicpath._strategies import fences
from atomicpath.guarantees import NONE, Guarantee
from tests.cleaning.leftovers import NOW, RECORD, commit, from_elsewhere, killed, options_of, sweep
from tests.protocol.worlds import ALL, decoded, trust
from tests.support.processes import content_of
from tests.support.proxy import Proxy, Request, Rule, drop_request, ignore_conditions, is_
from tests.support.roots import Root, S3Root

PLAIN = ALL & ~Guarantee.CONDITIONAL_DELETE


def behind(proxy: Proxy, place: S3Root) -> S3Root:
    """The same place, reached by way of a relay that strips the conditions of DELETE."""
    proxy.rules.append(Rule(match=is_("DELETE"), action=ignore_conditions, times=None))
    relayed = S3Root(place.client, place.bucket, proxy.url)
    relayed.storage_options = {**place.storage_options, "endpoint_url": proxy.url}
    return relayed


@pytest.fixture(params=["moto", "seaweedfs", "fake-gcs-server"])
def plain(request: pytest.FixtureRequest) -> Iterator[Root]:
    """fake-gcs-server is seen as it is, by probes."""
    which = request.param
    if which == "fake-gcs-server":
        yield request.getfixturevalue("gcs_place")
        return
    upstream = request.getfixturevalue("server" if which == "moto" else "seaweedfs")
    with Proxy(upstream) as proxy:
        place = behind(proxy, request.getfixturevalue(f"{which}_place"))
        trust(place / "any", place.storage_options, PLAIN, refuted=Guarantee.CONDITIONAL_DELETE)
        yield place


@pytest.fixture
def relayed(moto_place: S3Root, server: str) -> Iterator[tuple[S3Root, Proxy]]:
    with Proxy(server) as proxy:
        place = behind(proxy, moto_place)
        trust(place / "any", place.storage_options, PLAIN, refuted=Guarantee.CONDITIONAL_DELETE)
        yield place, proxy


def deletes_a_file(request: Request) -> bool:
    """Not what a removal asks first, whether it may delete."""
    return request.method == "DELETE" and not is_probe(request.path.rpartition("/")[2])


def verified(place: Root, name: str) -> bool:
    return atomicpath.verify(f"{place.url}/{name}", **options_of(place)).ok


def test_retention_and_take_over_work_as_elsewhere(plain: Root) -> None:
    for number in (1, 2, 3):
        commit(plain, f"step_{number}")
    gone = atomicpath.keep_last(plain.url, 1, **options_of(plain))
    assert [one.name for one in gone] == ["step_1", "step_2"]
    assert set(plain.names()) == {"step_3"}
    found = probing._known[locate(plain / "step_1", plain.storage_options).parent.identity]
    assert found.refuted & ALL & ~Guarantee.EXCLUSIVE_MULTIPART == Guarantee.CONDITIONAL_DELETE
    atomicpath.remove(f"{plain.url}/step_3", **options_of(plain))
    assert plain.read_all() == {}
    commit(plain, "step_3")  # every delete was answered, so the name was free
    assert verified(plain, "step_3")

    killed(plain, "step_4", at_request=4)
    assert RECORD in plain.read_all("step_4")
    commit(plain, "step_4")  # takes over
    assert verified(plain, "step_4")
    assert set(plain.read_all("step_4")) - set(content_of("x")) == {RECORD, "commit_success.txt"}
    killed(plain, "step_5", at_request=4)
    from_elsewhere(plain, f"step_5/{RECORD}")
    (swept,) = sweep(plain)
    assert (swept.path.name, swept.done) == ("step_5", True)
    assert "age is the only protection" not in swept.reason
    assert set(plain.names()) == {"step_3", "step_4"}


@pytest.mark.parametrize("end", [lambda place: atomicpath.remove(place / "step_1", **options_of(place)), sweep])
def test_a_delete_that_has_no_answer_is_sent_once_and_its_name_is_kept_from_everybody(
    end: Callable[[Any], object], relayed: tuple[S3Root, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, proxy = relayed
    if end is sweep:
        killed(place, "step_1", at_request=4)
        from_elsewhere(place, f"step_1/{RECORD}")
    else:
        commit(place, "step_1")
    proxy.rules.insert(0, Rule(match=deletes_a_file, action=drop_request, times=None))
    proxy.requests.clear()
    try:
        (outcome,) = end(place)  # type: ignore[misc]  # a sweep tells of errors
        assert outcome.error is not None
    except OSError as error:
        assert "sweep" in " ".join(error.__notes__)
    sent = [request.path for request in proxy.requests if deletes_a_file(request)]
    assert sent
    assert len(sent) == len(set(sent)), "each once"
    assert not any(path.endswith(RECORD) for path in sent)
    assert decoded(place.read_all("step_1")[RECORD]).state == "discarded"
    proxy.rules.pop(0)
    before = place.read_all()
    with pytest.raises(atomicpath.ConflictError, match="can be used again in"):
        commit(place, "step_1")
    assert not sweep(place)[0].done
    assert place.read_all() == before
    monkeypatch.setattr(fences, "_SETTLED", 0.0)  # as if the time had passed
    assert sweep(place)[0].done
    assert place.read_all() == {}
    commit(place, "step_1")
    assert verified(place, "step_1")


def test_a_sweep_that_removes_what_was_removed_keeps_to_the_margin_whatever_it_is_told(
    relayed: tuple[S3Root, Proxy],
) -> None:
    """`older_than` shortens nothing: a process that was killed may have a delete under way."""
    place, _ = relayed
    killed(place, "step_1", at_request=4)
    from_elsewhere(place, f"step_1/{RECORD}")
    record = decoded(place.read_all("step_1")[RECORD]).moved_to(State.DISCARDED)
    place.write(f"step_1/{RECORD}", record.encode())
    (kept,) = sweep(place, older_than=NOW)
    assert (kept.action, kept.done) == ("keep", False)
    assert kept.age is not None
    assert timedelta(seconds=kept.age) < timedelta(seconds=fences.Fence.of(NONE).settles_after(record))
