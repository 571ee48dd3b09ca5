"""Any file of the `tokenizers` library, such as GPT-2's, BERT's or Llama's tokenizer.json."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Collection
from typing import Any

from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.registry import register
from ldd_jax.data.spaces import adds_prefix, as_it_stands, cut, drops_unknown
from ldd_jax.data.tokenizers import (
    NO_TEXT,
    Documents,
    Tokenizer,
    check_unicode,
    file_bytes,
    saved_as,
)

_JSON_FILE = "vocabulary.json"
_WELL_KNOWN = {
    "bos": ("<s>", "[CLS]", "<bos>", "<|startoftext|>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos": ("</s>", "[SEP]", "<eos>", "<|endoftext|>", "<|end_of_text|>"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
}
_GAPS = 10_000  # numbers that a file may leave out, beside as many as it uses


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

    apart = True

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

    def name_of(self, number: int) -> str | None:
        """The token of this id."""
        return self._tokenizer.id_to_token(number)

    def _encode(self, text, start):
        return self._with(self._tokenizer, text, start)

    def encode_batch(self, texts):
        """As `encode` of each; the library does them side by side."""
        for text in texts:
            check_unicode(text)
        try:
            found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # as in `_ids`
            raise UserError(f"the tokenizer file cannot encode this text: {error}") from error
        ids = [f.ids for f in found]
        # Control tokens are few, and so are texts with their names.
        return [
            i if self._control.isdisjoint(i) else self.encode(t)
            for i, t in zip(ids, texts, strict=True)
        ]

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

    def shared(self):
        """The file itself."""
        return {"tokenizer.json": self.text.encode()}

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
        return self.of(file_bytes(self.path, "tokenizer"), needs)

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
