"""The `azure` backend: URLs, accounts and options of Azure Blob Storage and Azure Data Lake Storage Gen2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from atomicpath.abc import Backend, Environment
from atomicpath.errors import BackendError

from .names import DIRECTORY_LENGTH, split
from .spellings import in_adlfs_words

if TYPE_CHECKING:
    from .settings import Settings
    from .storage import AzureStorage

__all__ = ["AzureBackend"]


class AzureBackend(Backend):
    """`abfs://container/key`, or with the account `abfs://container@account.dfs.core.windows.net/key`.

    The path is what follows "://"; an account in it is the one asked, whatever the environment says.
    `storage_options` are those of `adlfs.AzureBlobFileSystem`. What other libraries call them is understood where the
    meaning is certain, and otherwise `ValidationError`.
    """

    protocols = ("abfs", "abfss", "az")

    def parse_url(self, url: str) -> str:
        return split(url.partition("://")[2].rstrip("/"), longest=DIRECTORY_LENGTH).path

    def normalize(self, url: str, storage_options: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
        return self.parse_url(url), in_adlfs_words(storage_options)

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> AzureStorage:
        settings = _resolved(storage_options)
        from .storage import open_azure

        return open_azure(settings, environment)

    def identity(self, path: str, storage_options: Mapping[str, object]) -> str:
        address = split(path)
        endpoint = _resolved(storage_options).endpoint(address.account)
        return f"abfs://{address.container}/{address.key}" + (f" at {endpoint}" if endpoint else "")


def _resolved(storage_options: Mapping[str, object]) -> Settings:
    try:
        import adlfs  # noqa: F401 - these two are the only reasons why the next line could fail
        import azure.storage.filedatalake  # noqa: F401
    except ImportError as error:
        raise BackendError(
            "abfs:// needs adlfs and azure-storage-file-datalake: pip install 'atomicpath[azure]'"
        ) from error
    from .settings import resolve

    return resolve(storage_options)
