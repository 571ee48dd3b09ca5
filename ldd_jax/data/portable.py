"""Tokenizers of single signs as files of the `tokenizers` library, which others read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def byte_signs() -> list[str]:
    """The sign of each byte in GPT-2's byte-level vocabularies, by byte.

    A byte that Latin-1 prints stands for itself; the others, in order, are the signs from U+0100
    on (Radford et al. 2019, the released vocabulary).
    """
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [b for b in range(256) if b not in printed]
    return [chr(b if b in printed else 256 + others.index(b)) for b in range(256)]


def of_signs(
    signs: Sequence[str],
    specials: Mapping[str, int],
    *,
    bytewise: bool = False,
    unknown: int | None = None,
    lowercase: bool = False,
) -> bytes:
    """A tokenizer.json that gives each sign of a text its place in `signs`.

    Args:
      signs: distinct; with `bytewise` those of `byte_signs`.
      specials: ids of "bos", "eos" and "pad", as far as there are any.
      bytewise: the text's UTF-8 is read byte by byte.
      unknown: id of any other sign; None = there is none.
      lowercase: the text is folded first, sign by sign.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    ids = {sign: i for i, sign in enumerate(signs)}
    name = None
    if unknown is not None:
        name = "<unk>" if "\ufffd" in ids else "\ufffd"
        ids[name] = unknown
    ids |= {f"<{special}>": i for special, i in specials.items()}
    made = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token=name, fuse_unk=False))
    if lowercase:
        made.normalizer = normalizers.Lowercase()
    if bytewise:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
    else:
        made.decoder = decoders.Fuse()
    control = [f"<{special}>" for special in specials]
    made.add_special_tokens([AddedToken(text, normalized=False) for text in control])
    return made.to_str().encode()
