"""Errors of a cache on disk: one class per cause, so that a caller can act on it."""

from __future__ import annotations

from collections.abc import Sequence

from interp.io.files import DamagedFileError, FolderBusyError, FolderError, FolderFullError

CacheError = FolderError
CacheBusyError = FolderBusyError
CacheFullError = FolderFullError


class NotACacheError(CacheError):
    """The folder has no cache, or one of a newer version of the format."""


class IdentityMismatchError(CacheError):
    """The folder holds a cache of another identity; `fields` are the dotted names that differ."""

    def __init__(self, message: str, *, fields: Sequence[str]) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class NonFiniteActivationError(CacheError):
    """An activation is NaN or infinite; nothing of its shard was committed."""

    def __init__(self, message: str, *, example_id: str, site: str, position: int) -> None:
        super().__init__(message)
        self.example_id = example_id
        self.site = site
        self.position = position


class UnsealedCacheError(CacheError):
    """Some shards were never committed; `missing` are their numbers."""

    def __init__(self, message: str, *, missing: Sequence[int]) -> None:
        super().__init__(message)
        self.missing = tuple(missing)


class MissingShardError(CacheError):
    """The data file of a committed shard is missing, or (in a partial cache) the shard is not committed yet."""


class TruncatedShardError(CacheError):
    """A data file is shorter or longer than its commit record says."""


class ChecksumError(DamagedFileError):
    """Bytes on disk are not the bytes that were committed."""


class NonDeterministicShard(UserWarning):
    """Two writers made different bytes for one shard; those of the first are kept."""
