"""A checkpoint in the references' format with random weights.

    python -m tests.interop FILE.safetensors [--width=768] [--depth=12] [--vocabulary=50258]

To try `import` at the published sizes without anybody's weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ldd_jax.interop import reference
from tests.parity.numpy_reference import random_weights


def write(
    file: Path, *, width: int, depth: int, vocabulary: int, heads: int = 12, loop: bool = True
) -> dict[str, np.ndarray]:
    """Write the file; returns its tensors."""
    sizes = {"hidden": width, "blocks": depth, "cond": 128, "V": vocabulary}
    tensors = random_weights(np.random.default_rng(0), sizes, loop, scale=0.02)
    tensors[reference.ROTARY] = reference.rotary(width, heads)
    save_file(tensors, file)
    return tensors


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=50258)
    given = parser.parse_args()
    size = dict(width=given.width, depth=given.depth, vocabulary=given.vocabulary)
    tensors = write(given.file, **size)
    print(
        f"{given.file}: {len(tensors)} tensors, {sum(a.size for a in tensors.values()):,} numbers"
    )


if __name__ == "__main__":
    main()
