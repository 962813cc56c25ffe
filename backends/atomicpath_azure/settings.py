"""The options of a client for Azure and the endpoint that they lead to: resolved once, for place and client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import adlfs

from atomicpath.errors import ValidationError
from atomicpath.storage import check_names, configured, names_of, surroundings

from .spellings import in_adlfs_words

__all__ = ["FILES", "Settings", "normal", "resolve"]

FILES = ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables of the environment that name a file without which no request can be made."""

_VARIABLES = ("AZURE_", "IDENTITY_", "MSI_", "HOME", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy")
_EXCLUDES = "exclude_"  # prefix of many arguments of DefaultAzureCredential, which adlfs passes on
_OF_CREDENTIAL = frozenset(
    {
        *("authority", "managed_identity_client_id", "workload_identity_client_id", "workload_identity_tenant_id"),
        *("shared_cache_username", "shared_cache_tenant_id", "process_timeout", "additionally_allowed_tenants"),
    }
)
_KNOWN = (names_of(adlfs.AzureBlobFileSystem) | _OF_CREDENTIAL) - {"batch_size", "args", "storage_options"}
_GIVEN = ("connection_string", "account_key", "sas_token", "credential", "client_secret")


@dataclass(frozen=True, slots=True)
class Settings:
    """What options lead to.

    `options` are for `adlfs.AzureBlobFileSystem`, `asked` what of them users named or configured. `surroundings` tells
    one state of the process's environment from another.
    """

    surroundings: str
    options: Mapping[str, object] = field(repr=False)
    asked: Mapping[str, object] = field(repr=False)

    @property
    def finds_credentials(self) -> bool:
        """Tell whether credentials are looked for, and may be others when they are looked for again."""
        return not any(self.asked.get(name) for name in _GIVEN)

    def endpoint(self, account: str) -> str:
        """Return the blob endpoint in adlfs's order; "" if nothing names one.

        `account` is the account that a URL names, or "".
        """
        connection = str(self.options.get("connection_string") or "")
        items = (item.partition("=") for item in connection.split(";"))
        parts = {name.strip().lower(): value for name, _, value in items}
        if parts.get("blobendpoint"):
            return normal(parts["blobendpoint"])
        if parts.get("usedevelopmentstorage") == "true":
            return "127.0.0.1:10000/devstoreaccount1"
        suffix = parts.get("endpointsuffix") or "core.windows.net"
        if not connection and self.options.get("account_host"):
            return str(self.options["account_host"]).lower()
        named = parts.get("accountname") if connection else None
        name = named or account or self.options.get("account_name") or ""
        return f"{name}.blob.{suffix}".lower() if name else ""


def resolve(storage_options: Mapping[str, object]) -> Settings:
    """Read the options and the environment as they are now.

    Raises:
        ValidationError: An option is unknown or cannot be read.
    """
    asked = configured(adlfs.AzureBlobFileSystem.protocol, storage_options, in_adlfs_words)
    check_names((name for name in asked if not name.startswith(_EXCLUDES)), _KNOWN, "adlfs")
    found = {name: asked.get(name) or os.environ.get(f"AZURE_STORAGE_{name.upper()}") for name in _NAMES}
    options = {
        **asked,
        **{name: value for name, value in found.items() if value},
        "asynchronous": False,
        "loop": None,
        "skip_instance_cache": True,
        "use_listings_cache": False,
    }
    return Settings(surroundings=surroundings((*_VARIABLES, *_PROXIES)), options=options, asked=asked)


_NAMES = ("account_name", "connection_string")  # what makes an endpoint; credentials are found when a client is made


def normal(url: str) -> str:
    """Return a blob endpoint without its scheme, user, password and signature, for comparison with another."""
    try:
        parts = urlsplit(url)
    except ValueError:  # not shown: it may have a password in it
        raise ValidationError("the connection string's BlobEndpoint is no URL: correct it") from None
    return f"{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"
