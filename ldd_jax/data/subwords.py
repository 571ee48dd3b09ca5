"""Subword tokenizers: SentencePiece, loaded or trained, and any `tokenizers`-library JSON file."""

from __future__ import annotations

import collections
import dataclasses
import io
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.registry import register
from ldd_jax.data.spaces import adds_prefix, as_it_stands, cut, drops_unknown
from ldd_jax.data.tokenizers import NO_TEXT, Documents, Tokenizer, saved_as

_MODEL_FILE, _JSON_FILE = "sentencepiece.model", "vocabulary.json"
_WELL_KNOWN = {
    "bos": ("<s>", "[CLS]", "<bos>", "<|startoftext|>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos": ("</s>", "[SEP]", "<eos>", "<|endoftext|>", "<|end_of_text|>"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
}
_GAPS = 10_000  # numbers that a file may leave out, beside as many as it uses
# SentencePiece's own sign for a space.
SPACE_SIGN = "\u2581"
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
            read = sentencepiece.SentencePieceProcessor
            self._whole = read(model_proto=model)
            proto = protos.ModelProto.FromString(model)  # type: ignore[attr-defined]
            # A text that goes on must not lose its spaces, and one that continues another must not
            # get the space that starts a sentence.
            proto.normalizer_spec.remove_extra_whitespaces = False
            self._first = read(model_proto=proto.SerializeToString())
            proto.normalizer_spec.add_dummy_prefix = False
            self._rest = read(model_proto=proto.SerializeToString())
        except Exception as error:  # protobuf and sentencepiece raise types of their own
            raise ValueError("not a SentencePiece model") from error
        whole = self._whole
        if not len(model) or not whole.get_piece_size():
            raise ValueError("not a SentencePiece model")
        own = {"bos": whole.bos_id(), "eos": whole.eos_id(), "pad": whole.pad_id()}
        super().__init__(
            whole.get_piece_size(), {n: i if i >= 0 else None for n, i in own.items()}, needs
        )
        self.model, self.unknown = model, whole.unk_id()
        # The sign that stands for a space inside SentencePiece would be read back as one.
        self._space_sign = [whole.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_SIGN.encode()]
        if not all(map(whole.is_byte, self._space_sign)):
            self._space_sign = []

    def id_of(self, name: str) -> int | None:
        """The piece of this name."""
        found = self._whole.piece_to_id(name)
        return None if found == self._whole.unk_id() else found

    def _encode(self, text, start):
        return self._with(self._whole, text, start)

    def _encode_piece(self, text, start):
        return self._with(self._first, text, start)

    def _with(self, first, text: str, start: bool) -> list[int]:
        """Ids by `first` where a document starts; the sign for a space as its bytes."""
        parts = text.split(SPACE_SIGN) if self._space_sign else [text]
        ids = (first if start else self._rest).encode(parts[0])
        for part in parts[1:]:
            ids += [*self._space_sign, *self._rest.encode(part)]
        return ids

    def _decode(self, ids, start):
        return (self._first if start else self._rest).decode(list(ids))

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
        last resort, so that every text goes through unchanged. A loaded one changes what its
        normaliser changes, and without byte pieces it reads U+2581 as a space.
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

        def read(text: str) -> tokenizers.Tokenizer:
            found = tokenizers.Tokenizer.from_str(text)
            found.no_padding()
            found.no_truncation()
            found.encode_special_tokens = True  # their names in a text are ordinary text
            return found

        try:
            self._tokenizer = read(text)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(str(error).splitlines()[0]) from error
        first, rest = as_it_stands(text, prefix=True), as_it_stands(text, prefix=False)
        self._first = read(first) if first else self._tokenizer
        self._rest = read(rest) if rest else self._tokenizer
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
        unknown = _unknown(text)
        self.unknown = vocabulary.get(unknown) if isinstance(unknown, str) else unknown
        self._drops = self.unknown is None and drops_unknown(text)
        self._control = {vocabulary[t] for t in specials.values()}
        whole = lambda i: self._plain([i]).strip() and NO_TEXT not in self._plain([i])
        self._anchor = next((i for i in range(base) if whole(i)), None)
        # A byte-level decoder leaves the space that its pre-tokenizer put before the first word.
        self._prefixed = adds_prefix(text)

    def _plain(self, ids) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def lost(self, text: str) -> int:
        """What a model without an unknown token and without bytes leaves out in silence."""
        if not self._drops:
            return 0
        letters = lambda text: collections.Counter("".join(text.casefold().split()))
        return (letters(text) - letters(self._plain(self.encode(text)))).total()

    def id_of(self, name: str) -> int | None:
        """The token of this name, added or of the vocabulary."""
        return self._tokenizer.token_to_id(name)

    def _encode(self, text, start):
        return self._with(self._tokenizer, text, start)

    def _encode_piece(self, text, start):
        return self._with(self._first, text, start)

    def _with(self, first, text: str, start: bool) -> list[int]:
        """Ids by `first` where a document starts; without bos, eos and pad, whatever the text."""
        ids = self._ids(first if start else self._rest, text)
        if self._control.isdisjoint(ids):
            return ids
        ids = []  # a name that the file does not mark as special is cut after its first character
        for number, part in enumerate(cut(text, self.specials.values())):
            own = first if start and not number else self._rest
            ids += self._ids(own, part)
        return ids

    def _ids(self, own, text: str) -> list[int]:
        try:
            return own.encode(text, add_special_tokens=False).ids
        except Exception as error:  # as above: a file may name an unknown token that it lacks
            raise UserError(f"the tokenizer file cannot encode this text: {error}") from error

    def _decode(self, ids, start):
        if start or self._anchor is None:
            text = self._plain(ids)
            return text[1:] if start and self._prefixed and text[:1] == " " else text
        # Decoders strip the space before the first token; here another token stands before it.
        return self._plain([self._anchor, *ids])[len(self._plain([self._anchor])) :]

    def _state(self):
        return {"specials": self.specials}

    def _files(self):
        return {_JSON_FILE: self.text.encode()}

    @classmethod
    def _restore(cls, state, files, needs):
        return cls(files(_JSON_FILE).decode(), state["specials"], needs)


def _unknown(text: str) -> str | int | None:
    """Name or id of the token for what the file's model does not know."""
    model = json.loads(text).get("model") or {}
    return model.get("unk_id", model.get("unk_token"))


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
