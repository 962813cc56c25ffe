"""The `azure` backend: URLs, accounts and options of Azure Blob Storage and Azure Data Lake Storage Gen2."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from atomicpath.abc import Backend, Environment
from atomicpath.errors import BackendError

from .names import DIRECTORY_LENGTH, split

if TYPE_CHECKING:
    from .storage import AzureStorage

__all__ = ["AzureBackend"]


class AzureBackend(Backend):
    """`abfs://container/key`, or with the account `abfs://container@account.dfs.core.windows.net/key`.

    The path is what follows "://"; an account in it is the one asked, whatever the environment says.
    `storage_options` are those of `adlfs.AzureBlobFileSystem`.
    """

    protocols = ("abfs", "abfss", "az")

    def path(self, url: str) -> str:
        return split(url.partition("://")[2].rstrip("/"), longest=DIRECTORY_LENGTH).path

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> AzureStorage:
        try:
            import adlfs  # noqa: F401 - these two are the only reasons why the next line could fail
            import azure.storage.filedatalake  # noqa: F401
        except ImportError as error:
            raise BackendError(
                "abfs:// needs adlfs and azure-storage-file-datalake: pip install 'atomicpath[azure]'"
            ) from error
        from .storage import open_azure

        return open_azure(storage_options, environment)

    def place(self, path: str, storage_options: Mapping[str, object]) -> str:
        address = split(path)
        endpoint = _endpoint(address.account, storage_options)
        return f"abfs://{address.container}/{address.key}" + (f" at {endpoint}" if endpoint else "")


def _endpoint(account: str, options: Mapping[str, object]) -> str:
    """The blob endpoint these options ask for, in adlfs's order, without credentials; "" if they name none."""
    connection = str(options.get("connection_string") or os.environ.get("AZURE_STORAGE_CONNECTION_STRING") or "")
    parts = {name.strip().lower(): value for name, _, value in (item.partition("=") for item in connection.split(";"))}
    if parts.get("blobendpoint"):
        found = urlsplit(parts["blobendpoint"])
        return f"{found.netloc.rpartition('@')[2].lower()}{found.path.rstrip('/')}"
    if parts.get("usedevelopmentstorage") == "true":
        return "127.0.0.1:10000/devstoreaccount1"
    suffix = parts.get("endpointsuffix") or "core.windows.net"
    if not connection and options.get("account_host"):
        return str(options["account_host"]).lower()
    named = parts.get("accountname") if connection else None
    name = named or account or options.get("account_name") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") or ""
    return f"{name}.blob.{suffix}".lower() if name else ""
