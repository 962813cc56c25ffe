"""What other libraries call the options of gcsfs, as far as the meaning is certain."""

from __future__ import annotations

import json
from collections.abc import Mapping

from atomicpath.storage import LEFT_OUT, Spelling, as_flag, as_text, as_url, translated

__all__ = ["in_gcsfs_words"]

_PREFIXES = ("gcs_", "google_")  # PyIceberg's, object_store's


def in_gcsfs_words(options: Mapping[str, object]) -> dict[str, object]:
    """Return options, with those of Google's client, object_store, pyarrow and PyIceberg turned into gcsfs's."""
    return translated(options, _SPELLINGS, prefixes=_PREFIXES)


def _anonymous(value: object) -> object:
    return "anon" if as_flag(value) else LEFT_OUT


def _key(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    try:
        found = json.loads(str(value))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("must be the JSON of a service account's key")  # noqa: TRY004 - as of every value
    return found


def _as_it_is(value: object) -> object:
    return value


_SPELLINGS = {
    "project": Spelling("project"),
    "project_id": Spelling("project"),
    "token": Spelling("token", _as_it_is),
    "credentials": Spelling("token", _as_it_is),  # of google.auth, or a file's name
    "service_account": Spelling("token"),
    "service_account_path": Spelling("token"),
    "service_account_file": Spelling("token"),
    "application_credentials": Spelling("token"),
    "service_account_key": Spelling("token", _key),
    "service_account_json": Spelling("token", _key),
    "service_account_info": Spelling("token", _key),
    "access_token": Spelling("token"),
    "oauth2_token": Spelling("token"),
    "anonymous": Spelling("token", _anonymous),
    "anon": Spelling("token", _anonymous),
    "skip_signature": Spelling("token", _anonymous),
    "endpoint": Spelling("endpoint_url", as_url),
    "endpoint_url": Spelling("endpoint_url", as_text),
    "endpoint_override": Spelling("endpoint_url", as_url),
    "api_endpoint": Spelling("endpoint_url", as_url),
    "service_host": Spelling("endpoint_url", as_url),
    "user_project": Spelling("requester_pays"),
}
