"""Text to token ids and back: the run-time `Tokenizer`, saved with a run and loaded from there.

A config (`Bytes` and `Characters` in `characters`, `SentencePiece` in `sentencepieces`, `Json` in
`json_vocabulary`) is fitted on documents once; afterwards a run reads its saved tokenizer, so that
it keeps its alphabet.
None of them holds a mask state: the diffusion process adds its own, as id `size`.
"""

from __future__ import annotations

import abc
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ldd_jax.core import reading, writing
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.storage import at

MASK_TEXT = "[MASK]"
# An id that no text has: of a state that the process has and the tokenizer has not.
NO_TEXT = "\ufffd"
# As the mask of `decode`: whatever id is past the tokenizer's.
PAST = -1
_FORMAT, _VERSION, _FILE = "ldd_jax.tokenizer", 1, "tokenizer.json"
_SPECIALS = ("bos", "eos", "pad")
LARGEST = 1 << 24  # ids; arrays over all of them are made
_KEYS = {"format", "version", "kind", "size", "appended", "files", "state"}

Documents = Callable[[], Iterable[str]]
"""A function that starts a fresh pass over the documents."""


class Tokenizer(abc.ABC):
    """Token ids of a text; `size` ids in all, of which `bos`, `eos` and `pad` may be None.

    `unknown` is the id of everything that it does not know, None if it knows every text.

    Args:
      base: number of ids of the underlying vocabulary.
      specials: ids of bos, eos and pad the vocabulary has by itself (absent = None).
      needs: specials the caller needs; those the vocabulary lacks get ids from `base` on.
    """

    kind: ClassVar[str]
    unknown: int | None = None
    apart: ClassVar[bool] = False
    """Whether `encode_batch` works outside of Python, beside it and on all cores."""

    def __init__(
        self,
        base: int,
        specials: Mapping[str, int | None] | None = None,
        needs: Collection[str] = (),
    ):
        if not 1 <= base <= LARGEST:
            raise ValueError(f"it has {base:,} ids; 1 to {LARGEST:,} are read")
        unknown = sorted(set(needs) - set(_SPECIALS))
        if unknown:
            raise ValueError(f"unknown special tokens {unknown}; {nearest(unknown[0], _SPECIALS)}")
        ids = {name: (specials or {}).get(name) for name in _SPECIALS}
        size = base
        for name in _SPECIALS:
            if ids[name] is None and name in needs:
                ids[name], size = size, size + 1
        self.base, self.size = base, size
        self.bos, self.eos, self.pad = (ids[name] for name in _SPECIALS)

    @abc.abstractmethod
    def _encode(self, text: str, start: bool) -> list[int]:
        """Ids of a text that stands at the start of a document or continues one.

        None of them is a bos, eos or pad: names of special tokens in a text are ordinary text.
        """

    def _encode_piece(self, text: str, start: bool) -> list[int]:
        """The same of a text that goes on: its spaces count, the last ones too."""
        return self._encode(text, start)

    @abc.abstractmethod
    def _decode(self, ids: Sequence[int], start: bool) -> str:
        """Text of ordinary ids that start a text or continue one."""

    def lost(self, text: str) -> int:
        """Characters of a text of which no token is left, not even the unknown one."""
        del text
        return 0

    def id_of(self, name: str) -> int | None:
        """The id of the token that has this name, None if none has; a text never gives it."""
        del name
        return None

    @abc.abstractmethod
    def _state(self) -> dict[str, Any]:
        """What the JSON file holds of this kind."""

    def _files(self) -> dict[str, bytes]:
        """Files beside the JSON file, by name."""
        return {}

    def shared(self) -> dict[str, bytes]:
        """Files by which other libraries read the vocabulary, by name; none for some kinds."""
        return {}

    @classmethod
    @abc.abstractmethod
    def _restore(
        cls, state: dict[str, Any], files: Callable[[str], bytes], needs: Collection[str]
    ) -> Tokenizer:
        """The tokenizer that `_state` and `_files` described."""

    def encode(self, text: str, *, start: bool = True) -> list[int]:
        """Ids of `text`, which starts a document or continues one.

        No special tokens are added, and names of special tokens are ordinary text.

        Raises:
          UserError: for a text that is not Unicode (a byte of another encoding in an argument).
        """
        check_unicode(text)
        return self._encode(text, start)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts each of which starts a document; as `encode`, one after the other."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int], *, mask: int | None = PAST) -> str:
        """Text of `ids`: the mask reads "[MASK]", eos a newline, bos and pad nothing.

        Args:
          ids: tokens.
          mask: the process's mask, None = it has none; other ids from `size` on have no text and
            read U+FFFD. `PAST`: every id from `size` on is taken for the mask.

        Raises:
          UserError: for a negative id.
        """
        silent = {i for i in (self.bos, self.pad) if i is not None}
        out: list[str] = []
        run: list[int] = []
        start = True

        def flush() -> None:
            if run:
                out.append(self._decode(run, start))
                run.clear()

        for token in map(int, ids):
            require(token >= 0, f"token id {token} is negative")
            if token >= self.size or token == mask:
                flush()
                out.append(MASK_TEXT if mask in (PAST, token) else NO_TEXT)
                start = False
            elif token == self.eos:
                flush()
                out.append("\n")
                start = True
            elif token not in silent:
                run.append(token)
        flush()
        return "".join(out)

    def encode_template(self, text: str) -> tuple[list[int], list[bool]]:
        """Ids of a text with holes: each literal `[MASK]` is one free position.

        The text around the holes is encoded as it stands, spaces included.

        Returns:
          ids and free, of one length; the id at a free position is a placeholder (0).
        """
        if MASK_TEXT not in text:
            known = self.encode(text)
            return known, [False] * len(known)
        check_unicode(text)
        ids: list[int] = []
        free: list[bool] = []
        for number, piece in enumerate(text.split(MASK_TEXT)):
            if number:
                ids.append(0)
                free.append(True)
            known = self._encode_piece(piece, number == 0) if piece else []
            ids.extend(known)
            free.extend([False] * len(known))
        return ids, free

    @property
    def specials_by_name(self) -> dict[str, int]:
        """Ids of bos, eos and pad, as far as there are any."""
        return {n: i for n in _SPECIALS if (i := getattr(self, n)) is not None}

    @property
    def digest(self) -> str:
        """Sixteen hex digits that two tokenizers share only if they map text alike."""
        return hashlib.sha256(json.dumps(self._document(), sort_keys=True).encode()).hexdigest()[
            :16
        ]

    def _document(self) -> dict[str, Any]:
        """The JSON file's content."""
        appended = [n for n in _SPECIALS if (getattr(self, n) or 0) >= self.base]
        files = {name: hashlib.sha256(data).hexdigest() for name, data in self._files().items()}
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "kind": self.kind,
            "size": self.size,
            "appended": appended,
            "files": files,
            "state": self._state(),
        }

    def save(self, directory: str | os.PathLike) -> None:
        """Write the tokenizer into `directory` (made if absent); `load_tokenizer` reads it."""
        folder = at(directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self._files().items():
            writing.write(folder / name, data)
        text = json.dumps(self._document(), ensure_ascii=False, indent=1, sort_keys=True)
        writing.write(folder / _FILE, text)


def check_unicode(text: str) -> None:
    """Refuse a text that is not Unicode.

    Raises:
      UserError: saying where.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text {ascii(text[:40])} is not UTF-8 (character {error.start + 1}); give it in "
            "that encoding"
        ) from error


KINDS: dict[str, type[Tokenizer]] = {}


def saved_as(name: str):
    """Class decorator: `load_tokenizer` reads this kind."""

    def wrap(cls):
        cls.kind = name
        KINDS[name] = cls
        return cls

    return wrap


def is_ours(path: Path) -> bool:
    """Whether a JSON file was written by `Tokenizer.save`."""
    try:
        document = reading.read_json(path, reading.LARGEST_VOCABULARY)
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("format") == _FORMAT


def load_tokenizer(directory: str | os.PathLike) -> Tokenizer:
    """Read what `Tokenizer.save` wrote.

    Raises:
      UserError: if the folder holds no tokenizer of this library, one of another version, or one
        whose files were changed.
    """
    folder = at(directory)
    path = folder / _FILE
    try:
        document = reading.read_json(path, reading.LARGEST_VOCABULARY)
    except OSError as error:
        raise UserError(f"{folder} holds no tokenizer: cannot read {_FILE}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise UserError(
            f"{path} was not written by this library; to use a tokenizers-library file, set the "
            "tokenizer section to 'json' with its path"
        )
    version, kind = document.get("version"), document.get("kind")
    require(version == _VERSION, f"{path} has version {version!r}; this library reads {_VERSION}")
    if kind not in KINDS:
        raise UserError(f"{path} holds a tokenizer of kind {kind!r}; {nearest(str(kind), KINDS)}")

    if set(document) != _KEYS or not isinstance(document["files"], dict):
        raise UserError(f"{path} is damaged: it should hold {', '.join(sorted(_KEYS))}")

    def read(name: str) -> bytes:
        try:
            data = reading.read(folder / name, reading.LARGEST_VOCABULARY)
        except OSError as error:
            raise UserError(f"tokenizer file {folder / name} is missing") from error
        if hashlib.sha256(data).hexdigest() != document["files"].get(name):
            raise UserError(f"tokenizer file {folder / name} is not the one that was saved")
        return data

    try:
        tokenizer = KINDS[kind]._restore(document["state"], read, document["appended"])
        size = document["size"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    require(tokenizer.size == size, f"{path} says {size} ids but describes {tokenizer.size}")
    return tokenizer


def file_bytes(path: str, what: str) -> bytes:
    """The bytes of a file of a vocabulary.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        return reading.read(at(path).expanduser(), reading.LARGEST_VOCABULARY)
    except OSError as error:
        raise UserError(f"cannot read the {what} file {path}: {error.strerror}") from error
