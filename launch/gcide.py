"""The Collaborative International Dictionary of English, 29 MB of real text, as JSON lines.

    apt-get install dict-gcide
    python launch/gcide.py [--source=/usr/share/dictd/gcide.dict.dz] --output=gcide.jsonl

One document: 20 entries in a row, lines joined, pronunciations and sources of entries left out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re

from ldd_jax.core import writing

TOGETHER = 20
# The pronunciation between backslashes; tags such as [1913 Webster].
LEFT_OUT = re.compile(r" \\[^\\]*\\,?|\[(?:1913 Webster|PJC|WordNet 1\.5|Webster 1913 Suppl\.)\]")


def entries(text: str) -> list[str]:
    """Entries after the preface, each in one line."""
    found = []
    for block in re.split(r"\n(?=\S)", text):
        entry = " ".join(LEFT_OUT.sub("", block).split())
        if "\\" in block.splitlines()[0] and len(entry) > 40:
            found.append(entry)
    return found


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="/usr/share/dictd/gcide.dict.dz")
    parser.add_argument("--output", required=True)
    chosen = parser.parse_args()
    with gzip.open(chosen.source, "rt", encoding="utf-8", errors="replace") as file:
        found = entries(file.read())
    documents = ["\n".join(found[i : i + TOGETHER]) for i in range(0, len(found), TOGETHER)]
    writing.write(chosen.output, "".join(json.dumps({"text": d}) + "\n" for d in documents))
    size = sum(map(len, documents))
    print(f"{len(found):,} entries in {len(documents):,} documents, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
