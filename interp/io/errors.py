"""What can go wrong with a folder of results: one class per cause, so that a caller can act on it."""

from __future__ import annotations


class FolderError(Exception):
    """A folder of results cannot be written or read as asked."""


class FolderBusyError(FolderError):
    """Another live process is writing this folder."""


class FolderFullError(FolderError):
    """The disk, or the budget that was given, is too small; `needed` and `free` are in bytes."""

    def __init__(self, message: str, *, needed: int, free: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.free = free


class DamagedFileError(FolderError):
    """Bytes on disk are not the bytes that were written, or lie under another name than they were written to."""
