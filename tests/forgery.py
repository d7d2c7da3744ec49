"""Files of ours, changed and signed again: what only somebody who means it can make."""

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


def mutated(data: bytes, generator) -> bytes:
    """One change of one of the kinds that happen to files."""
    a, b = sorted(generator.integers(0, len(data) + 1, 2).tolist())
    b = min(b, a + 40)
    noise = generator.bytes(int(generator.integers(1, 9)))
    match int(generator.integers(7)):
        case 0:  # bits
            changed = bytearray(data)
            for i in generator.integers(0, len(data), int(generator.integers(1, 5))):
                changed[i] ^= 1 << int(generator.integers(8))
            return bytes(changed)
        case 1:
            return data[:a] + noise + data[a + len(noise) :]
        case 2:
            return data[:a] + noise + data[a:]
        case 3:
            return data[:a] + data[b:]
        case 4:
            return data[:b] + data[a:b] + data[b:]
        case 5:  # of digits and signs, that change what JSON says
            return data[:a] + b'0123456789[]{}",:-.eE'[(i := int(generator.integers(21))) : i + 1] + data[a + 1 :]
        case _:
            return data[:a] + bytes(b - a) + data[b:]
