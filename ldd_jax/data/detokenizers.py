"""Text as people write it from the spaced-out forms of old benchmarks; pinned, by name.

Which spaces stand in a text changes its likelihood under a model of ordinary text. The forms are
those of the Penn treebank, WikiText, LM1B, LAMBADA and the arXiv and PubMed papers, as the
zero-shot tables of GPT-2, SEDD and MDLM undo them; written from what they do, not equal to any to
the byte. A rule that changes a result gets a new `VERSION`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

VERSION = 1


def none(text: str) -> str:
    """The text as it is."""
    return text


def _closed(text: str) -> str:
    """No space before closing marks, none after opening ones, none inside a pair of quotes."""
    text = re.sub(r" +([.,;:!?%)\]}])", r"\1", text)
    text = re.sub(r"([(\[{]) +", r"\1", text)
    return re.sub(r'"([^"]*)"', lambda pair: f'"{pair[1].strip(" ")}"', text)


def _joined(text: str) -> str:
    """Clitics to the word before: do n't, it 's, we 'll."""
    text = re.sub(r" n't\b", "n't", text)
    return re.sub(r" '(s|m|d|ll|re|ve)\b", r"'\1", text, flags=re.IGNORECASE)


def ptb(text: str) -> str:
    """Penn treebank: `do n't`, `the company 's`, `$ N`, and its signs for brackets."""
    for sign, mark in (("-lrb-", "("), ("-rrb-", ")"), ("-LRB-", "("), ("-RRB-", ")")):
        text = text.replace(sign, mark)
    text = text.replace("`` ", '"').replace(" ''", '"')
    text = re.sub(r"([$#]) (?=[\dN])", r"\1", text)
    return _closed(_joined(text)).strip(" ")


def wikitext(text: str) -> str:
    """WikiText: ` @-@ ` in words and numbers, spaced headings, marks and quotes."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r"(?<==) (?==)", "", text)
    text = re.sub(r" ' s\b", "'s", text)
    text = _closed(_joined(text))
    return re.sub(r"(?m)^ +| +$", "", text)


def lm1b(text: str) -> str:
    """One Billion Word: `" quoted "`, `it 's`, `10 % `, `$ 5`, `( so )`."""
    text = text.replace("http : / / ", "http://").replace("https : / / ", "https://")
    text = re.sub(r"([$£€#]) (?=\d)", r"\1", text)
    text = re.sub(r"(\d) ([,.:]) (?=\d)", r"\1\2", text)
    return _closed(_joined(text)).strip(" ")


def lambada(text: str) -> str:
    """LAMBADA: typographic quotes to plain ones, and every passage on a line of its own."""
    for sign, mark in (("\u201c", '"'), ("\u201d", '"'), ("\u2018", "'"), ("\u2019", "'")):
        text = text.replace(sign, mark)
    text = text.replace("``", '"').replace("''", '"')
    return "\n" + text.strip()


def scientific_papers(text: str) -> str:
    """ArXiv and PubMed: spaces before marks and within brackets; lines are sentences."""
    return _closed(re.sub(r" *\n *", " ", text)).strip(" ")


DETOKENIZERS: dict[str, Callable[[str], str]] = {
    f.__name__: f for f in (none, ptb, wikitext, lm1b, lambada, scientific_papers)
}
