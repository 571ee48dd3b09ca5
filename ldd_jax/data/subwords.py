"""Subword tokenizers: SentencePiece, loaded or trained, and any `tokenizers`-library JSON file."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.registry import register
from ldd_jax.data.tokenizers import Documents, Tokenizer, saved_as

_MODEL_FILE, _JSON_FILE = "sentencepiece.model", "vocabulary.json"
_WELL_KNOWN = {
    "bos": ("<s>", "[CLS]", "<bos>", "<|startoftext|>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos": ("</s>", "[SEP]", "<eos>", "<|endoftext|>", "<|end_of_text|>"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
}
_GAPS = 10_000  # numbers that a file may leave out, beside as many as it uses
_MODEL_TYPES = ("unigram", "bpe")


@saved_as("sentencepiece")
class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model; its own bos, eos and pad pieces are used where it has them.

    Args:
      model: the serialised model.
      needs: special tokens wanted; those the model lacks are appended.

    Raises:
      ValueError: if `model` is not a SentencePiece model.
    """

    def __init__(self, model: bytes, needs: Collection[str] = ()):
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2 as protos

        try:
            proto = protos.ModelProto.FromString(model)  # type: ignore[attr-defined]
            # A text that continues another must neither get the space that starts a sentence nor
            # lose its own.
            proto.normalizer_spec.add_dummy_prefix = False
            proto.normalizer_spec.remove_extra_whitespaces = False
            self._whole = sentencepiece.SentencePieceProcessor(model_proto=model)
            self._rest = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        except Exception as error:  # protobuf and sentencepiece raise types of their own
            raise ValueError("not a SentencePiece model") from error
        whole = self._whole
        if not len(model) or not whole.get_piece_size():
            raise ValueError("not a SentencePiece model")
        own = {"bos": whole.bos_id(), "eos": whole.eos_id(), "pad": whole.pad_id()}
        super().__init__(
            whole.get_piece_size(), {n: i if i >= 0 else None for n, i in own.items()}, needs
        )
        self.model = model

    def _encode(self, text, start):
        return (self._whole if start else self._rest).encode(text)

    def _decode(self, ids, start):
        return (self._whole if start else self._rest).decode(list(ids))

    def _state(self):
        return {}

    def _files(self):
        return {_MODEL_FILE: self.model}

    @classmethod
    def _restore(cls, state, files, needs):
        return cls(files(_MODEL_FILE), needs)


@register("tokenizer", "sentencepiece")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePiece:
    """SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226).

    Attributes:
      model: a `.model` file to load; empty = train on the training documents, with bytes as the
        last resort, so that every text goes through unchanged.
      vocab_size: pieces to train, the 256 bytes among them; a small corpus may give fewer.
      model_type: unigram or bpe.
    """

    model: str = ""
    vocab_size: int = 1024
    model_type: str = "unigram"

    def __post_init__(self):
        if self.model_type not in _MODEL_TYPES:
            raise ValueError(
                f"model_type={self.model_type!r}; {nearest(self.model_type, _MODEL_TYPES)}"
            )
        if not self.model and self.vocab_size < 260:
            raise ValueError(
                f"vocab_size={self.vocab_size}: 256 bytes and the unknown piece leave no room; "
                "give at least 260, or use the 'bytes' tokenizer"
            )

    def most_ids(self, needs: Collection[str]) -> int:
        """Ids: exactly with a model, else at most.

        Raises:
          UserError: for a model that cannot be read.
        """
        if self.model:
            return self.fit(lambda: (), needs).size
        return self.vocab_size + len(needs)

    def fit(self, documents: Documents, needs: Collection[str] = ("eos", "pad")) -> Tokenizer:
        """Load the model, or train one; the same documents give the same model."""
        if self.model:
            data = _read(self.model, "SentencePiece model")
            try:
                return SentencePieceTokenizer(data, needs)
            except ValueError as error:
                raise UserError(f"{self.model} is not a SentencePiece model") from error
        return SentencePieceTokenizer(self._train(documents), needs)

    def _train(self, documents: Documents) -> bytes:
        """Train in memory, on one thread: sums of floats must not depend on the machine."""
        import sentencepiece

        out = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_lines(documents),
                model_writer=out,
                vocab_size=self.vocab_size,
                model_type=self.model_type,
                byte_fallback=True,
                hard_vocab_limit=False,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                character_coverage=0.9995,
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            text = str(error).strip() or "no reason given"
            reason = text.splitlines()[-1].split("] ")[-1]
            raise UserError(
                f"SentencePiece could not train {self.vocab_size} pieces on this corpus: {reason}"
            ) from error
        return out.getvalue()


def _lines(documents: Documents) -> Iterator[str]:
    """Non-empty lines, cut so that the trainer does not skip the long ones."""
    for text in documents():
        for line in text.split("\n"):
            for at in range(0, len(line), 1000):
                yield line[at : at + 1000]


@saved_as("json")
class JsonTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library.

    Args:
      text: the JSON it is written as.
      specials: names of its bos, eos and pad tokens; absent = it has none.
      needs: special tokens wanted; those it lacks are appended.

    Raises:
      ValueError: if `text` does not describe one.
    """

    def __init__(self, text: str, specials: dict[str, str], needs: Collection[str] = ()):
        import tokenizers

        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(str(error).splitlines()[0]) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise ValueError("its vocabulary is empty")
        for token in specials.values():
            if token not in vocabulary:
                raise ValueError(f"it has no token {token!r}")
        # Some files number their tokens with gaps; the alphabet spans them.
        base = max(vocabulary.values()) + 1
        if base > 2 * len(vocabulary) + _GAPS:
            raise ValueError(
                f"it has {len(vocabulary):,} tokens, and gives one the id {base - 1:,}"
            )
        super().__init__(base, {n: vocabulary[t] for n, t in specials.items()}, needs)
        self.text, self.specials = text, dict(specials)
        self._anchor = next((i for i in range(base) if self._plain([i]).strip()), None)

    def _plain(self, ids) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def _encode(self, text, start):
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # as above: a file may name an unknown token that it lacks
            raise UserError(f"the tokenizer file cannot encode this text: {error}") from error

    def _decode(self, ids, start):
        if start or self._anchor is None:
            return self._plain(ids)
        # Decoders strip the space before the first token; here another token stands before it.
        return self._plain([self._anchor, *ids])[len(self._plain([self._anchor])) :]

    def _state(self):
        return {"specials": self.specials}

    def _files(self):
        return {_JSON_FILE: self.text.encode()}

    @classmethod
    def _restore(cls, state, files, needs):
        return cls(files(_JSON_FILE).decode(), state["specials"], needs)


@register("tokenizer", "json")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Json:
    """Any tokenizer the `tokenizers` library wrote (`tokenizer.json` of GPT-2, BERT, Llama ...).

    Attributes:
      path: the JSON file.
      bos: the token that starts a document; empty = the first well-known name it has.
      eos: the token that ends one; likewise.
      pad: the token that pads; likewise.
    """

    path: str = ""
    bos: str = ""
    eos: str = ""
    pad: str = ""

    def most_ids(self, needs: Collection[str]) -> int:
        """Ids, exactly.

        Raises:
          UserError: for a file that cannot be read.
        """
        return self.fit(lambda: (), needs).size

    def fit(self, documents: Documents, needs: Collection[str] = ("eos", "pad")) -> Tokenizer:
        """Read the file; `documents` is not read."""
        require(bool(self.path), "the 'json' tokenizer needs path=, a tokenizers-library JSON file")
        return self.of(_read(self.path, "tokenizer"), needs)

    def of(self, data: bytes | str, needs: Collection[str]) -> Tokenizer:
        """From the JSON itself; `path` says in errors where it came from."""
        try:
            text = data if isinstance(data, str) else data.decode("utf-8")
            known = JsonTokenizer(text, {})._tokenizer.get_vocab(with_added_tokens=True)
        except ValueError as error:  # UnicodeDecodeError among them
            raise UserError(
                f"{self.path} is not a tokenizers-library JSON file: {error}"
            ) from error
        return JsonTokenizer(text, self._specials(known), needs)

    def _specials(self, known: dict[str, Any]) -> dict[str, str]:
        """The names of the special tokens, given or found."""
        found: dict[str, str] = {}
        for name, well_known in _WELL_KNOWN.items():
            given = getattr(self, name)
            if given and given not in known:
                close = [t for t in known if t[:1] in "<["][:200]
                raise UserError(f"{self.path} has no {name} token {given!r}; {_few(given, close)}")
            token = given or next((t for t in well_known if t in known), "")
            if token:
                found[name] = token
        return found


def _few(given: str, names: list[str]) -> str:
    """The refusal's tail, without listing a whole vocabulary."""
    return nearest(given, names[:20])


def _read(path: str, what: str) -> bytes:
    """A file's bytes."""
    try:
        return reading.read(Path(path).expanduser(), reading.LARGEST_VOCABULARY)
    except OSError as error:
        raise UserError(f"cannot read the {what} file {path}: {error.strerror}") from error
