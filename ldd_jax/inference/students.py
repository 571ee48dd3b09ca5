"""What a student takes from the joint model that teaches it."""

from __future__ import annotations

from typing import Any

from ldd_jax.config import stored
from ldd_jax.core.checks import require
from ldd_jax.core.storage import at


def of_teacher(workdir: str) -> tuple[int, dict[str, Any]]:
    """Length of its rows, and the fields of its network, which the student begins with.

    Whether the student carries a latent its own method says.

    Raises:
      UserError: if the run draws no signal.
    """
    config = stored.load_config(at(workdir))
    require(
        config.process.name == "joint",
        f"{workdir} has no joint process; a teacher is a run of method=joint or lddm_joint",
    )
    fields = config.model.items()
    return config.data.length, {n: v for n, v in fields if n not in ("name", "latent")}
