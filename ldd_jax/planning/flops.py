"""Floating-point operations of a traced function: matrix products times loop lengths.

The compiler's own cost analysis counts the body of a loop once; this walks the jaxpr instead.
Recomputation stands in the differentiated jaxpr and is counted. A loop whose length depends on the
data, and a branch taken at random, count with a stated expectation, found by the name of the scope
that they were traced in (`jax.named_scope`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend import core as jaxprs
from jax.interpreters import partial_eval as pe

# Scope of a kernel chosen by platform (`denoisers.attention`).
BY_PLATFORM = "attention_by_platform"


@dataclasses.dataclass
class Count:
    """Operations by scope, and the loops whose length had to be assumed."""

    total: float = 0.0
    by_scope: dict[str, float] = dataclasses.field(default_factory=dict)
    assumed: dict[str, Any] = dataclasses.field(default_factory=dict)


def count(fn: Callable, *args: Any, expected: Mapping[str, Any] | None = None) -> Count:
    """Operations of one call of `fn` on arrays (or shapes) like `args`.

    Args:
      fn: traceable.
      *args: arrays or shape structs.
      expected: scope name -> trips of a `while` (or probability of the second branch of a `cond`,
        or those of all of them) traced under that `jax.named_scope`.

    Raises:
      ValueError: for a data-dependent loop or branch in no named scope.
    """
    whole = jax.make_jaxpr(fn)(*args).jaxpr
    # What nothing reads, such as the latent of a pass that nothing follows, is not run.
    jaxpr, _ = pe.dce_jaxpr(whole, [True] * len(whole.outvars))
    out = Count()
    _walk(jaxpr, 1.0, "", dict(expected or {}), out)
    return out


def _dot(eqn: Any) -> float:
    (contract, _), (batch, _) = eqn.params["dimension_numbers"]
    left, right = (v.aval.shape for v in eqn.invars)
    shared = math.prod(left[i] for i in contract) * math.prod(left[i] for i in batch)
    inner = math.prod(left[i] for i in contract)
    batches = math.prod(left[i] for i in batch)
    rows = math.prod(left) // max(shared, 1)
    columns = math.prod(right) // max(shared, 1)
    return 2.0 * batches * rows * columns * inner


def _scope(eqn: Any, outer: str) -> str:
    return "/".join(filter(None, (outer, str(eqn.source_info.name_stack))))


def _lookup(scope: str, expected: dict[str, Any], out: Count, kind: str) -> Any:
    for name, value in expected.items():
        if name in scope:
            out.assumed[f"{kind} in {name}"] = value
            return value
    raise ValueError(f"a data-dependent {kind} in scope {scope!r} has no stated expectation")


def _walk(jaxpr: Any, times: float, outer: str, expected: dict[str, Any], out: Count) -> None:
    for eqn in jaxpr.eqns:
        name, scope = eqn.primitive.name, _scope(eqn, outer)
        inner = lambda j, n, scope=scope: _walk(
            j.jaxpr if isinstance(j, jaxprs.ClosedJaxpr) else j, n, scope, expected, out
        )
        if name == "dot_general":
            flops = times * _dot(eqn)
            out.total += flops
            key = next((s for s in expected if s in scope), "rest")
            out.by_scope[key] = out.by_scope.get(key, 0.0) + flops
        elif name == "scan":
            inner(eqn.params["jaxpr"], times * eqn.params["length"])
        elif name == "while":
            if _has_dots(eqn.params["body_jaxpr"].jaxpr):
                inner(eqn.params["body_jaxpr"], times * _lookup(scope, expected, out, "while"))
        elif name == "cond":
            branches = eqn.params["branches"]
            if BY_PLATFORM in scope:  # one of equal kernels, chosen when lowered; the last is XLA's
                inner(branches[-1], times)
            elif any(_has_dots(b.jaxpr) for b in branches):
                p = _lookup(scope, expected, out, "cond")
                for branch, share in zip(branches, p if isinstance(p, tuple) else (1 - p, p)):
                    inner(branch, times * share)
        else:
            for value in eqn.params.values():
                for sub in value if isinstance(value, tuple | list) else (value,):
                    if isinstance(sub, jaxprs.ClosedJaxpr | jaxprs.Jaxpr):
                        inner(sub, times)


def _has_dots(jaxpr: Any) -> bool:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            return True
        for value in eqn.params.values():
            for sub in value if isinstance(value, tuple | list) else (value,):
                if isinstance(sub, jaxprs.ClosedJaxpr) and _has_dots(sub.jaxpr):
                    return True
                if isinstance(sub, jaxprs.Jaxpr) and _has_dots(sub):
                    return True
    return False
