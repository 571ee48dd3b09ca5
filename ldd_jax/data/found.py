"""The tokenizer in a file or folder, of whatever library, recognised by what is there."""

from __future__ import annotations

from pathlib import Path

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, require
from ldd_jax.core.storage import at, local
from ldd_jax.data.json_vocabulary import Json
from ldd_jax.data.sentencepieces import SentencePiece
from ldd_jax.data.tokenizers import Tokenizer, is_ours, load_tokenizer


def find_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer as it is, without added special tokens.

    Args:
      path: a folder with one of: a tokenizer that this library saved, `tokenizer.json` of the
        tokenizers library, `vocab.json` and `merges.txt` (GPT-2), `vocab.txt` (BERT), or a
        SentencePiece `*.model`; or one of these files (`merges.txt` then stands beside).

    Raises:
      UserError: if there is none.
    """
    path = at(path).expanduser()
    require(path.exists(), f"no tokenizer at {path}: no such file or folder")
    path = local(path)
    folder, names = (path, None) if path.is_dir() else (path.parent, {path.name})
    there = lambda name: (folder / name).is_file() and (names is None or name in names)
    if there("tokenizer.json") and is_ours(folder / "tokenizer.json"):
        return load_tokenizer(folder)
    if there("tokenizer.json"):
        return Json(path=str(folder / "tokenizer.json")).fit(lambda: (), needs=())
    if there("vocab.json") or there("merges.txt"):
        return _gpt2(folder)
    if there("vocab.txt"):
        return _bert(folder / "vocab.txt")
    models = [path] if names else sorted(path.glob("*.model"))
    require(
        len(models) == 1,
        f"{path} holds no tokenizer, or several; expected tokenizer.json, vocab.json with "
        "merges.txt, vocab.txt or one *.model",
    )
    if models[0].suffix == ".json":
        return Json(path=str(models[0])).fit(lambda: (), needs=())
    return SentencePiece(model=str(models[0])).fit(lambda: (), needs=())


def _gpt2(folder: Path) -> Tokenizer:
    """Byte-level BPE from vocab.json and merges.txt."""
    import tokenizers

    files = [folder / "vocab.json", folder / "merges.txt"]
    for file in files:
        require(file.is_file(), f"{file} is missing; GPT-2 needs vocab.json and merges.txt")
    try:
        found = tokenizers.ByteLevelBPETokenizer(*map(str, files))
        known = reading.read_json(files[0], reading.LARGEST_VOCABULARY)
        found.add_special_tokens([t for t in known if t.startswith("<|") and t.endswith("|>")])
        text = found.to_str()
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{folder} holds no readable GPT-2 vocabulary: {error}") from error
    return Json(path=str(folder)).of(text, needs=())


def _bert(file: Path) -> Tokenizer:
    """WordPiece, in lower case unless the vocabulary holds capitals."""
    import tokenizers

    try:
        words = reading.read_text(file, reading.LARGEST_VOCABULARY).splitlines()
        cased = any(w.isalpha() and not w.islower() and w.isascii() for w in words)
        found = tokenizers.BertWordPieceTokenizer(str(file), lowercase=not cased)
        found.add_special_tokens([w for w in words if w[:1] == "[" and w[1:-1].isupper()])
        text = found.to_str()
    except Exception as error:
        raise UserError(f"{file} is no readable WordPiece vocabulary: {error}") from error
    return Json(path=str(file)).of(text, needs=())
