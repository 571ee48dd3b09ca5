"""Several processes side by side, each on its own part of the state and at its own time.

Multi-Flow (arXiv 2402.04997): tokens that are revealed while points move. State, clock, prediction
and heads are trees with the same names, so that rules and losses walk them as they walk an array.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import struct

from ldd_jax.core import positions
from ldd_jax.core.checks import nearest
from ldd_jax.core.draws import fold
from ldd_jax.core.registry import component, register, runtime
from ldd_jax.core.types import Array, Denoiser, Draw, Head, TokenSpace
from ldd_jax.processes.interpolant import Interpolant
from ldd_jax.processes.masked import Masked

Tree = dict[str, Any]
WORDS = positions.TEXT  # the part that tokens are decoded from


@struct.dataclass
class Heads:
    """Features [N, D] to a tree of what each head gives."""

    heads: dict[str, Head]

    def __call__(self, features_ND: Array) -> Tree:
        """All of them, row-wise."""
        return {name: head(features_ND) for name, head in self.heads.items()}


@register("process", "joint")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint:
    """z = {part: state}, clock = {part: time}; every field that is a process is a part.

    Parts are corrupted independently given the data, and move back together: each sees all of z by
    the network's prediction. What couples them is the network. A part that is `held` stands at its
    time 0: with the signal held, tokens are drawn given it, and the other way round.
    A process of more parts is a subclass with more fields.

    Attributes:
      text: of the tokens, masked.
      signal: of the points beside them.
    """

    text: Any = component("process", Masked)
    signal: Any = component("process", Interpolant)
    held: tuple[str, ...] = runtime()
    tokens: TokenSpace = runtime()

    predicts = "clean"
    absorbing = bridges = False
    by_position = False
    counts_events = False
    points = False
    reader = None
    chain = ""

    def __post_init__(self):
        if not (self.text.registered[0] == "process" and self.text.words.absorbing):
            raise ValueError("the tokens of a joint process are masked; set process.text to masked")
        strange = set(self.held or ()) - set(self.parts)
        if strange:
            raise ValueError(f"no part {strange.pop()!r} to hold; {nearest('', self.parts)}")

    @property
    def parts(self) -> dict[str, Any]:
        """Processes by name, the tokens' among them."""
        fields = dataclasses.fields(self)
        own = [f.name for f in fields if f.metadata.get("component") == "process"]
        return {name: getattr(self, name) for name in own}

    @property
    def words(self) -> Any:
        """The tokens' process."""
        return self.parts[WORDS]

    @property
    def schedule(self) -> Any:
        """That of the tokens."""
        return self.words.schedule

    @property
    def states(self) -> int:
        """As of the tokens' process."""
        return self.words.states

    @property
    def mask(self) -> int:
        """As of the tokens' process."""
        return self.words.mask

    def token_space_size(self, vocabulary: int) -> tuple[int, int | None]:
        """As of the tokens' process."""
        return self.words.token_space_size(vocabulary)

    def digits(self, vocabulary: int) -> int:
        """As of the tokens' process."""
        return self.words.digits(vocabulary)

    def shown(self, z: Any) -> Array:
        """The tokens."""
        return self.decode(z)

    def places(self, fixed_BL: Array) -> Array:
        """Those of the text."""
        return fixed_BL

    def log_recovery(self, pred: Any, z0_N: Array, z_N: Any, t_N: Any) -> Array:
        """Of the tokens."""
        return self.words.log_recovery(pred[WORDS], z0_N, z_N[WORDS], t_N[WORDS])

    def holding(self, names: tuple[str, ...]) -> Joint:
        """The same with these parts at their time 0 throughout."""
        return dataclasses.replace(self, held=names)

    def check(self, *, timed: bool) -> None:
        """What the tokens' process refuses."""
        self.words.check(timed=timed)

    def head(self, denoiser: Denoiser) -> Any:
        """The network's heads, by part."""
        return Heads({WORDS: denoiser.head, **denoiser.heads})

    def of_tokens(self, tree: Tree) -> Any:
        """Their branch."""
        return tree[WORDS]

    def with_tokens(self, z: Tree, tokens: Array) -> Tree:
        """The tree with another branch of tokens."""
        return z | {WORDS: tokens}

    def beside(self, z: Tree) -> Tree:
        """The other branches."""
        return {name: branch for name, branch in z.items() if name != WORDS}

    def _each(self, method: str, *trees: Any) -> Tree:
        """The method of every part on its own branches; None is one for all."""
        branch = lambda tree, name: None if tree is None else tree[name]
        return {
            name: getattr(part, method)(*(branch(tree, name) for tree in trees))
            for name, part in self.parts.items()
        }

    def conditioning(self, clock: Tree) -> Tree:
        """Of every part."""
        return self._each("conditioning", clock)

    def clock(self, t_B: Array, length: int) -> Tree:
        """The same time for all parts, 0 for those that are held."""
        return {
            name: part.clock(jnp.zeros_like(t_B) if name in (self.held or ()) else t_B, length)
            for name, part in self.parts.items()
        }

    def prior(self, keys_B: Array, length: int) -> tuple[Tree, Tree]:
        """Noise of every part, independently."""
        both = {
            name: part.prior(fold(keys_B, number), length)
            for number, (name, part) in enumerate(self.parts.items())
        }
        one = jnp.ones(keys_B.shape[0], jnp.result_type(float))
        return {name: z for name, (z, _) in both.items()}, self.clock(one, length)

    def encode(self, tokens: Array) -> Tree:
        """These tokens beside blank points: what is beside them they do not say."""
        blank = {n: p.blank(*tokens.shape) for n, p in self.parts.items() if n != WORDS}
        return {WORDS: self.words.encode(tokens), **blank}

    def decode(self, z: Tree) -> Array:
        """The tokens."""
        return self.words.decode(z[WORDS])

    def corrupt(self, keys_B: Array, z0: Tree, t_B: Any, keep: Array) -> tuple[Tree, Tree]:
        """Every part on its own; t_B is one time for all parts, or a tree of their times."""
        times = t_B if isinstance(t_B, dict) else dict.fromkeys(self.parts, t_B)
        both = {
            name: part.corrupt(fold(keys_B, number), z0[name], times[name], keep)
            for number, (name, part) in enumerate(self.parts.items())
        }
        return {n: z for n, (z, _) in both.items()}, {n: clock for n, (_, clock) in both.items()}

    def scored(self, z: Tree) -> Array:
        """Every position: points are never done."""
        return jnp.ones(positions.shape(z), bool)

    def read(self, logits: Tree, z_N: Tree, clock_N: Tree) -> Tree:
        """Predictions of all parts."""
        return self._each("read", logits, z_N, clock_N)

    def bound(self, logits: Tree, z0_N: Tree, z_N: Tree, clock_N: Tree) -> Array:
        """Sum of what the parts are scored by: no bound, as the points' share is none."""
        found = self._each("bound", logits, z0_N, z_N, clock_N)
        return sum(found.values(), jnp.zeros(()))

    def boundary(self, dtype=jnp.float32) -> Array:
        """Prior term of the tokens."""
        return self.words.boundary(dtype)

    def clean(self, pred: Tree, z_N: Tree, t_N: Tree) -> Array:
        """Log p of the tokens at t = 0, normalised."""
        return self.words.clean(pred[WORDS], z_N[WORDS], t_N[WORDS])

    def drift(self, pred: Tree, z_N: Tree, t_N: Tree, s_N: Any) -> Tree:
        """Points move, tokens do not."""
        return self._each("drift", pred, z_N, t_N, s_N)

    def move_probability(self, z_N: Tree, t_N: Tree, s_N: Any) -> Array:
        """1: points move always."""
        del s_N
        return jnp.ones(z_N[WORDS].shape, t_N[WORDS].dtype)

    def sample_posterior(self, draw: Draw, pred: Tree, z_N: Tree, t_N: Tree, s_N: Any) -> Tree:
        """Tokens from their posterior, each by an event of its own; points along their velocity."""
        given = (z_N[WORDS], t_N[WORDS], None if s_N is None else s_N[WORDS])
        moves = draw.event(self.words.move_probability(*given))
        token = self.words.sample_posterior(draw, pred[WORDS], *given)
        z = self.drift(pred, z_N, t_N, s_N)
        return z | {WORDS: jnp.where(moves, token, z_N[WORDS])}
