"""Networks: the only folder that knows Flax modules; outside they are init, axes and bind."""

from ldd_jax.denoisers.base import BoundNetwork
from ldd_jax.denoisers.blt import Blt
from ldd_jax.denoisers.carry import EntropyMix, Hidden, SoftFfn, SoftMask
from ldd_jax.denoisers.compressor import Compressor
from ldd_jax.denoisers.dit import DiT
from ldd_jax.denoisers.gpt2 import GPT2
from ldd_jax.denoisers.hollow import Hollow
from ldd_jax.denoisers.inputs import Linear, Tokens
from ldd_jax.denoisers.llama import Llama
from ldd_jax.denoisers.signal import SignalDiT
from ldd_jax.denoisers.transformer import LinearHead

__all__ = [
    "GPT2",
    "Blt",
    "BoundNetwork",
    "Compressor",
    "DiT",
    "EntropyMix",
    "Hidden",
    "Hollow",
    "Linear",
    "LinearHead",
    "Llama",
    "SignalDiT",
    "SoftFfn",
    "SoftMask",
    "Tokens",
]
