"""Harmed inputs from a seeded generator: noise, or good ones with a few bytes changed."""

from __future__ import annotations

import random

# What parsers trip over.
TOKENS = [
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"NaN", b"1e999", b"-1", b"0",
    b"9" * 30, b"\0", b"\xff", b"\xed\xa0\x80", "\u2028".encode(), b"\n", b"\r\n", b"../", b"/etc",
    b"__class__", b"!!python/object", b"\\ud800", b"[" * 1500, b"1" * 5000, b"\xef\xbb\xbf",
]  # fmt: skip


def mutate(draw: random.Random, seeds: list[bytes]) -> bytes:
    """Noise now and then, else a good input harmed in one to four places."""
    if draw.random() < 0.1:
        return draw.randbytes(draw.randrange(200))
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        kind = draw.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at : at + draw.randint(1, 20)]
        elif kind == 2:
            data[at:at] = draw.choice(TOKENS)
        elif kind == 3:
            data[at : at + draw.randint(0, 8)] = draw.choice(TOKENS)
        elif kind == 4:
            del data[at:]
        else:
            data[at:at] = data[max(0, at - 30) : at]
    return bytes(data)
