"""The options of a client for Cloud Storage and the endpoint that they lead to: resolved once, for place and client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from gcsfs.core import GCSFileSystem

from atomicpath.errors import ValidationError
from atomicpath.storage import check_names, configured, names_of, surroundings

from .spellings import in_gcsfs_words

__all__ = ["FILES", "VENDOR", "Settings", "normal", "resolve"]

Options: TypeAlias = dict[str, Any]

FILES = ("GOOGLE_APPLICATION_CREDENTIALS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables of the environment that name a file without which no request can be made."""

VENDOR = "googleapis.com"

_EMULATOR = "STORAGE_EMULATOR_HOST"  # the one that gcsfs and Google's own clients look at
_UNIVERSE = "GOOGLE_CLOUD_UNIVERSE_DOMAIN"
_VARIABLES = ("GOOGLE_", "GCSFS_", "GCLOUD_", "CLOUDSDK_", "GCE_", "NO_GCE_CHECK", "FETCH_RAW_TOKEN_EXPIRY", "HOME")
_OF_HTTP = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
_DEFAULT = f"application_default_credentials{os.extsep}json"
_KNOWN = names_of(GCSFileSystem) - {"fs", "args", "storage_options"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What options lead to. `endpoint` is "" for the vendor's own.

    `options` are for `gcsfs.GCSFileSystem`, `asked` what of them users named or configured. `surroundings` tells
    one state of the process's environment from another.
    """

    endpoint: str
    surroundings: str
    options: Mapping[str, object] = field(repr=False)
    asked: Mapping[str, object] = field(repr=False)

    @property
    def place(self) -> str:
        """Return the text that tells buckets of one name apart."""
        return f" at {self.endpoint}" if self.endpoint else ""


def resolve(storage_options: Mapping[str, object]) -> Settings:
    """Read the options and the environment as they are now.

    Raises:
        ValidationError: An option is unknown or cannot be read, or names a file that is not there.
    """
    asked = configured(GCSFileSystem.protocol, storage_options, in_gcsfs_words)
    check_names(asked, _KNOWN, "gcsfs")
    chosen = asked.get("endpoint_url") or os.environ.get(_EMULATOR)
    if chosen in (None, "", "default"):
        universe = os.environ.get(_UNIVERSE) or VENDOR
        chosen = None if universe == VENDOR else f"https://storage.{universe}"
    token = asked.get("token")
    _check_file(token)
    files = (
        os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"),
        os.path.join(os.environ.get("CLOUDSDK_CONFIG", "~/.config/gcloud"), _DEFAULT),
        token if isinstance(token, str) else None,
    )
    options: Options = {
        **asked,
        # None: gcsfs may know of another address of the vendor's own, for client certificates
        "endpoint_url": chosen if chosen is None or "://" in str(chosen) else f"http://{chosen}",
        "asynchronous": False,
        "loop": None,
        "skip_instance_cache": True,
        "use_listings_cache": False,
    }
    endpoint = normal(str(options["endpoint_url"])) if chosen else ""
    return Settings(
        endpoint=endpoint,
        surroundings=surroundings((*_VARIABLES, *_OF_HTTP, _EMULATOR), files),
        options=options,
        asked=asked,
    )


def normal(endpoint: str) -> str:
    """Return an endpoint without user and password, for comparison with another."""
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:  # not shown: it may have a password in it
        raise ValidationError("endpoint_url must be a URL such as https://host:9000")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"


def _check_file(token: object) -> None:
    """Raise ValidationError if credentials are to come from a file that is missing: gcsfs would go on without any."""
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if token in (None, "google_default") and named and not os.path.exists(named):
        raise ValidationError(f"GOOGLE_APPLICATION_CREDENTIALS names {named}, which does not exist: correct it")
    is_path = isinstance(token, str) and (token.rpartition(".")[2] == "json" or token.startswith(("/", "~", "./")))
    if is_path and not os.path.exists(str(token)):
        raise ValidationError(f"token in storage_options names the file {token}, which does not exist: correct it")
