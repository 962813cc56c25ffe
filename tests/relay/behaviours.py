"""The behaviours: each as rules for a relay, in the words of the protocol that is spoken there."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.support.proxy import CONDITIONS, Action, Reply, Request, Rule, Send, drop_reply, is_

from .dialects import Dialect, edited

__all__ = ["BEHAVIOURS", "Behaviour"]

Sleep = Callable[[float], object]
_PAST_A_LEASE = 100.0  # seconds
_WRITES = ("PUT", "POST", "DELETE")


@dataclass(frozen=True)
class Behaviour:
    """What a server does differently. `rules` gets the protocol, and how to let time pass.

    `is_known`: what holds there was found out before, so that no probe meets it.
    """

    name: str
    rules: Callable[[Dialect, Sleep], list[Rule]]
    is_known: bool = False

    def speaks(self, dialect: Dialect) -> bool:
        """Whether this can be said in a protocol at all."""
        return dialect.quotes_versions or not self.name.startswith("If-Match")


def _always(match: Callable[[Request], bool], action: Action) -> list[Rule]:
    return [Rule(match=match, action=action, times=None)]


def _anything(request: Request) -> bool:
    return True


def _changing(change: Callable[[Request], Request]) -> Action:
    return lambda request, send: send(change(request))


def _honest(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    return []


def _delete_unconditionally(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    return _always(is_("DELETE"), _changing(dialect.without_conditions))


def _if_match(*, quoted: bool) -> Callable[[Dialect, Sleep], list[Rule]]:
    def rules(dialect: Dialect, sleep: Sleep) -> list[Rule]:
        def is_other_form(request: Request) -> bool:
            version = request.headers.get("if-match")
            return version is not None and version.startswith('"') is not quoted

        return _always(is_other_form, lambda request, send: dialect.error(412, "PreconditionFailed"))

    return rules


def _no_conditions(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    return _always(dialect.has_condition, lambda request, send: dialect.error(501, "NotImplemented"))


def _no_deletes(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    return _always(is_("DELETE"), lambda request, send: dialect.error(403, "AccessDenied"))


def _bursts(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    """Two of three times a request is told to come again."""
    seen: Counter[tuple[str, str]] = Counter()

    def act(request: Request, send: Send) -> Reply:
        seen[request.method, request.path] += 1
        if seen[request.method, request.path] % 3:
            return dialect.error(429, "TooManyRequests")
        return send(request)

    return _always(_anything, act)


def _balancer(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    page = b"<html><body><h1>404 Not Found</h1>nginx</body></html>"
    return _always(_anything, lambda request, send: Reply(404, {"Content-Type": "text/html"}, page))


def _no_version(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    def act(request: Request, send: Send) -> Reply:
        reply = send(request).with_headers(lambda name: name not in dialect.version_headers)
        return edited(reply, dialect.version_in_body.sub(b"", reply.body)) if _is_text(reply) else reply

    return _always(_anything, act)


def _is_text(reply: Reply) -> bool:
    kind = next((value for name, value in reply.headers.items() if name.lower() == "content-type"), "")
    return "xml" in kind or "json" in kind


def _no_length(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    def act(request: Request, send: Send) -> Reply:
        reply = send(request).with_headers(lambda name: name != "content-length")
        return replace(reply, is_announced=False)

    return _always(_anything, act)


def _other_versions_listed(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    other = b"&quot;0123456789abcdef0123456789abcdef&quot;" if dialect.name != "GCS" else b"1"

    def act(request: Request, send: Send) -> Reply:
        reply = send(request)
        return edited(reply, dialect.version_in_listing.sub(other, reply.body))

    return _always(dialect.is_listing, act)


def _endless_pages(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    numbers: Iterator[int] = itertools.count()
    pages: dict[str, Reply] = {}

    def act(request: Request, send: Send) -> Reply:
        prefix = request.query.get("prefix", "")
        if prefix not in pages:
            pages[prefix] = send(request)
        return edited(pages[prefix], dialect.page_end(pages[prefix].body, f"page-{next(numbers)}"))

    return _always(dialect.is_listing, act)


def _no_metadata(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    return _always(_anything, _changing(dialect.without_metadata))


def _lost_replies(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    return _always(_first_time(), drop_reply)


def _delayed_replies(dialect: Dialect, sleep: Sleep) -> list[Rule]:
    def act(request: Request, send: Send) -> Reply:
        reply = send(request)
        sleep(_PAST_A_LEASE)
        return reply

    return _always(_first_time(), act)


def _first_time() -> Callable[[Request], bool]:
    """The first sending of each write."""
    seen: set[tuple[str, str, tuple[str | None, ...]]] = set()

    def match(request: Request) -> bool:
        key = request.method, request.target, tuple(request.headers.get(name) for name in CONDITIONS)
        if request.method not in _WRITES or key in seen:
            return False
        seen.add(key)
        return True

    return match


BEHAVIOURS = (
    Behaviour("as it is", _honest),
    Behaviour("DELETE conditions ignored", _delete_unconditionally),
    Behaviour("If-Match quoted only", _if_match(quoted=True)),
    Behaviour("If-Match unquoted only", _if_match(quoted=False)),
    Behaviour("501 for conditions", _no_conditions),
    Behaviour("403 on delete", _no_deletes),
    Behaviour("429 bursts", _bursts),
    Behaviour("404 page of a load balancer", _balancer),
    Behaviour("no version in replies", _no_version),
    Behaviour("no length", _no_length),
    Behaviour("other version in listings", _other_versions_listed),
    Behaviour("endless pages", _endless_pages),
    Behaviour("no metadata", _no_metadata),
    Behaviour("replies lost", _lost_replies),
    Behaviour("replies delayed past a lease", _delayed_replies, is_known=True),
)
