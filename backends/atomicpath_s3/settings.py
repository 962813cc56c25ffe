"""The options of an S3 client and the endpoint that they lead to: resolved once, for place, declaration and client.

botocore's own resolver is asked, so that profiles, their services sections, the environment and fsspec's configuration
mean what they mean to the client; the client is then given its endpoint, and looks for none itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiobotocore.session
import botocore.session
import s3fs
from botocore.config import Config
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import BotoCoreError, ConfigNotFound, ConfigParseError, InvalidConfigError, ProfileNotFound
from botocore.utils import ensure_boolean

from atomicpath.errors import ValidationError
from atomicpath.storage import CONNECTIONS, check_names, configured, names_of, surroundings

from .sending import PlainSession
from .spellings import in_s3fs_words

__all__ = ["FILES", "Settings", "resolve"]

Options: TypeAlias = dict[str, Any]

FILES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables of the environment that name a file without which no request can be made."""

# Sooner than half of a lease of 60 s: a cleaner must not delete after the lease it waited for was renewed.
_CLIENT = {"connect_timeout": 5, "read_timeout": 20, "max_pool_connections": CONNECTIONS}

_USER_AGENT = f"atomicpath aiobotocore/{aiobotocore.__version__}"  # botocore would make its own anew for each request

_VARIABLES = ("AWS_", "BOTO_CONFIG", "HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_COMMERCIAL = re.compile(r"(us|eu|ap|sa|ca|me|af|il|mx)-\w+-\d+")  # botocore's partitions.json, "aws"
_KNOWN = names_of(s3fs.S3FileSystem, aiobotocore.session.AioSession) - {"batch_size"}  # s3fs itself does not take it
_OF_CLIENT = names_of(botocore.session.Session.create_client) - names_of() - {"service_name", "config"}
_OF_CONFIG = frozenset(Config.OPTION_DEFAULTS) | {"connector_args", "http_session_cls"}  # aiobotocore's own
_SAME = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "aws_session_token": "token"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What options lead to. `endpoint` is "" for the vendor's own; `region` is shown where a bucket's name needs it.

    `options` are for `s3fs.S3FileSystem`, `asked` what of them users named or configured. `surroundings` tells
    one state of the process's environment from another.
    """

    endpoint: str
    region: str
    surroundings: str
    options: Mapping[str, object] = field(repr=False)
    asked: Mapping[str, object] = field(repr=False)

    @property
    def place(self) -> str:
        """Return the text that tells buckets of one name apart.

        The vendor's buckets have their names to themselves within a partition.
        """
        if self.endpoint:
            return f" at {self.endpoint}"
        return f" in {self.region}" if self.region and not _COMMERCIAL.fullmatch(self.region) else ""


def resolve(storage_options: Mapping[str, object]) -> Settings:
    """Read the options, the environment and the configuration files as they are now.

    Raises:
        ValidationError: An option is unknown or cannot be read, a profile is missing, or a file cannot be parsed.
    """
    asked = configured(s3fs.S3FileSystem.protocol, storage_options, in_s3fs_words)
    files = (
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    )
    return _resolved(_Asked(asked), surroundings((*_VARIABLES, *_PROXIES), files))


class _Asked:
    """Options as a key of the cache; they hold secrets and objects."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._key = repr(sorted(options.items()))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and other._key == self._key


@lru_cache(maxsize=32)
def _resolved(key: _Asked, state: str) -> Settings:
    asked = key.options
    check_names(asked, _KNOWN, "s3fs")
    options: Options = dict(asked)
    client = _nested(options, "client_kwargs", _OF_CLIENT)
    config = {
        **_CLIENT,
        "user_agent": _USER_AGENT,
        "http_session_cls": PlainSession,
        **_nested(options, "config_kwargs", _OF_CONFIG),
    }
    for name, ours in (*_SAME.items(), ("endpoint_url", "endpoint_url")):
        given = client.pop(name, None)  # s3fs passes both on, which botocore does not take
        if given and options.get(ours) not in (None, given):
            raise ValidationError(
                f"client_kwargs[{name!r}] and the option {ours!r} in storage_options differ: leave one out"
            )
        if given:
            options[ours] = given
    try:
        configured_endpoint, region = _configured(options, client, config)
    except ProfileNotFound as error:
        raise ValidationError(
            f"{error}: correct AWS_PROFILE or profile= in storage_options, or the AWS files"
        ) from None
    except (ConfigNotFound, ConfigParseError, InvalidConfigError, UnicodeDecodeError) as error:
        raise ValidationError(f"the AWS configuration cannot be used: {_reason(error)}") from None
    except BotoCoreError as error:
        raise ValidationError(f"the AWS configuration cannot be used ({type(error).__name__})") from None
    chosen = options.get("endpoint_url") or configured_endpoint
    endpoint = _shown(chosen) if chosen else ""
    config["ignore_configured_endpoint_urls"] = True  # any configured endpoint was already found above
    options |= {
        "endpoint_url": chosen or None,
        "client_kwargs": client,
        "config_kwargs": config,
        "asynchronous": False,
        "loop": None,
        "skip_instance_cache": True,
        "use_listings_cache": False,
    }
    return Settings(endpoint=endpoint, region=region, surroundings=state, options=options, asked=asked)


def _configured(options: Options, client: Options, config: Options) -> tuple[str, str]:
    """Return the endpoint that the environment or a file names, and the region, both as botocore finds them."""
    session: Any = options.get("session")
    if session is None:
        known = {name: options[name] for name in ("profile", "session_vars") if options.get(name) is not None}
        session = botocore.session.Session(**known)
    scoped = session.get_scoped_config()
    ignored = config.get("ignore_configured_endpoint_urls")
    if ignored is None:
        ignored = session.get_config_variable("ignore_configured_endpoint_urls")
    found = None
    if not options.get("endpoint_url") and not ensure_boolean(ignored):
        provider = ConfiguredEndpointProvider(
            full_config=session.full_config, scoped_config=scoped, client_name="s3", environ=os.environ
        )
        found = provider.provide()
    region = client.get("region_name") or config.get("region_name") or session.get_config_variable("region")
    return str(found or ""), str(region or "")


def _nested(options: Options, name: str, known: frozenset[str]) -> Options:
    found = options.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ValidationError(f"the option {name!r} of storage_options must be a dictionary")
    check_names(found, known, f"{name} of s3fs")
    return dict(found)


def _shown(endpoint: object) -> str:
    """Return the endpoint without user and password."""
    try:
        parts = urlsplit(str(endpoint))
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:  # not shown: it may have a password in it
        raise ValidationError("endpoint_url must be a URL such as https://host:9000")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, BotoCoreError) else "a file of it is not UTF-8"
