"""Why a store refuses, in words that say what to do; and what is no word of the store's at all but its client's.

Only the store's own code means that something is absent, taken or refused. A missing token file, certificate or
configuration raises the same classes of error in the client, and a proxy before the store answers with the same status.
"""

from __future__ import annotations

import enum
import errno
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from atomicpath.errors import AccessError

__all__ = ["Refusal", "Watch", "foreign_answer", "of_the_client", "refusal_of"]


class Refusal(enum.Enum):
    """Why a store refused; the value is what to do about it."""

    RIGHTS = "check the credentials, and what they may do there"
    RIGHTS_OR_PAYER = (
        "check the credentials, their region and what they may do there; where the requester pays, pass requester_pays"
        " in storage_options"
    )
    CREDENTIALS = "check the credentials and their region"
    EXPIRED = "check the credentials: they have expired. Renew them; the next call uses the new ones"
    CLOCK = "set the clock of this host, which differs too much from the store's"
    QUOTA = "a quota or the storage itself is used up: free space, for instance with keep_last(...), or ask for more"
    ARCHIVED = "it is archived, and cannot be read before it is restored: restore it at the store, then call again"
    LOCKED = (
        "object lock, a hold or a retention rule protects what is there: it can be neither overwritten nor deleted"
        " until that ends. Write to another path, or to a bucket without such a rule"
    )
    KEY = "the encryption key cannot be used: enable it, and let these credentials encrypt and decrypt with it"
    PAYER = "the requester of this bucket pays: pass requester_pays in storage_options"

    def error(self, said: str) -> AccessError:
        """Return the error for `said`, which tells what was refused."""
        refused = AccessError(f"{said}: {self.value}")
        refused.errno = errno.EDQUOT if self is Refusal.QUOTA else errno.EACCES
        return refused

    @property
    def is_of_credentials(self) -> bool:
        """Tell whether another client may be let in, with the credentials that there are by then."""
        return self in (Refusal.CREDENTIALS, Refusal.EXPIRED)


_WORDS = (  # of texts that come with a code as general as AccessDenied; they are looked at, and never shown
    (re.compile(r"\bkms\b|customer-managed key|encryption key", re.IGNORECASE), Refusal.KEY),
    (re.compile(r"object.?lock|\bworm\b|retention|legal hold|immutab", re.IGNORECASE), Refusal.LOCKED),
    (re.compile(r"requester.?pays", re.IGNORECASE), Refusal.PAYER),
    (re.compile(r"quota|storage cap", re.IGNORECASE), Refusal.QUOTA),
    (re.compile(r"\barchived\b|storage class is not valid", re.IGNORECASE), Refusal.ARCHIVED),
)


def refusal_of(code: str, text: str, codes: Mapping[str, Refusal]) -> Refusal | None:
    """Return why a store refused, by its code, else by its text.

    Return None if neither says more than that the store refused.
    """
    found = codes.get(code)
    if found is None:
        return next((why for pattern, why in _WORDS if pattern.search(text)), None)
    return found


@dataclass(slots=True)
class Watch:
    """What is seen of one operation on the wire.

    `writes`: it changes something. `versioned`: it names a version. `patient`: it moves data and so may take long.
    `sent`: how often something was sent. `headers`: those of the last reply. `client`: what asked; `is_stale` says that
    its credentials were refused or have expired.
    """

    writes: bool = False
    versioned: bool = False
    patient: bool = False
    sent: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    client: object = field(default=None, repr=False)
    is_stale: bool = False


def foreign_answer(said: str) -> OSError:
    """Return the error for a status that is not the store's own.

    Nothing follows from that status, so the outcome is unknown.
    """
    return OSError(
        errno.EIO,
        f"{said}, which is not the store's own answer: a proxy or load balancer may have given it. Check the endpoint",
    )


def of_the_client(error: OSError, url: str, *, sent: bool, variables: Iterable[str] = ()) -> OSError:
    """Return the error for an `OSError` of the client's own surroundings, such as a missing certificate file.

    The error names the file, or those of the environment's `variables` that name a missing file. With `sent`, a request
    may have been carried out before, so its outcome is unknown.
    """
    missing = [f"{name}={os.environ[name]}" for name in variables if _names_nothing(os.environ.get(name))]
    what = str(error.filename) if error.filename else ", ".join(missing) or "a file of the client's configuration"
    if error.filename and (named := [one for one in missing if one.endswith(f"={error.filename}")]):
        what = named[0]
    said = f"{url}: the client needs {what}, which cannot be read ({error.strerror or type(error).__name__})"
    if sent:
        return OSError(errno.EIO, f"{said}, after a request had been sent: its outcome is unknown")
    refused = AccessError(f"{said}: nothing was sent. Put the file there, or correct what names it")
    refused.errno = errno.EACCES
    return refused


def _names_nothing(value: str | None) -> bool:
    return bool(value) and not os.path.exists(str(value))
