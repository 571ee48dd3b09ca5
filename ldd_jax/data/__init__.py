"""Text to batches: tokenizers, sources, packing, prepared corpora and the input pipeline."""

from __future__ import annotations

from ldd_jax.data.characters import Bytes, Characters
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.found import find_tokenizer
from ldd_jax.data.ids import Ids, IdTokenizer
from ldd_jax.data.instructions import InstructionData
from ldd_jax.data.json_vocabulary import Json
from ldd_jax.data.labelled import LabelledText
from ldd_jax.data.mixture import Mixture
from ldd_jax.data.patched import PatchedText
from ldd_jax.data.patches import EntropyPatches, SpacePatches, StaticPatches
from ldd_jax.data.pipeline import Batches, Spread, batches
from ldd_jax.data.prepare import prepare
from ldd_jax.data.problems import ProblemData
from ldd_jax.data.sentencepieces import SentencePiece
from ldd_jax.data.shapes import ShapeData
from ldd_jax.data.signal_chain import ChainData
from ldd_jax.data.signals import PairData
from ldd_jax.data.target import TargetData
from ldd_jax.data.text import TextData
from ldd_jax.data.tokenizers import MASK_TEXT, Tokenizer, load_tokenizer

__all__ = [
    "MASK_TEXT",
    "Batches",
    "Bytes",
    "ChainData",
    "Characters",
    "Corpus",
    "EntropyPatches",
    "IdTokenizer",
    "Ids",
    "InstructionData",
    "Json",
    "LabelledText",
    "Mixture",
    "PairData",
    "PatchedText",
    "ProblemData",
    "SentencePiece",
    "ShapeData",
    "SpacePatches",
    "Spread",
    "StaticPatches",
    "TargetData",
    "TextData",
    "Tokenizer",
    "batches",
    "find_tokenizer",
    "load_tokenizer",
    "prepare",
]
