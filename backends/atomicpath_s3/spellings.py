"""What other libraries call the options of s3fs, as far as the meaning is certain."""

from __future__ import annotations

from collections.abc import Mapping

from atomicpath.storage import LEFT_OUT, Spelling, as_flag, as_text, as_url, translated

__all__ = ["in_s3fs_words"]

_PREFIXES = ("fs_s3a_", "s3_", "aws_")  # Hadoop's and PyIceberg's, object_store's and the AWS tools'
_STYLE = "config_kwargs.s3.addressing_style"


def in_s3fs_words(options: Mapping[str, object]) -> dict[str, object]:
    """Return options, with those of boto3, object_store, pyarrow, Hadoop and PyIceberg turned into s3fs's spellings."""
    return translated(options, _SPELLINGS, prefixes=_PREFIXES)


def _either(true: object, false: object) -> Spelling:
    return Spelling(_STYLE, lambda value: true if as_flag(value) else false)


def _if_true(value: object) -> object:
    return True if as_flag(value) else LEFT_OUT


def _no_answer_to_false(value: object) -> object:
    if not as_flag(value):
        raise ValueError("cannot be honoured: write https:// in endpoint_url")
    return LEFT_OUT  # the endpoint's URL says it


def _payer(value: object) -> object:
    return True if value == "requester" else _if_true(value)


def _verify(value: object) -> object:
    if not isinstance(value, str):
        return as_flag(value)
    return as_flag(value) if value.lower() in ("true", "false") else value


_SPELLINGS = {
    "access_key_id": Spelling("key"),
    "access_key": Spelling("key"),
    "key": Spelling("key"),
    "secret_access_key": Spelling("secret"),
    "secret_key": Spelling("secret"),
    "secret": Spelling("secret"),
    "session_token": Spelling("token"),
    "token": Spelling("token"),
    "profile_name": Spelling("profile"),
    "profile": Spelling("profile"),
    "region": Spelling("client_kwargs.region_name"),
    "region_name": Spelling("client_kwargs.region_name"),
    "default_region": Spelling("client_kwargs.region_name"),
    "verify": Spelling("client_kwargs.verify", _verify),
    "api_version": Spelling("client_kwargs.api_version"),
    "endpoint": Spelling("endpoint_url", as_url),
    "endpoint_url": Spelling("endpoint_url", as_text),
    "endpoint_url_s3": Spelling("endpoint_url", as_url),
    "endpoint_override": Spelling("endpoint_url", as_url),
    "anonymous": Spelling("anon", _if_true),
    "skip_signature": Spelling("anon", _if_true),
    "no_sign_request": Spelling("anon", _if_true),
    "request_payer": Spelling("requester_pays", _payer),
    "allow_http": Spelling("use_ssl", _no_answer_to_false),
    "addressing_style": Spelling(_STYLE),
    "force_path_style": _either("path", LEFT_OUT),
    "use_path_style": _either("path", LEFT_OUT),
    "path_style_access": _either("path", LEFT_OUT),
    "path_style": _either("path", LEFT_OUT),
    "force_virtual_addressing": _either("virtual", LEFT_OUT),
    "virtual_hosted_style_request": _either("virtual", "path"),
    "signature_version": Spelling("config_kwargs.signature_version"),
    "max_pool_connections": Spelling("config_kwargs.max_pool_connections", lambda value: value),
    "user_agent_extra": Spelling("config_kwargs.user_agent_extra"),
}
