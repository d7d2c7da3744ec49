"""Files of `net.save`, changed and signed again: what only somebody who means it can make."""

from __future__ import annotations

import hashlib
import json

START = b'{"__metadata__":{"format":"backprop 1","sha256":"'
DIGEST = slice(8 + len(START), 8 + len(START) + 64)


def sign(data: bytes) -> bytes:
    """The file with the digest it should have."""
    blank = data[: DIGEST.start] + b"0" * 64 + data[DIGEST.stop :]
    return data[: DIGEST.start] + hashlib.sha256(blank).hexdigest().encode() + data[DIGEST.stop :]


def parts(data: bytes) -> tuple[dict, dict, bytes]:
    """Plain data, header and tensors of a file."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    return json.loads(header["__metadata__"]["about"]), header, data[end:]


def pack(text: bytes, tensors: bytes = b"") -> bytes:
    """A signed file with this header."""
    return sign(len(text).to_bytes(8, "little") + text + tensors)


def forge(data: bytes, change) -> bytes:
    """The file after change(about, header), signed again."""
    about, header, tensors = parts(data)
    change(about, header)
    header["__metadata__"]["about"] = json.dumps(about)
    return pack(json.dumps(header, separators=(",", ":")).encode(), tensors)


def headed(text: bytes, about: str = "{}") -> bytes:
    """A signed file with a header that goes on as `text` after its metadata."""
    start = START + b"0" * 64 + b'","kind":"network","about":' + json.dumps(about).encode() + b"}"
    return pack(start + text)
