"""Which of our decoders a published config.json describes: by its fields, never by its code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ldd_jax.core.checks import nearest, require
from ldd_jax.denoisers import frequencies
from ldd_jax.denoisers.fields import Reader
from ldd_jax.denoisers.gpt2 import GPT2
from ldd_jax.denoisers.llama import Llama
from ldd_jax.denoisers.published import GPT2_NAMES, LLADA, LLAMA, Names

ACTIVATIONS = {"gelu_new": True, "gelu_pytorch_tanh": True, "gelu": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Described:
    """A published network.

    kind: its model_type; model: our class; fields: of it; names: of its tensors; rows: of its token
    table; length: positions of pretraining; mask, bos, eos: ids, None = it does not say.
    """

    kind: str
    model: type
    fields: Mapping[str, Any]
    names: Names
    rows: int
    length: int
    mask: int | None = None
    bos: int | None = None
    eos: int | None = None

    @property
    def autoregressive(self) -> bool:
        """Whether it predicts from left to right."""
        return bool(self.fields["causal"])


def describe(config: Mapping[str, Any], where: str) -> Described:
    """The network of a config.json.

    Args:
      config: its fields.
      where: the file, for messages.

    Raises:
      UserError: for an architecture that is not known here, or code in its place.
    """
    kind = config.get("model_type")
    code = "auto_map" in config
    require(
        kind in KINDS or not code,
        f"{where}: model_type {kind!r} is code in the folder (auto_map), which is never run; "
        f"{nearest(str(kind), KINDS)}",
    )
    require(
        kind in KINDS,
        f"{where}: model_type {kind!r} is not known here; {nearest(str(kind), KINDS)}",
    )
    read = KINDS[str(kind)]
    # LLaDA, Dream and SDAR are published with code, and are known by their fields.
    require(
        not code or kind in CODED,
        f"{where} says model_type {kind!r} and names code in the folder (auto_map): that code is "
        "never run, and without it the network may be another",
    )
    return read(Reader(config, where), str(kind))


def _gpt2(read: Reader, kind: str) -> Described:
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        plain = not read.flag(name)
        require(plain, f"{read.where}: {name}; only GPT-2's own attention is known here")
    require(
        read.flag("scale_attn_weights", True),
        f"{read.where}: scale_attn_weights; only GPT-2's own attention is known here",
    )
    config = read.config
    activation = config.get("activation_function", config.get("activation", "gelu_new"))
    name = str(activation).split()[0] if str(activation).strip() else ""
    require(name in ACTIVATIONS, f"{read.where}: activation {name!r}; {nearest(name, ACTIVATIONS)}")
    width, heads, rows = (read.whole(n) for n in ("n_embd", "n_head", "vocab_size"))
    require(width % heads == 0, f"{read.where}: n_embd {width} is no multiple of n_head {heads}")
    read.only("n_inner", 4 * width)
    read.only("tie_word_embeddings", True)
    positions = read.whole("n_positions")
    fields = dict(
        width=width,
        depth=read.whole("n_layer"),
        heads=heads,
        positions=positions,
        norm_eps=read.number("layer_norm_epsilon", 1e-5),
        tanh=ACTIVATIONS[name],
        causal=True,
    )
    eos = read.id("eos_token_id" if "eos_token_id" in config else "eos", rows)
    return Described(
        kind=kind,
        model=GPT2,
        fields=fields,
        names=GPT2_NAMES,
        rows=rows,
        length=positions,
        bos=read.id("bos_token_id", rows),
        eos=eos,
    )


def _llama(read: Reader, kind: str) -> Described:
    """Llama, Qwen2, Qwen3, and Dream and SDAR, which have the fields of the last two."""
    read.only("hidden_act", "silu")
    read.only("mlp_bias", False)
    read.only("attention_bias", False, *([True] if kind in BIASED else []))
    read.only("use_sliding_window", False)
    width, heads, rows = (
        read.whole(n) for n in ("hidden_size", "num_attention_heads", "vocab_size")
    )
    own = {"head_width": read.whole("head_dim")} if read.config.get("head_dim") else {}
    if not own and kind in NORMED:
        own = {"head_width": 128}  # of their own default
    require(
        bool(own) or width % heads == 0,
        f"{read.where}: hidden_size {width} is no multiple of {heads} heads",
    )
    length = read.whole("max_position_embeddings", default=2048)
    fields = dict(
        width=width,
        depth=read.whole("num_hidden_layers"),
        heads=heads,
        kv_heads=read.whole("num_key_value_heads", default=heads),
        hidden=read.whole("intermediate_size"),
        norm_eps=read.number("rms_norm_eps", 1e-6),
        qkv_bias=kind in BIASED,
        qk_norm=kind in NORMED,
        tied=read.flag("tie_word_embeddings"),
        causal=kind not in CODED,
        shift="repeat" if kind == "Dream" else "none",
        **own,
        **_rope(read, length),
    )
    return Described(
        kind=kind,
        model=Llama,
        fields=fields,
        names=LLAMA,
        rows=rows,
        length=length,
        mask=read.id("mask_token_id", rows),
        bos=read.id("bos_token_id", rows),
        eos=read.id("eos_token_id", rows),
    )


def _llada(read: Reader, kind: str) -> Described:
    for name, value in LLADA_ONLY.items():
        read.only(name, *value)
    heads, length = read.whole("n_heads"), read.whole("max_sequence_length", default=1024)
    width = read.whole("d_model")
    require(width % heads == 0, f"{read.where}: d_model {width} is no multiple of {heads} heads")
    rows = read.whole("embedding_size", "vocab_size")
    fields = dict(
        width=width,
        depth=read.whole("n_layers"),
        heads=heads,
        kv_heads=read.whole("n_kv_heads", default=heads),
        hidden=read.whole("mlp_hidden_size", default=4 * width),
        norm_eps=read.number("rms_norm_eps", 1e-5),
        qkv_bias=read.flag("include_qkv_bias"),
        tied=read.flag("weight_tying"),
        rope_base=read.number("rope_theta", 10_000.0),
        causal=False,
    )
    return Described(
        kind=kind,
        model=Llama,
        fields=fields,
        names=LLADA,
        rows=rows,
        length=length,
        mask=read.id("mask_token_id", rows),
        eos=read.id("eos_token_id", rows),
    )


LLADA_ONLY = {
    "block_type": ("llama",),
    "activation_type": ("silu", "swiglu"),
    "layer_norm_type": ("rms",),
    "include_bias": (False,),
    "rope": (True,),
    "alibi": (False,),
    "attention_layer_norm": (False,),
    "input_emb_norm": (False,),
    "scale_logits": (False,),
}
BIASED = ("qwen2", "Dream")
NORMED = ("qwen3", "sdar")
CODED = ("llada", "Dream", "sdar")
KINDS: dict[str, Callable[[Reader, str], Described]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "qwen2": _llama,
    "qwen3": _llama,
    "llada": _llada,
    "Dream": _llama,
    "sdar": _llama,
}


def _rope(read: Reader, length: int) -> dict[str, Any]:
    """Base, fraction and scaling, of rope_parameters (transformers 5) or the fields before it."""
    config = read.config
    new, old = config.get("rope_parameters"), config.get("rope_scaling")
    for name, value in (("rope_parameters", new), ("rope_scaling", old)):
        good = value is None or isinstance(value, Mapping)
        require(good, f"{read.where}: {name} is {value!r}; expected a table")
    table: Mapping[str, Any] = new or old or {}
    theta = read.number("rope_theta", read.number("rope_theta", 10_000.0), table)
    share = read.number("partial_rotary_factor", read.number("partial_rotary_factor", 1.0), table)
    kind = table.get("rope_type", table.get("type", "default"))
    require(
        kind in SCALINGS,
        f"{read.where}: rotary scaling {kind!r} is not known here; {nearest(str(kind), SCALINGS)}",
    )
    factor = read.number("factor", 1.0, table)
    before = int(read.number("original_max_position_embeddings", length, table))
    made: Any = frequencies.Plain()
    if kind == "linear":
        made = frequencies.Linear(factor=factor)
    elif kind == "dynamic":
        made = frequencies.Dynamic(factor=factor, original=length)
    elif kind == "llama3":
        low, high = (
            read.number(f"{n}_freq_factor", d, table) for n, d in (("low", 1), ("high", 4))
        )
        made = frequencies.Llama3(factor=factor, low=low, high=high, original=before)
    elif kind == "yarn":
        made = _yarn(read, table, factor, before)
    return dict(rope_base=theta, rope_fraction=share, frequencies=made)


SCALINGS = ("default", "linear", "dynamic", "llama3", "yarn")


def _yarn(read: Reader, table: Mapping[str, Any], factor: float, before: int) -> frequencies.Yarn:
    attention = 0.0
    if table.get("attention_factor") is not None:
        attention = read.number("attention_factor", 1.0, table)
    elif table.get("mscale") and table.get("mscale_all_dim"):
        whole = frequencies.attention_factor
        one, all_ = (read.number(n, 1.0, table) for n in ("mscale", "mscale_all_dim"))
        attention = whole(factor, one) / whole(factor, all_)
    return frequencies.Yarn(
        factor=factor,
        original=before,
        fast=read.number("beta_fast", 32.0, table),
        slow=read.number("beta_slow", 1.0, table),
        attention=attention,
        truncate=bool(table.get("truncate", True)),
    )
