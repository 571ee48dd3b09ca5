"""What the configs of the reference family say, in our words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Names of the references' algorithms -> names of our methods. Duo's curriculum, its distillation
# and its fine-tuning by optimal transport train one and the same uniform-state model.
METHOD_OF = {
    "mdlm": "mdlm",
    "lddm_m": "lddm_m",
    "d3pm": "d3pm",
    "udlm": "udlm",
    "duo": "udlm",
    "duo_base": "udlm",
    "distillation": "udlm",
    "ot-finetune": "udlm",
    "lddm_u": "lddm_u",
    "ar": "ar",
    "sedd": "sedd",
}
# mdlm and discrete-diffusion-guidance: (parameterization, diffusion) -> method.
PAIR_OF: dict[tuple[str | None, str | None], str] = {
    ("subs", "absorbing_state"): "mdlm",
    ("subs", None): "mdlm",
    ("ar", "absorbing_state"): "ar",
    ("ar", None): "ar",
    ("sedd", "absorbing_state"): "sedd",
    ("sedd", None): "sedd",
    ("d3pm", "absorbing_state"): "d3pm",
    ("d3pm", None): "d3pm",
    ("d3pm", "uniform"): "udlm",
}
# SEDD's own config names the graph.
GRAPH_OF = {"absorb": "sedd", "uniform": "sedd_uniform"}
# noise.type -> (our schedule, its fields); Duo's cosine is another than MDLM's.
SCHEDULE_OF: dict[str, tuple[str, tuple[str, ...]]] = {
    "loglinear": ("log_linear", ()),
    "log-linear": ("log_linear", ("eps",)),
    "geometric": ("geometric", ("sigma_min", "sigma_max")),
    "linear": ("linear_sigma", ("sigma_min", "sigma_max")),
    "cosine": ("cosine", ()),
    "cosinesqr": ("cosine_squared", ()),
}
DUO_SCHEDULE_OF = SCHEDULE_OF | {"cosine": ("cosine_duo", ("eps",))}
DROPOUT = (("guidance", "cond_dropout"), ("class_dropout_p",))


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says, as far as it is there and readable.

    Returns:
      Of method, heads, length, time_conditioning, schedule (a name and its fields), steps (the
      finite T of D3PM) and condition_dropout (of classes) those that are said.
    """

    def get(*path: str) -> Any:
        node: Any = config
        for name in path:
            node = node.get(name) if isinstance(node, Mapping) else None
        return node

    def first(kind: type, *paths: tuple[str, ...]) -> Any:
        return next((v for v in (get(*p) for p in paths) if type(v) is kind), None)

    name = first(str, ("algo", "name"), ("model_type",)) or ""
    graph = first(str, ("graph", "type")) or ""
    pair = first(str, ("parameterization",)), first(str, ("diffusion",))
    method = METHOD_OF.get(name.lower()) or PAIR_OF.get(pair) or GRAPH_OF.get(graph)
    if method == "d3pm" and first(bool, ("algo", "subs_masking"), ("subs_masking",)):
        method = "mdlm"  # no mass on the mask: the same law of every step
    found = {
        "method": method,
        "heads": first(int, ("model", "n_heads"), ("n_heads",)),
        "length": first(int, ("model", "length"), ("model_length",)),
        "time_conditioning": first(bool, ("algo", "time_conditioning"), ("time_conditioning",)),
        "schedule": _schedule(get("noise"), DUO_SCHEDULE_OF if get("algo") else SCHEDULE_OF),
        "steps": first(int, ("algo", "T"), ("T",)) if method == "d3pm" else None,
        "condition_dropout": next(
            filter(lambda v: v is not None, (_number(get("training", *p)) for p in DROPOUT)), None
        ),
    }
    return {k: v for k, v in found.items() if v is not None}


def _schedule(
    noise: Any, known: Mapping[str, tuple[str, tuple[str, ...]]]
) -> dict[str, Any] | None:
    """A section of ours from `noise` of theirs; None where it names none that we know."""
    kind = noise.get("type") if isinstance(noise, Mapping) else None
    if not isinstance(kind, str) or kind not in known:
        return None
    name, fields = known[kind]
    given = {f: _number(noise.get(f)) for f in fields}
    return {"name": name, **{f: v for f, v in given.items() if v is not None}}


def _number(value: Any) -> float | None:
    """A number; YAML reads 1e-4 as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
