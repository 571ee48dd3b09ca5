"""Arrays that a program reads in a narrower type only, brought to it once and not at every use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

# They move numbers and change none, so that a cast may come before them; of the first argument.
MOVES = {
    "broadcast_in_dim",
    "copy",
    "dynamic_slice",
    "expand_dims",
    "gather",
    "reshape",
    "rev",
    "sharding_constraint",
    "slice",
    "squeeze",
    "transpose",
}
# Their arguments are those of the program that they hold, one by one.
CALLS = {"checkpoint", "closed_call", "custom_jvp_call", "custom_vjp_call", "jit", "pjit", "remat2"}


def cast_once(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function with leaves of its argument in the type that they are read in.

    A leaf of which every use is a cast to one narrower type is cast before anything else is done:
    the same numbers, since only moves come between. A loop then reads half the bytes and casts
    nothing. It traces `fn` twice, and holds the narrow leaves beside the wide ones.

    Args:
      fn: a tree of arrays to anything, traceable.
    """

    def cast(tree: Any) -> Any:
        leaves, shape = jax.tree.flatten(tree)
        inner = jax.make_jaxpr(fn)(tree).jaxpr
        kinds = [kind(inner, var) for var in inner.invars[: len(leaves)]]
        found = [leaf if to is None else leaf.astype(to) for leaf, to in zip(leaves, kinds)]
        return fn(jax.tree.unflatten(shape, found))

    return cast


def kind(jaxpr: Any, var: Any) -> Any:
    """The narrower floating type that a variable of a program is read in, or None.

    Args:
      jaxpr: the program.
      var: one of its inputs.
    """
    found = set(uses(jaxpr, var))
    wide = var.aval.dtype
    if len(found) != 1 or not jnp.issubdtype(wide, jnp.floating):
        return None
    (to,) = found
    narrow = to is not None and jnp.issubdtype(to, jnp.floating) and to.itemsize < wide.itemsize
    return to if narrow else None


def uses(jaxpr: Any, var: Any) -> Iterator[Any]:
    """Types that it is cast to, use by use; None for a use of another kind.

    Args:
      jaxpr: the program.
      var: an input, or what moves have made of one.
    """
    if any(out is var for out in jaxpr.outvars):
        yield None
    for eqn in jaxpr.eqns:
        for place, own in enumerate(eqn.invars):
            if own is not var:
                continue
            if eqn.primitive.name == "convert_element_type":
                yield eqn.params["new_dtype"]
            elif eqn.primitive.name in MOVES and place == 0:
                yield from uses(jaxpr, eqn.outvars[0])
            else:
                yield from within(eqn, place)


def within(eqn: Any, place: int) -> Iterator[Any]:
    """Uses of argument number `place` in the programs that an equation holds."""
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        inner = [(next(params[n] for n in ("jaxpr", "call_jaxpr") if n in params), place)]
    elif name == "scan" and not 0 <= place - params["num_consts"] < params["num_carry"]:
        inner = [(params["jaxpr"], place)]
    elif name == "cond" and place:
        inner = [(branch, place - 1) for branch in params["branches"]]
    elif name == "while" and place < params["cond_nconsts"]:
        inner = [(params["cond_jaxpr"], place)]
    elif name == "while" and place < params["cond_nconsts"] + params["body_nconsts"]:
        inner = [(params["body_jaxpr"], place - params["cond_nconsts"])]
    else:
        yield None
        return
    for program, number in inner:
        program = program.jaxpr if isinstance(program, ClosedJaxpr) else program
        yield from uses(program, program.invars[number])
