"""Files: written atomically, locked by one writer, named safely, and believed only with their digest."""

from __future__ import annotations

from interp.io.digest import canonical_json, sha256_of
from interp.io.errors import DamagedFileError, FolderBusyError, FolderError, FolderFullError
from interp.io.files import replace, sweep_temps, write_file
from interp.io.items import ItemStore
from interp.io.lock import writer_lock

__all__ = [
    "DamagedFileError", "FolderBusyError", "FolderError", "FolderFullError", "ItemStore", "canonical_json", "replace",
    "sha256_of", "sweep_temps", "write_file", "writer_lock",
]  # fmt: skip
