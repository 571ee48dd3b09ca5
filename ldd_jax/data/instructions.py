"""Prompts and the answers to them, as JSON lines, Parquet or TFDS give them."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable

import numpy as np

from ldd_jax.core.checks import nearest, require
from ldd_jax.core.registry import register
from ldd_jax.data import unknown
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.packing import MOST_PADDING, token_dtype
from ldd_jax.data.prepared import is_prepared
from ldd_jax.data.prompted import PromptedRows, scored_counts
from ldd_jax.data.sources import open_source
from ldd_jax.data.splits import Divided, document_hash, fingerprint
from ldd_jax.data.text import TextData
from ldd_jax.data.tokenizers import Tokenizer

Pairs = list[tuple[str, str]]
LONG = ("drop", "refuse")
PLACE = "{prompt}"


@register("data", "instructions")
@dataclasses.dataclass(frozen=True, kw_only=True)
class InstructionData(TextData):
    """Rows prompt | response EOS | padding, of which response and EOS are learned.

    The bound of a row is that of -log p(response | prompt). Equal prompts lie on one side of the
    split. pad="eos_in_loss" is LLaDA's fine-tuning (arXiv 2502.09992, section 2.3): EOS fills the
    row and is learned, so that a sample says where it ends.

    Attributes:
      path: JSON lines, Parquet or TFDS, see `sources.open_source`.
      field: key, column or feature that holds the response.
      prompt_field: that of the prompt.
      template: what the network reads, with {prompt} where the prompt stands; `sample --prompt`
        puts its text there too.
      long: what becomes of a pair that fits no row: "drop" (the corpus line counts them) or
        "refuse".
    """

    path: str = ""
    field: str = "response"
    prompt_field: str = "prompt"
    template: str = PLACE
    long: str = "drop"
    mode: str = "padded"
    pad: str = "eos_in_loss"

    def __post_init__(self):
        if self.template.count(PLACE) != 1:
            raise ValueError(
                f"template is {self.template!r}; it must hold {PLACE} once (a template in jinja is "
                f"not run: write what it makes of a prompt, with {PLACE} in its place)"
            )
        if self.long not in LONG:
            raise ValueError(f"long={self.long!r}; {nearest(self.long, LONG)}")
        if self.mode != "padded" or not self.eos:
            raise ValueError(
                "a pair is a row of its own with an EOS: data.mode=padded, data.eos=True"
            )
        super().__post_init__()

    def check(self) -> None:
        """Refuse paths that are not there; no document is read.

        Raises:
          UserError: naming the path.
        """
        require(bool(self.path), "data.path is empty; give JSON lines with prompt and response")
        require(not is_prepared(self.path), f"{self.path} is prepared and holds no prompts")
        super().check()

    def divide(self) -> Divided:
        """Refused: prepared folders hold no prompts."""
        require(False, "prompts and responses are read as they are; 'prepare' does not apply")
        raise AssertionError

    def load(self, tokenizer: Tokenizer | None = None, *, verify: bool | None = None) -> Corpus:
        """Read, split by the hash of the prompt (or take `validation_path`), tokenise.

        Raises:
          UserError: for anything that cannot be read, or a split without a pair that fits.
        """
        del verify
        self.check()
        pairs, note = self._split()
        tokenizer = tokenizer or self.tokenizer.fit(
            lambda: itertools.chain.from_iterable(map(self._read_as, pairs["train"])),
            needs=self.layout.needs,
        )
        rows = {split: self._rows(split, found, tokenizer) for split, found in pairs.items()}
        return self._corpus(tokenizer, pairs, rows["train"], rows["validation"], note)

    def whole(self, tokenizer: Tokenizer) -> Corpus:
        """All pairs of the path; see `TextData.whole`."""
        self.check()
        pairs = self._read(self.path)
        rows = self._rows("whole", pairs, tokenizer)
        return self._corpus(tokenizer, {"whole": pairs}, rows, rows, "read whole")

    def _corpus(
        self,
        tokenizer: Tokenizer,
        pairs: dict[str, Pairs],
        train: PromptedRows,
        held: PromptedRows,
        note: str,
    ) -> Corpus:
        texts = itertools.chain.from_iterable(itertools.chain.from_iterable(pairs.values()))
        text = self.template + fingerprint(texts)
        left = (
            sum(map(len, pairs.values())) - train.documents - (held.documents * (train is not held))
        )
        return Corpus(
            tokenizer=tokenizer,
            train=train,
            validation=held,
            layout=self.layout,
            fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16],
            source=self.path,
            note=note + (f"; {left:,} pairs too long for a row are left out" if left else ""),
        )

    def _read(self, path: str) -> Pairs:
        columns = (
            open_source(path, field=name, split=self.split).train()
            for name in (self.prompt_field, self.field)
        )
        found: Iterable[tuple[str, str]] = zip(*columns, strict=True)
        pairs = list(itertools.islice(found, self.max_documents or None))
        require(bool(pairs), f"{path} holds no pair")
        return pairs

    def _read_as(self, pair: tuple[str, str]) -> tuple[str, str]:
        """What the network reads: the prompt in its template, and the response."""
        return self.template.replace(PLACE, pair[0]), pair[1]

    def _split(self) -> tuple[dict[str, Pairs], str]:
        found = self._read(self.path)
        if self.validation_path:
            held = self._read(self.validation_path)
            return {"train": found, "validation": held}, f"validation from {self.validation_path}"
        limit = int(self.validation_fraction * 2**64)
        pairs: dict[str, Pairs] = {"train": [], "validation": []}
        for prompt, response in found:
            side = "validation" if document_hash(prompt) < limit else "train"
            pairs[side].append((prompt, response))
        return pairs, f"validation by prompt hash, fraction {self.validation_fraction:.3g}"

    def _rows(self, split: str, pairs: Pairs, tokenizer: Tokenizer) -> PromptedRows:
        layout = self.layout
        for name in layout.needs:
            require(getattr(tokenizer, name) is not None, f"the tokenizer has no {name} token")
        require(
            len(pairs) * layout.length <= MOST_PADDING,
            f"{len(pairs):,} pairs in rows of {layout.length} tokens are mostly padding; give a "
            "smaller data.length",
        )
        learned = layout.pad == "eos_in_loss"
        fill = tokenizer.eos if learned else tokenizer.pad
        tokens = np.full((len(pairs), layout.length), fill, token_dtype(tokenizer.size))
        prompt, filled = np.zeros((2, len(pairs)), np.int32)
        count = total = lost = longest = 0
        for asked, answer in map(self._read_as, pairs):
            head = [*([tokenizer.bos] * layout.bos), *tokenizer.encode(asked)]
            ids = [*head, *tokenizer.encode(answer), tokenizer.eos]
            longest = max(longest, len(ids))
            if len(ids) > layout.length:
                require(
                    self.long == "drop",
                    f"{self.path}: the prompt {asked[:40]!r} and its response have {len(ids)} "
                    f"tokens, but a row has {layout.length}; raise data.length, or data.long=drop",
                )
                continue
            tokens[count, : len(ids)] = ids
            prompt[count] = len(head)
            filled[count] = layout.length if learned else len(ids)
            total += len(ids)
            lost += tokenizer.lost(asked) + tokenizer.lost(answer)
            lost += ids.count(-1 if tokenizer.unknown is None else tokenizer.unknown)
            count += 1
        advice = {"validation": "raise data.validation_fraction or give data.validation_path"}.get(
            split, f"raise data.length (the longest has {longest} tokens)"
        )
        require(
            count > 0,
            f"the {split} split of {self.path} has no pair for a row of length={layout.length}; "
            f"{advice}",
        )
        what = f"the {split} split of {self.path}"
        unknown.refuse(unknown.share(lost, total), tokenizer, what)
        tokens, prompt, filled = tokens[:count], prompt[:count], filled[:count]
        return PromptedRows(
            tokens=tokens,
            prompt=prompt,
            filled=filled,
            segments=layout.has_segments,
            documents=count,
            token_count=total,
            counts=scored_counts(tokens, prompt, filled, tokenizer.size),
            unknown=lost,
        )
