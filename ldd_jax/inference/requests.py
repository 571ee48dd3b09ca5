"""Samples that are asked for, checked and not drawn yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from ldd_jax.inference.generate import Sampler


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Samples that are asked for: of which compiled sampler, how many, with what given.

    `said` is what their records say besides what the sampler does.
    """

    sampler: Sampler
    params: Any
    seed: int
    count: int
    num_steps: int
    tokens: Any
    fixed: Any
    label: int | None
    given: dict[str, Any]
    said: dict[str, Any]

    @property
    def common(self) -> dict[str, Any]:
        """What all records share."""
        return self.sampler.common(self.seed, self.num_steps) | self.said

    def records(self, begin: int = 0) -> Iterator[dict[str, Any]]:
        """Records from number `begin` on, one by one."""
        drawn = self.sampler.records(
            self.params,
            seed=self.seed,
            count=self.count,
            num_steps=self.num_steps,
            fixed_tokens=self.tokens,
            fixed=self.fixed,
            label=self.label,
            begin=begin,
            given=self.given,
        )
        return ({**record, **self.said} for record in drawn)
