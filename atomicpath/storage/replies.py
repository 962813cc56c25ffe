"""What a store's reply says, each field checked where it is used; and listings that come to an end."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from datetime import datetime

__all__ = ["Answer", "Paging"]

_FRUITLESS = 1000
"""Pages of one listing in a row without anything new: stores may send empty ones, but each takes a request."""

_MOST = 100_000
"""Pages of one listing: at a thousand names each, more than anybody commits."""


class Answer:
    """The fields of one reply. One that is missing, or is not what it should be, is an `OSError` where it is used.

    Nobody knows then what the store has done, which is what that error means. The message names the place and the
    request. Args: `where`, the URL; `what`, the request in words; `fields`, as the client gives them.
    """

    def __init__(self, where: str, what: str, fields: Mapping[str, object]) -> None:
        self._where = where
        self._what = what
        self._fields = fields

    def text(self, name: str) -> str:
        """Return a field that must be there, and not be empty."""
        found = self._fields.get(name)
        if found is None or found == "":
            raise self._unusable(f"has no {name}")
        if not isinstance(found, str | int) or isinstance(found, bool):
            raise self._unusable(f"has a {name} that is no text")
        return str(found)

    def text_or_none(self, name: str) -> str | None:
        """Return a field that may be missing."""
        return self.text(name) if self._fields.get(name) is not None else None

    def number(self, name: str) -> int:
        """Return a field that must be there and be a count, written in digits or not."""
        text = self.text(name)
        if not (text.isascii() and text.isdecimal()):
            raise self._unusable(f"has a {name} that is no number")
        return int(text)

    def time(self, name: str) -> datetime | None:
        """Return a moment, or None where the reply does not tell it."""
        found = self._fields.get(name)
        return found if isinstance(found, datetime) else None

    def is_set(self, name: str) -> bool:
        """Tell whether a field says yes; a missing field does not."""
        return bool(self._fields.get(name))

    def expect(self, *names: str) -> None:
        """Raise unless one of the fields is there by which a reply is known to be an answer to this request.

        A reply in which nothing is found may also be the page of a proxy, read as one without any fields.
        """
        if all(self._fields.get(name) is None for name in names):
            raise self._unusable(
                f"has no {' and no '.join(names)}, so it may not be the store's own: check the endpoint"
            )

    def part(self, name: str) -> Answer:
        """Return the fields below a field; none where that field is missing."""
        found = self._fields.get(name)
        if found is None:
            return Answer(self._where, self._what, {})
        if not isinstance(found, Mapping):
            raise self._unusable(f"has a {name} that is not made of fields")
        return Answer(self._where, self._what, found)

    def parts(self, name: str) -> Iterator[Answer]:
        """Return each element of a list of fields; none where the list is missing."""
        found = self._fields.get(name)
        if found is None:
            return
        if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
            raise self._unusable(f"has a {name} that is no list of fields")
        for one in found:
            yield Answer(self._where, self._what, one)

    def texts(self, name: str) -> list[str]:
        """Return a list of texts, which is empty where the field is missing."""
        found = self._fields.get(name)
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise self._unusable(f"has a {name} that is no list of texts")
        return found

    def _unusable(self, reason: str) -> OSError:
        return OSError(errno.EIO, f"{self._where}: the reply to {self._what} {reason}")


class Paging:
    """One listing, page after page: it goes on while there is more, and ends with an `OSError` where it would not.

    `where` is the URL that is listed.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._tokens: set[str] = set()
        self._pages = 0
        self._found = 0
        self._fruitless = 0

    def goes_on(self, token: str | None, found: int) -> bool:
        """Tell whether to ask for the page of `token`; `found` is how many names there are by now."""
        if not token:
            return False
        if token in self._tokens:
            raise self._endless("it gave the same continuation token twice")
        self._tokens.add(token)
        self._pages += 1
        self._fruitless = 0 if found > self._found else self._fruitless + 1
        self._found = found
        if self._fruitless >= _FRUITLESS:
            raise self._endless(f"there was nothing new on {self._fruitless} pages in a row")
        if self._pages >= _MOST:
            raise self._endless(f"there is more after {self._pages} pages")
        return True

    def _endless(self, reason: str) -> OSError:
        return OSError(errno.EIO, f"{self._where}: the listing does not end: {reason}")
