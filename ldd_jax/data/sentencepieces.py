"""SentencePiece (Kudo and Richardson 2018, arXiv 1808.06226): a model loaded, or trained."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Collection, Iterator

from ldd_jax.core.checks import UserError, nearest
from ldd_jax.core.registry import register
from ldd_jax.data.tokenizers import Documents, Tokenizer, file_bytes, saved_as

_MODEL_FILE = "sentencepiece.model"
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

    def shared(self):
        """The model itself."""
        return {"tokenizer.model": self.model}

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
            data = file_bytes(self.model, "SentencePiece model")
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
