"""What is known of a location on Azure without trying it, and where that is written."""

from __future__ import annotations

from atomicpath.abc import Declaration
from atomicpath.guarantees import NONE, Guarantee

__all__ = ["declaration"]

_VENDOR = (  # "Azure Storage account overview", "Azure Government", "Azure China"
    ".core.windows.net",
    ".storage.azure.net",
    ".core.usgovcloudapi.net",
    ".core.chinacloudapi.cn",
)
_CONDITIONS = (
    Guarantee.LIST_AFTER_WRITE
    | Guarantee.EXCLUSIVE_CREATE
    | Guarantee.EXCLUSIVE_MULTIPART
    | Guarantee.COMPARE_AND_SWAP
    | Guarantee.CONDITIONAL_DELETE
)
_DIRECTORIES = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE | Guarantee.DIRECTORIES


def declaration(host: str, *, hierarchical: bool | None, problem: str | None) -> Declaration:
    """Declare by the endpoint's host and by whether the account has a hierarchical namespace.

    `hierarchical` is None if `problem` kept it from being known.

    The conditions are documented for blobs in both kinds of account ("Specifying conditional headers for Blob service
    operations", "Multi-protocol access on Data Lake Storage"), atomic renames of directories only where the namespace
    is hierarchical ("Azure Data Lake Storage hierarchical namespace").
    """
    is_vendors = any(host.endswith(suffix) for suffix in _VENDOR)
    known = _CONDITIONS | (_DIRECTORIES if hierarchical else NONE)
    evidence = {Guarantee.ATOMIC_WRITE: "Put Blob and Put Block List store a blob whole or not at all"}
    if is_vendors:
        evidence |= dict.fromkeys(_CONDITIONS, "Azure documents it for accounts of both kinds, flat and hierarchical")
    if not hierarchical:
        why = "the account has no hierarchical namespace"
        if hierarchical is None:
            why = f"only where the namespace is hierarchical, which is not known: {problem or 'no answer'}"
        evidence |= dict.fromkeys(_DIRECTORIES, why)
    elif is_vendors:
        evidence |= dict.fromkeys(
            _DIRECTORIES, "Azure documents it for accounts with a hierarchical namespace, as this one has"
        )
    return Declaration(
        declared=Guarantee.ATOMIC_WRITE | (known if is_vendors else NONE),
        observable=NONE if is_vendors else known,
        evidence=evidence,
    )
