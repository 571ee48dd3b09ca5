"""One colour for a method in every plot, whatever the other runs and their order."""

from __future__ import annotations

import re
from collections.abc import Sequence

# By the order in which methods are compared most often; matplotlib's tab10 and two of Dark2.
OF_METHOD = {
    "mdlm": "#1f77b4",
    "lddm_m": "#ff7f0e",
    "udlm": "#2ca02c",
    "lddm_u": "#d62728",
    "sedd": "#9467bd",
    "lddm_sedd": "#8c564b",
    "ar": "#e377c2",
    "mgdm": "#7f7f7f",
    "lddm_g": "#bcbd22",
    "d3pm": "#17becf",
    "sedd_uniform": "#66a61e",
    "duo": "#e6ab02",
}


def colours(recipes: Sequence[str]) -> list[str]:
    """A colour for each run, by its recipe, such as `method=mdlm,size=tiny`.

    The first run of a method has the method's own; further runs, and methods without one, take
    those of methods that are not there, in order, and begin anew when all are taken.
    """
    methods = [_method(recipe) for recipe in recipes]
    free = [c for name, c in OF_METHOD.items() if name not in methods] or list(OF_METHOD.values())
    out: list[str] = []
    seen: set[str] = set()
    others = 0
    for method in methods:
        if method in OF_METHOD and method not in seen:
            out.append(OF_METHOD[method])
        else:
            out.append(free[others % len(free)])
            others += 1
        seen.add(method)
    return out


def _method(recipe: str) -> str:
    found = re.search(r"method=(\w+)", recipe)
    return found[1] if found else ""
