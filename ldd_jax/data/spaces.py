"""What a tokenizers-library file does to spaces, names and unknown signs, and how it is undone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any


def as_it_stands(text: str, *, prefix: bool) -> str:
    """The JSON of a tokenizer that strips no space, with or without the space put before a text.

    "" if that is what the tokenizer is already.
    """
    document = json.loads(text)

    def changed(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        kind = node.get("type")
        if kind == "Strip" or (kind == "Prepend" and not prefix):
            return None
        if kind == "Sequence":
            inner = "normalizers" if "normalizers" in node else "pretokenizers"
            return node | {inner: [n for n in map(changed, node[inner]) if n is not None]}
        if kind == "Metaspace" and not prefix:
            node = {k: v for k, v in node.items() if k != "add_prefix_space"}
            return node | {"prepend_scheme": "never"}
        if kind == "ByteLevel" and not prefix:
            return node | {"add_prefix_space": False}
        return node

    new = document | {n: changed(document.get(n)) for n in ("normalizer", "pre_tokenizer")}
    return "" if new == document else json.dumps(new)


def _parts(node: Any) -> list[dict[str, Any]]:
    """A node of the pipeline, or those of a sequence of them."""
    if not isinstance(node, dict):
        return []
    if node.get("type") != "Sequence":
        return [node]
    inner = node.get("normalizers") or node.get("pretokenizers") or []
    return [part for n in inner for part in _parts(n)]


def adds_prefix(text: str) -> bool:
    """Whether a byte-level pre-tokenizer puts a space before a text."""
    parts = _parts(json.loads(text).get("pre_tokenizer"))
    return any(p["type"] == "ByteLevel" and p.get("add_prefix_space", True) for p in parts)


def drops_unknown(text: str) -> bool:
    """Whether the model leaves out what it does not know; it is one without an unknown token."""
    document = json.loads(text)
    parts = [p for n in ("normalizer", "pre_tokenizer") for p in _parts(document.get(n))]
    bytewise = any(p["type"] in ("ByteLevel", "ByteFallback") for p in parts)
    return not bytewise and not document["model"].get("byte_fallback")


def cut(text: str, names: Iterable[str]) -> list[str]:
    """The text in pieces, each name in it cut after its first character."""
    ends = [m.start() + 1 for m in re.finditer("|".join(map(re.escape, names)), text)]
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)])]
