"""Workdirs from strangers for the fuzzer: configs, summaries, links and checkpoints in them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from ldd_jax.config import experiment as experiments
from ldd_jax.config import recipes, stored, workdir
from ldd_jax.core import outputs, reading, writing
from ldd_jax.core.checks import RunError, UserError
from ldd_jax.data import Bytes, find_tokenizer
from ldd_jax.interop import card
from ldd_jax.report import page
from ldd_jax.training import digests, sharding, state
from ldd_jax.training.checkpoints import Checkpoints
from ldd_jax.training.metrics import JsonLines
from tests.lab import first_params

Target = Callable[[bytes], object]
# What stands in a config where something else was expected.
ODD: list[Any] = [
    None, True, -1, 0, 2**31, 10**9, 10**40, 1.5, float("nan"), float("inf"), "", "x", "\ud800",
    "a\n\x1b[31m", [], [1], ["a", 2], {}, {"name": "x"}, {"name": []}, "9" * 50,
]  # fmt: skip
SMALL: dict[str, Any] = dict(width=8, depth=1, heads=1, cond_width=8)
# What a workdir holds, by the names that a link could take.
FILES = ("config.json", "lock", "metrics.jsonl", "summary.json", "report.html", "samples.jsonl",
         "tokenizer/tokenizer.json", "checkpoints/0/digests.json", "metrics.partial",
         ".config.json.partial", "config.json.partial", "report.html.partial")  # fmt: skip
FOLDERS = ("tokenizer", "checkpoints", "tensorboard", "damaged", "checkpoints/0")


def paths(tree: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every section and field of a config."""
    for name, value in tree.items():
        yield (*at, name)
        if isinstance(value, dict):
            yield from paths(value, (*at, name))


def odd(tree: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The tree with one or two fields as something of `ODD`."""
    changed = json.loads(json.dumps(tree))
    for _ in range(draw.randint(1, 2)):
        *nodes, leaf = draw.choice(list(paths(changed)))
        node = changed
        for name in nodes:
            node = node[name]
        node[leaf] = copy.deepcopy(draw.choice(ODD))  # a second change may go inside
    return changed


class Workdirs:
    """Targets over one workdir in `folder`; a target leaves it as it found it."""

    NAMES = (
        "configs that are built",
        "summaries and cards",
        "claims over links",
        "vocabularies",
        "recordings",
        "checkpoint folders",
    )

    def __init__(self, folder: Path):
        folder = folder.resolve()
        self.folder, self.outside = folder / "run", folder / "outside"
        self.outside.mkdir(parents=True)
        (self.outside / "file").write_text("private")
        config = recipes.make({"method": "lddm_m", "size": "tiny"}, data=dict(length=8),
                              model=SMALL)  # fmt: skip
        self.config, self.tokenizer = config, Bytes().fit(list)
        self.mesh = sharding.MeshShape().make()
        with writing.new_folder(self.folder) as draft:
            stored.save_config(config, draft)
            self.tokenizer.save(draft / "tokenizer")
        self.experiment = experiments.build(config, self.tokenizer, self.mesh)
        optimizer = self.experiment.update.optimizer
        self.like = state.abstract(self.experiment.model, optimizer, self.mesh).params
        self.vocabulary = folder / "vocabulary"
        self.vocabulary.mkdir()
        self.whole: dict[Path, bytes] = {}
        summary = dict(step=0, exact=False, nelbo_nats_per_token=1.0, nelbo_se=0.1, passes=1,
                       tokens=9, parameters=9, unigram_entropy=1.0)  # fmt: skip
        records = [summary, {"source": "a", "sha256": "0" * 64, "updates": 3}]
        words = {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[MASK]": 2}, "unk_token": "a"}
        arrays = io.BytesIO()
        np.savez(arrays, x=np.zeros((2, 3), np.int32), sigma=np.ones(2))
        links = [bytes([i + 17 * j, j, i ^ j]) for i in range(17) for j in range(6)]
        self.targets: dict[str, tuple[Target, list[bytes]]] = {
            "configs that are built": (
                self.configs,
                [json.dumps(config.to_dict()).encode()],
            ),
            "summaries and cards": (self.summaries, [json.dumps(r).encode() for r in records]),
            "claims over links": (self.links, links),
            "vocabularies": (self.words, [json.dumps({"version": "1.0", "model": words}).encode()]),
            "recordings": (self.arrays, [arrays.getvalue()]),
            "checkpoint folders": (self.checkpoints, [bytes([i, 1, 2, 3]) for i in range(40)]),
        }

    @contextlib.contextmanager
    def file(self, name: str, data: bytes) -> Iterator[Path]:
        """A file of the workdir that holds `data`, for the time of the block."""
        path = self.folder / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(data)
        try:
            yield path
        finally:
            if before is None:
                path.unlink()
            else:
                path.write_bytes(before)

    def configs(self, data: bytes) -> object:
        """The bytes as they are, or a whole config with an odd field or two that they choose."""
        if len(data) % 4:
            draw = random.Random(data)
            data = json.dumps(odd(self.config.to_dict(), draw)).encode()
        out = io.StringIO()
        with self.file("config.json", data), contextlib.redirect_stderr(out):
            config = stored.load_config(self.folder)
            built = experiments.build(config, self.tokenizer, experiments.fitting_mesh(config))
            stored.fingerprint(config)
            assert out.getvalue().count("\n") <= 1
        return built

    def summaries(self, data: bytes) -> object:
        with self.file("summary.json", data), self.file("import.json", data):
            text = card.text(self.experiment, self.folder, step=0, ema=True, names="own")
            assert text.replace("\n", "").isprintable()
            with self.file("metrics.jsonl", data):
                return page.read_run(self.folder)

    def words(self, data: bytes) -> object:
        (self.vocabulary / "tokenizer.json").write_bytes(data)
        found = find_tokenizer(self.vocabulary)
        return found.decode(found.encode("a b a"))

    def arrays(self, data: bytes) -> object:
        with self.file("r.npz", data) as path:
            try:
                return reading.read_npz(path)
            except (OSError, ValueError) as error:
                raise UserError(str(error)) from error

    def links(self, data: bytes) -> object:
        """Links, pipes and folders where files were; all writers run; nothing outside changes."""
        place = self.folder.with_name("linked")
        place.mkdir()
        try:
            for number in data[:6]:
                self._put(place, (*FILES, *FOLDERS)[number % 17], number // 17)
            if len(data) % 4 and not os.path.lexists(place / "config.json"):
                stored.save_config(self.config, place)
            with mock.patch("os.fsync"):  # the disk is not what is tried here
                refused = self._write(place)
        finally:
            shutil.rmtree(place)
        assert (self.outside / "file").read_text() == "private"
        assert [p.name for p in self.outside.iterdir()] == ["file"]
        if refused:
            raise UserError(refused)
        return None

    def _put(self, place: Path, name: str, kind: int) -> None:
        path = place / name
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: a link to itself
            if not path.parent.resolve().is_relative_to(place) or os.path.lexists(path):
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            goal = self.outside if name in FOLDERS else self.outside / "file"
            match kind % 6:
                case 0 | 1:
                    path.symlink_to(goal)
                case 2:
                    path.symlink_to(self.outside / "new")
                case 3:
                    os.mkfifo(path)
                case 4:
                    path.mkdir()
                case _:
                    path.symlink_to(path)

    def _write(self, place: Path) -> str:
        """Every writer of a run; why the last of them that refused did."""
        said = ""

        def attempt(write: Callable[[], object]) -> None:
            nonlocal said
            try:
                write()
            except (UserError, RunError, OSError) as error:
                said = str(error) or type(error).__name__

        def metrics() -> None:
            lines = JsonLines(place / "metrics.jsonl", 0)
            lines.write(1, {"loss": 1.0})
            lines.close()

        def report() -> None:
            with outputs.place("", place / "report.html").open() as stream:
                stream.write("page")

        def claim() -> None:
            with contextlib.ExitStack() as held:
                workdir.claim(place, self.config, self.tokenizer, held)

        def folders() -> None:
            writing.subfolder(place / "tensorboard")
            writing.refuse_links([place / "checkpoints"])
            digests.write(place / "checkpoints")

        for write in (claim, metrics, report, folders):
            attempt(write)
        attempt(lambda: stored.save_config(self.config, place))
        attempt(lambda: writing.write(place / "summary.json", "{}"))
        return said

    def checkpoints(self, data: bytes) -> object:
        """A file of a checkpoint cut, emptied, changed or gone, with digests that fit."""
        if not self.whole:
            self._save()
        folder = self.folder / "checkpoints" / "0"
        files = sorted(self.whole)
        path = files[data[0] % len(files)] if data else files[0]
        good = self.whole[path]
        at = int.from_bytes(data[1:3] or b"\0", "little") % (len(good) + 1)
        path.write_bytes(good[:at] + data[3:] + (good[at + 1 :] if len(data) % 2 else b""))
        digests.write(folder)
        try:
            return Checkpoints(self.folder, read_only=True).restore_params(self.like, ema=True)
        finally:
            path.write_bytes(good)

    def _save(self) -> None:
        import jax

        params = first_params(self.experiment.model, jax.random.key(0))
        saver = Checkpoints(self.folder, keep=1)
        saver.save_parameters(0, params, params, {"step": 0})
        saver.close()
        folder = self.folder / "checkpoints" / "0"
        files = [p for p in folder.rglob("*") if p.is_file() and p.name != digests.FILE]
        self.whole = {p: p.read_bytes() for p in files}
