"""What other libraries call the options of adlfs, as far as the meaning is certain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from atomicpath.storage import LEFT_OUT, Spelling, as_flag, translated

__all__ = ["in_adlfs_words"]

_PREFIXES = ("azure_storage_", "azure_", "adls_", "storage_")  # object_store's, the SDK's, PyIceberg's
_HOST = re.compile(r"([a-z0-9]{3,24})\.(?:blob|dfs)\.([a-z0-9.]+)", re.IGNORECASE)
_URL = "the host of account_url"


def in_adlfs_words(options: Mapping[str, object]) -> dict[str, object]:
    """Return options, with those of Azure's SDK, object_store and PyIceberg turned into adlfs's spellings."""
    found = translated(options, _SPELLINGS, prefixes=_PREFIXES)
    host = found.pop(_URL, None)
    if host is None:
        return found
    account = str(host).partition(".")[0]
    return translated({**found, "account": account, "host": host}, _SPELLINGS)


def _host(value: object) -> object:
    parts = urlsplit(value) if isinstance(value, str) else None
    named = _HOST.fullmatch(parts.netloc) if parts else None
    if parts is None or named is None or parts.scheme != "https" or parts.path.strip("/") or parts.query:
        raise ValueError(
            "must be of the form https://ACCOUNT.blob.core.windows.net, without a signature: for another endpoint pass"
            " connection_string='BlobEndpoint=...', for a signature sas_token="
        )
    return f"{named[1]}.blob.{named[2]}".lower()


def _emulator(value: object) -> object:
    return "UseDevelopmentStorage=true" if as_flag(value) else LEFT_OUT


_SPELLINGS = {
    "account_name": Spelling("account_name"),
    "account": Spelling("account_name"),
    "account_key": Spelling("account_key"),
    "access_key": Spelling("account_key"),
    "master_key": Spelling("account_key"),
    "connection_string": Spelling("connection_string"),
    "conn_str": Spelling("connection_string"),
    "sas_token": Spelling("sas_token"),
    "sas_key": Spelling("sas_token"),
    "client_id": Spelling("client_id"),
    "client_secret": Spelling("client_secret"),
    "tenant_id": Spelling("tenant_id"),
    "authority_id": Spelling("tenant_id"),
    "anonymous": Spelling("anon", as_flag),
    "skip_signature": Spelling("anon", as_flag),
    "use_emulator": Spelling("connection_string", _emulator),
    "account_url": Spelling(_URL, _host),
    "endpoint": Spelling(_URL, _host),
    "host": Spelling("account_host"),
    "account_host": Spelling("account_host"),
}
