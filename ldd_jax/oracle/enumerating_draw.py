"""Every outcome of a production step dictated, and its probability written down: exact laws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.types import Array

Site = tuple[int, ...]


class EnumeratingDraw:
    """A draw that takes its outcomes from `choices` and adds their log-probabilities to `book`.

    choices: site -> tokens [B, L], or ranks [B, L] where the site draws an order. Without them it
    only notes in `kinds` what each site draws ("tokens" or "order"), so that all outcomes can be
    enumerated. Uniforms are dictated too: they are `level`, and a law is exact only if it does not
    depend on them. Not a pytree: use it with untiled rows, within one trace.
    """

    def __init__(
        self,
        choices: Mapping[Site, Array] | None = None,
        level: float = 0.5,
        *,
        site: Site = (),
        kinds: dict[Site, str] | None = None,
        book: list[Array] | None = None,
        length: int = 0,
    ):
        self.choices, self.level, self.site, self.length = choices, level, site, length
        self.kinds: dict[Site, str] = {} if kinds is None else kinds
        self.book: list[Array] = [] if book is None else book

    def _like(self, site: Site, length: int) -> EnumeratingDraw:
        shared: dict[str, Any] = dict(kinds=self.kinds, book=self.book)
        return EnumeratingDraw(self.choices, self.level, site=site, length=length, **shared)

    def at(self, *, step: Any = None, site: int | None = None) -> EnumeratingDraw:
        """The draw of one site; steps are the caller's."""
        if step is not None and not isinstance(step, int):
            raise ValueError("an enumerating draw cannot be used inside a loop over steps")
        parts = tuple(p for p in (step, site) if p is not None)
        return self._like(self.site + parts, self.length)

    def rows(self, length: int) -> EnumeratingDraw:
        """One draw per row."""
        return self._like(self.site, length)

    @property
    def log_probability(self) -> Array:
        """Of all outcomes written down, by example, [B]."""
        return sum(self.book, jnp.zeros((), jnp.result_type(float)))

    def _take(self, kind: str, shape: tuple[int, ...]) -> Array:
        if self.kinds.setdefault(self.site, kind) != kind:
            raise ValueError(f"site {self.site} draws both {kind} and {self.kinds[self.site]}")
        if self.choices is None:
            return jnp.zeros(shape, jnp.int32)
        return self.choices[self.site].reshape(shape)

    def _write(self, probability: Array) -> None:
        if self.choices is not None:
            row = jnp.log(probability).reshape(-1, max(self.length, 1))
            self.book.append(jnp.sum(row, axis=1))

    def categorical(self, logp_NV: Array) -> Array:
        """The dictated tokens."""
        one = jnp.ones(logp_NV.shape[:1], logp_NV.dtype)
        return self.outcome(logp_NV, one, jnp.zeros(logp_NV.shape[:1], jnp.int32))

    def event(self, p_N: Array) -> Array:
        """Decided together with the outcome, even where it is impossible."""
        return jnp.ones(p_N.shape, bool)

    def outcome(self, logp_NV: Array, p_N: Array, stay_N: Array) -> Array:
        """The dictated tokens, from p * softmax(logp) + (1 - p) * onehot(stay)."""
        token = self._take("tokens", stay_N.shape)
        chosen = jnp.take_along_axis(jax.nn.softmax(logp_NV, -1), token[:, None], 1)[:, 0]
        moved = jnp.where(p_N > 0, p_N * chosen, 0)
        self._write(moved + jnp.where(token == stay_N, 1 - p_N, 0))
        return token.astype(stay_N.dtype)

    def ranking(self, logit_BL: Array) -> Array:
        """The dictated ranks; places of logit -inf come last, in their order."""
        rank = self._take("order", logit_BL.shape)
        place = jnp.argsort(rank, axis=1)
        logit = jnp.take_along_axis(logit_BL, place, 1)
        live = logit > -jnp.inf
        top = jnp.max(jnp.where(live, logit, 0), axis=1, keepdims=True)
        weight = jnp.where(live, jnp.exp(logit - top), 0)
        left = jnp.flip(jnp.cumsum(jnp.flip(weight, 1), axis=1), 1)
        log_p = jnp.sum(jnp.where(live, jnp.log(weight) - jnp.log(left), 0), axis=1)
        ordered = jnp.all((place[:, 1:] > place[:, :-1]) | live[:, :-1], axis=1)
        first = jnp.all(live[:, :-1] | ~live[:, 1:], axis=1)
        if self.choices is not None:
            self.book.append(jnp.where(ordered & first, log_p, -jnp.inf))
        return rank

    def normal(self, shape: tuple[int, ...]) -> Array:
        """There is no list of all real numbers."""
        raise ValueError(f"normal numbers (shape {shape} asked for) cannot be enumerated")

    def uniform(self, shape: tuple[int, ...] = ()) -> Array:
        """`level` everywhere."""
        return jnp.full(shape, self.level)
