"""Compiled programs kept from process to process, in the user's own cache folder.

What lies in the folder is machine code that will be run, so the folder is used only if nobody else
can write into it or put another in its place. Every entry carries its SHA-256 and is written beside
and renamed: a torn or damaged one is removed and compiled again. Whatever goes wrong with the
folder, a run goes on without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

from ldd_jax.core import writing
from ldd_jax.core.private import home, private

# Bytes of all entries; beyond them the least recently used ones go.
LIMIT = 512 << 20
# Shorter compilations are not worth a file.
SECONDS = 0.05
_SUFFIX, _PARTIAL = ".program", ".partial"
_DIGEST = hashlib.sha256().digest_size


def folder() -> Path | None:
    """`ldd_jax/programs` in XDG_CACHE_HOME, or in ~/.cache; None if neither is an absolute path."""
    place = home("XDG_CACHE_HOME", ".cache")
    return place / "programs" if place else None


def processor() -> str:
    """What tells processors apart that need different programs: a home may serve several."""
    flags = b""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as lines:
        flags = next((line for line in lines if line.startswith((b"flags", b"Features"))), b"")
    return hashlib.sha256(platform.machine().encode() + flags).hexdigest()


class Entries:
    """Programs by key, in files of one folder; reading never raises, nor does writing."""

    def __init__(self, place: Path, limit: int = LIMIT):
        self.place, self.limit, self.processor = place, limit, processor()

    def file(self, key: str) -> Path:
        """Where an entry lies; keys may be longer than file names."""
        name = hashlib.sha256(f"{self.processor} {key}".encode()).hexdigest()
        return self.place / (name + _SUFFIX)

    def get(self, key: str) -> bytes | None:
        """The program, or None; marks it as used."""
        path = self.file(key)
        try:
            stream = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            with open(stream, "rb") as file:
                found = os.fstat(file.fileno())
                ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
                whole = file.read() if ours and found.st_size <= self.limit else b""
            digest, program = whole[:_DIGEST], whole[_DIGEST:]
            if hashlib.sha256(program).digest() != digest:
                path.unlink()
                return None
            os.utime(path)
            return program
        except OSError:
            return None

    def put(self, key: str, program: bytes) -> None:
        """Keep a program, if there is room."""
        if len(program) + _DIGEST > self.limit:
            return
        with contextlib.suppress(OSError):
            self.trim(len(program) + _DIGEST)
            data = hashlib.sha256(program).digest() + program
            writing.write(self.file(key), data, fresh=0o600)

    def trim(self, room: int) -> None:
        """Remove what was used least recently, until there is room for so many bytes."""
        found = []
        with os.scandir(self.place) as entries:
            for entry in entries:
                if entry.name.endswith((_SUFFIX, _PARTIAL)):
                    with contextlib.suppress(OSError):  # another process removed it
                        about = entry.stat(follow_symlinks=False)
                        found.append((about.st_mtime_ns, about.st_size, entry.path))
        over = sum(size for _, size, _ in found) + room - self.limit
        for _, size, path in sorted(found):
            if over <= 0:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
                over -= size


_asked: list[bool] = []


def ask() -> None:
    """Have `apply` keep programs in this process; JAX is not imported."""
    _asked.append(True)


def apply() -> None:
    """Keep programs if that was asked for; called wherever programs are about to be made."""
    if _asked:
        _asked.clear()
        keep_programs()


def keep_programs() -> Path | None:
    """Keep what this process compiles, and use what others of this user did; None = not.

    A cache that was chosen for JAX itself (JAX_COMPILATION_CACHE_DIR, or switched off) stays.
    """
    import jax

    asked = jax.config.values
    if asked["jax_compilation_cache_dir"] or not asked["jax_enable_compilation_cache"]:
        return None
    chosen = folder()
    place = private(chosen) if chosen else None
    if place is None or not _install(place):
        return None
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # they check nothing
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    return place


@contextlib.contextmanager
def unkept() -> Iterator[None]:
    """Compile anew, and keep nothing: where the compilation itself is measured.

    A program for a slice that is not here could not be read back either; JAX keeps it all the same,
    and warns when it meets it again.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    name = "jax_enable_compilation_cache"
    before = jax.config.values[name]
    jax.config.update(name, False)
    compilation_cache.reset_cache()  # JAX decides once whether it keeps programs
    try:
        yield
    finally:
        jax.config.update(name, before)
        compilation_cache.reset_cache()


def _install(place: Path) -> bool:
    """Have JAX read and write `Entries`; False where this version of JAX gives no way to."""
    try:
        from jax._src import compilation_cache
        from jax._src.compilation_cache_interface import CacheInterface
    except ImportError:
        return False
    others = getattr(compilation_cache, "get_file_cache", None)
    if not callable(others):
        return False

    class Adapter(CacheInterface):
        """JAX's name for `Entries`."""

        def __init__(self):
            self._path, self.entries = place, Entries(place)

        def get(self, key: str) -> bytes | None:
            return self.entries.get(key)

        def put(self, key: str, value: bytes) -> None:
            self.entries.put(key, value)

    own = lambda path: (Adapter(), path) if path == str(place) else others(path)
    compilation_cache.get_file_cache = own  # type: ignore[assignment]
    return True
