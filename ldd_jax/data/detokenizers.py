"""Text nearer to what people write, from the spaced-out forms of old benchmarks; pinned, by name.

Which spaces stand in a text changes its likelihood under a model of ordinary text, so a number can
stand beside those of the published zero-shot tables only if it undoes what they undo: the forms of
Megatron-LM as SEDD, MDLM, Duo and LDDM use them. Each here is the same function of a text, flaws
included: `N` becomes 1 and `<unk>` a question mark in the Penn treebank, apostrophes are taken for
quotation marks in WikiText, LM1B keeps every other space before a full stop where one-word
sentences follow each other. A rule that changes a result gets a new `VERSION`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

VERSION = 2

Rule = tuple[str | re.Pattern[str], str]  # what is replaced everywhere, in turn, and by what


def _undone(text: str, rules: tuple[Rule, ...]) -> str:
    for old, new in rules:
        text = text.replace(old, new) if isinstance(old, str) else old.sub(new, text)
    return text


def _after_words(marks: str) -> tuple[Rule, ...]:
    """No space before a mark that a space follows."""
    return tuple((f" {mark} ", f"{mark} ") for mark in marks)


def _within(between: str, *pairs: str) -> tuple[Rule, ...]:
    """A pair of marks keeps group 1 of what stands between them; CLOSE and BOTH are its marks."""
    rules = []
    for pair in pairs:
        first, last = map(re.escape, pair)
        inner = between.replace("CLOSE", last).replace("BOTH", first + last)
        rules.append((re.compile(first + inner + last), rf"{pair[0]}\1{pair[1]}"))
    return tuple(rules)


PTB: tuple[Rule, ...] = (
    (" 's", "'s"),
    ("s ' ", "s' "),
    (" n't", "n't"),
    (" \n ", "\n"),
    (r"\/", "/"),
    (re.compile("(?<= )N(?= )"), "1"),
    ("$ 1", "$1"),
    ("# 1", "#1"),
    ("<unk>", "?"),
)
WIKITEXT: tuple[Rule, ...] = (
    ("s '", "s'"),
    *((f" @{mark}@ ", mark) for mark in "-,."),
    *_after_words(":;.!?,"),
    *_within(r"\s*([^CLOSE]*?)\s*", "()", "[]", "{}", '""', "''"),
    *((" ".join("=" * count), "=" * count) for count in (4, 3, 2)),
    (" \N{DEGREE SIGN} ", "\N{DEGREE SIGN}"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)
LM1B: tuple[Rule, ...] = (
    *((f"{scheme} : / / ", f"{scheme}://") for scheme in ("http", "https")),
    (re.compile(r" '(?=\w)"), "'"),
    *((re.compile(rf" (\w+) \.{end}"), rf" \1.{end.strip('$')}") for end in (" ", "$")),
    *_after_words("?"),
    (re.compile(r" \?$"), "?"),
    *_after_words("!"),
    (re.compile(r" !$"), "!"),
    *_after_words(",:;"),
    (" / ", "/"),
    *_within(" ([^BOTH]+) ", '""', "''", "()", "[]"),
    *((f"{sign} ", sign) for sign in "$\N{POUND SIGN}"),
)


def none(text: str) -> str:
    """The text as it is."""
    return text


def ptb(text: str) -> str:
    """Penn treebank: `it 's`, `did n't`, `$ N million`, `<unk>`."""
    return _undone(text, PTB)


def wikitext(text: str) -> str:
    """WikiText: ` @-@ ` in words and numbers, spaced headings, marks, brackets and quotes."""
    return _undone(text, WIKITEXT)


def lm1b(text: str) -> str:
    """One Billion Word: `" quoted "`, `it 's`, `$ 5`, `( so )`."""
    return _undone(text, LM1B)


def lambada(text: str) -> str:
    """LAMBADA: typographic quotation marks to plain ones, and every passage on its own line."""
    return "\n" + text.replace("\u201c", '"').replace("\u201d", '"').strip()


def scientific_papers(text: str) -> str:
    """ArXiv and PubMed: what WikiText undoes, then what LM1B does."""
    return lm1b(wikitext(text))


DETOKENIZERS: dict[str, Callable[[str], str]] = {
    f.__name__: f for f in (none, ptb, wikitext, lm1b, lambada, scientific_papers)
}
