"""What a user says of a checkpoint, as its tensors cannot tell it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ldd_jax.core.checks import require
from ldd_jax.core.registry import find, parse
from ldd_jax.data import Tokenizer, find_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """What tensors cannot tell; empty = as the file says, else as the method is published.

    method: a registered one; tokenizer: a file or folder, empty = ids; heads: where no
    rotary buffer tells them; mask: id of the mask, -1 = the last state, or the tokenizer's own
    [MASK]; mask_token: its name in the tokenizer instead; time: "on" or "off"; schedule: as
    NAME:field=value,...; length: tokens of a sample; data: text of `evaluate`; recording: an .npz
    of recorded outputs (`interop.recorded`).
    """

    method: str = ""
    tokenizer: str = ""
    heads: int = 0
    mask: int = -1
    mask_token: str = ""
    time: str = ""
    schedule: str = ""
    length: int = 0
    data: str = ""
    recording: str = ""

    def check(self) -> None:
        """Refuse what is wrong whatever the checkpoint holds, before it is read.

        Raises:
          UserError: for an unknown method or schedule, or a file that is not there.
        """
        if self.method:
            find("method", self.method)
        if self.schedule:
            parse("schedule", self.schedule)
        if self.tokenizer:
            find_tokenizer(self.tokenizer)
        if self.recording:
            found = Path(self.recording).is_file()
            require(found, f"cannot read the recording {self.recording}: no such file")

    def resolved(self, tokenizer: Tokenizer) -> Choices:
        """With the id of the mask in the place of its name.

        Raises:
          UserError: if the tokenizer has no such token.
        """
        if not self.mask_token:
            return self
        found = tokenizer.id_of(self.mask_token)
        require(found is not None, f"--mask={self.mask_token}: the tokenizer has no such token")
        assert found is not None
        return dataclasses.replace(self, mask=found, mask_token="")
