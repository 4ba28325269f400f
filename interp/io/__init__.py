"""Files: written atomically, locked by one writer, named safely, and verified by their digest."""

from __future__ import annotations

from interp.io.digest import canonical_json, sha256_of
from interp.io.files import (
    DamagedFileError,
    FolderBusyError,
    FolderError,
    FolderFullError,
    replace,
    sweep_temps,
    write_file,
    write_json,
    write_json_lines,
)
from interp.io.items import ItemStore
from interp.io.lock import writer_lock

__all__ = [
    "DamagedFileError", "FolderBusyError", "FolderError", "FolderFullError", "ItemStore", "canonical_json", "replace",
    "sha256_of", "sweep_temps", "write_file", "write_json", "write_json_lines", "writer_lock",
]  # fmt: skip
