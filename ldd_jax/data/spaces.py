"""What a tokenizers-library file does to spaces and names in a text, and how it is undone."""

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


def adds_prefix(text: str) -> bool:
    """Whether a byte-level pre-tokenizer puts a space before a text."""

    def adds(node: Any) -> bool:
        if not isinstance(node, dict):
            return False
        inner = node.get("pretokenizers", ()) if node.get("type") == "Sequence" else ()
        own = node.get("type") == "ByteLevel" and node.get("add_prefix_space", True)
        return bool(own) or any(map(adds, inner))

    return adds(json.loads(text).get("pre_tokenizer"))


def cut(text: str, names: Iterable[str]) -> list[str]:
    """The text in pieces, each name in it cut after its first character."""
    ends = [m.start() + 1 for m in re.finditer("|".join(map(re.escape, names)), text)]
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)])]
