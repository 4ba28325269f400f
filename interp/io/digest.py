"""Digests of JSON values, and file names made of any text."""

from __future__ import annotations

import hashlib
import json
import re

_PLAIN = re.compile(r"[a-z0-9_][a-z0-9._-]{0,79}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.")  # names that Windows keeps for itself or cuts
_SLUG = 40


def canonical_json(value: object) -> str:
    """One text per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(value: object) -> str:
    """SHA-256 of a JSON value; the order of the keys of a mapping does not matter."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def is_own_digest(digest: object, content: object) -> bool:
    """Whether this is the digest of a JSON value that was read; False for values that are never written (NaN)."""
    try:
        return digest == sha256_of(content)
    except (ValueError, RecursionError):
        return False


def safe_name(key: str) -> str:
    """A file name for any text: different texts get different names, on file systems that ignore case too.

    Lower-case words of letters, digits, `.`, `_`, `-` are kept; of anything else a readable part and a digest.
    """
    if _PLAIN.fullmatch(key) and not _RESERVED.fullmatch(key):
        return key
    slug = re.sub(r"[^a-z0-9_-]+", "_", key.lower())[:_SLUG]
    return f"{slug}~{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
