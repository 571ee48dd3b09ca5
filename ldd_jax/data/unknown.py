"""Symbols that a tokenizer does not know: all become one token, which is easy to predict.

A number of such a text says little: it is stated everywhere, warned of, and refused where much of
the text is lost.
"""

from __future__ import annotations

from collections.abc import Iterable

from ldd_jax.core import console
from ldd_jax.core.checks import UserError
from ldd_jax.data.tokenizers import Tokenizer

WARN, REFUSE = 0.01, 0.2
ADVICE = "train with tokenizer=bytes, which knows every text"


def share(count: int, tokens: int) -> float:
    """`count` of `tokens`, or of more where lost signs are no tokens."""
    return min(count / max(tokens, 1), 1.0)


def told(share: float | None) -> str:
    """The share in words; None = not recorded."""
    return "unknown symbols not counted" if share is None else f"{share:.2%} unknown symbols"


def refuse(share: float | None, tokenizer: Tokenizer, what: str) -> None:
    """Refuse a text of which more than a fifth is unknown.

    Args:
      share: of its tokens that are unknown; None = not counted.
      tokenizer: that does not know them.
      what: the text, for the message.

    Raises:
      UserError: with the share and what to do.
    """
    if share is not None and share > REFUSE:
        raise UserError(
            f"{what}: {share:.0%} of its tokens are unknown to the {tokenizer.kind} tokenizer, "
            f"which makes one symbol of them all; {ADVICE}"
        )


def warning(share: float | None, tokenizer: Tokenizer, what: str) -> str:
    """A line if more than a hundredth is unknown, else "".

    Such a bound is lower than that of a text which is known.

    `share`, `tokenizer` and `what` are those of `refuse`.
    """
    if share is None or share <= WARN:
        return ""
    return (
        f"warning: {share:.1%} of the tokens of {what} are unknown to the {tokenizer.kind} "
        f"tokenizer, which makes one symbol of them all, easy to predict; {ADVICE}"
    )


def share_of(tokenizer: Tokenizer, ids: Iterable[int]) -> float:
    """Share of the ids that is the unknown one."""
    ids = list(ids)
    return sum(i == tokenizer.unknown for i in ids) / max(len(ids), 1)


def check(tokenizer: Tokenizer, ids: Iterable[int], what: str, lost: int = 0) -> None:
    """Refuse ids of a text of which too much is unknown, or warn of them on stderr.

    Args:
      tokenizer: of the ids.
      ids: the text.
      what: the text, in words.
      lost: further symbols of it that have no id.

    Raises:
      UserError: as `refuse`.
    """
    ids = list(ids)
    found = share(sum(i == tokenizer.unknown for i in ids) + lost, len(ids))
    refuse(found, tokenizer, what)
    if said := warning(found, tokenizer, what):
        console.say(f"ldd_jax: {said}", error=True)
