"""The roll call: process 0 listens, the others call, all hear the same verdict.

Its lines are JSON. Who calls is unknown: a port scanner, another run, a stranger. A line has at
most a kilobyte and five seconds, callers are heard side by side, and with a token (a secret of the
run, see `distributed.TOKEN`) each side proves that it has it; the token itself is never sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import json
import selectors
import socket
import time
from typing import Any

from ldd_jax.core.checks import UserError, parse_json

LONGEST, PATIENCE, MOST = 1024, 5.0, 200
_LONGEST_VERDICT = 1 << 20


Met = tuple[list[int], str, dict[int, socket.socket]]


def host(address: tuple[str, int], count: int, limit: float, token: str) -> Met:
    """Process 0: hear the callers, send everyone the verdict.

    Args:
      address: where to listen, (host, port).
      count: processes of the run, this one among them.
      limit: seconds to wait for callers.
      token: secret of the run, which callers prove to know.

    Returns:
      The processes that never came, what else is known, and the open lines to those who came; of a
      call where somebody is missing there are none.

    Raises:
      UserError: if the port cannot be listened on.
    """
    with _listen(address, count) as server, contextlib.ExitStack() as open_lines:
        came, refused = _Listener(server, count, token, open_lines).hear(limit)
        missing = sorted(set(range(1, count)) - set(came))
        verdict = {"missing": missing, "proof": _proof(token, f"missing {missing}")}
        data = json.dumps(verdict).encode() + b"\n"
        for _, line in came.values():
            with contextlib.suppress(OSError):
                line.settimeout(PATIENCE)
                line.sendall(data)
        if not missing:
            open_lines.pop_all()
    present = "; ".join(f"{rank}: {name}" for rank, (name, _) in sorted(came.items()))
    turned = f"; {refused} callers turned away, without this run's token" if refused else ""
    lines = {} if missing else {rank: line for rank, (_, line) in came.items()}
    return missing, f" (present: 0; {present}{turned})", lines


class _Listener:
    """Hears all callers at once, each until its line ends or its time is over."""

    def __init__(self, server: socket.socket, count: int, token: str, lines: Any):
        self.server, self.count, self.token, self.lines = server, count, token, lines
        self.came: dict[int, tuple[str, socket.socket]] = {}
        self.heard: dict[socket.socket, tuple[float, bytearray, str]] = {}
        self.refused = 0
        self.waiting = selectors.DefaultSelector()

    def hear(self, limit: float) -> tuple[dict[int, tuple[str, socket.socket]], int]:
        """Who has come by the end of the time, and how many were turned away."""
        deadline = time.monotonic() + limit
        self.server.setblocking(False)
        self.waiting.register(self.server, selectors.EVENT_READ)
        while len(self.came) < self.count - 1 and (now := time.monotonic()) < deadline:
            for line in [s for s, (until, _, _) in self.heard.items() if until < now]:
                self._drop(line)
            for key, _ in self.waiting.select(min(deadline - now, 0.2)):
                if key.fileobj is self.server:
                    self._accept()
                else:
                    self._read(key.fileobj)  # type: ignore[arg-type]
        for line in list(self.heard):
            self._drop(line)
        self.waiting.close()
        return self.came, self.refused

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            line, address = self.server.accept()
            line.setblocking(False)
            self.lines.enter_context(line)
            self.heard[line] = time.monotonic() + PATIENCE, bytearray(), str(address[0])
            self.waiting.register(line, selectors.EVENT_READ)
            if len(self.heard) > MOST + self.count:  # who is dropped by mistake calls again
                self._drop(next(iter(self.heard)))

    def _read(self, line: socket.socket) -> None:
        _, data, address = self.heard[line]
        try:
            found = line.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            found = b""
        data += found
        if found and b"\n" not in data and len(data) <= LONGEST:
            return
        hello = parse(bytes(data[: LONGEST + 1]))
        rank = hello.get("rank")
        if type(rank) is not int or not 0 < rank < self.count:
            self._drop(line)
        elif not _proven(hello, self.token, f"process {rank}"):
            self.refused += 1
            with contextlib.suppress(OSError):
                line.sendall(b'{"refused": "token"}\n')
            self._drop(line)
        else:
            self._forget(line)
            if rank in self.came:  # it calls again: it has lost its first line
                self.came[rank][1].close()
            self.came[rank] = f"{str(hello.get('host', '?'))[:100]} ({address})", line

    def _forget(self, line: socket.socket) -> None:
        self.waiting.unregister(line)
        del self.heard[line]

    def _drop(self, line: socket.socket) -> None:
        self._forget(line)
        line.close()


def call(address: tuple[str, int], rank: int, limit: float, token: str) -> Met:
    """Other processes: call until process 0 answers; returns as `host`.

    Process 0 may have started later, and then waits longer: who has reached it hears it out.

    Args:
      address: where process 0 listens, (host, port).
      rank: number of this process.
      limit: seconds until it gives up.
      token: secret of the run.
    """
    deadline, why = time.monotonic() + limit, ""
    proof = _proof(token, f"process {rank}")
    hello = {"rank": rank, "host": socket.gethostname()[:100], "proof": proof}
    data = json.dumps(hello).encode() + b"\n"
    while time.monotonic() < deadline:
        answer: dict[str, Any] = {}
        with contextlib.ExitStack() as open_line, contextlib.suppress(OSError):
            line = open_line.enter_context(socket.create_connection(address, timeout=min(5, limit)))
            line.sendall(data)
            line.settimeout(limit + 10)
            answer = parse(_first_line(line))
            missing = answer.get("missing")
            if answer.get("refused"):
                why = "; who answers there has another token (LDD_JAX_TOKEN)"
            elif isinstance(missing, list) and all(type(m) is int for m in missing):
                if _proven(answer, token, f"missing {missing}"):
                    if not missing:
                        open_line.pop_all()
                    return missing, "", {} if missing else {0: line}
                why = "; who answers there lacks this run's token (LDD_JAX_TOKEN)"
        time.sleep(0.2)
    return [0], f" at {address[0]}:{address[1]}{why}", {}


def _first_line(line: socket.socket) -> bytes:
    """Up to its end and not a byte further: what comes after it is for others to read."""
    found = bytearray()
    while not found.endswith(b"\n") and len(found) < _LONGEST_VERDICT:
        if not (byte := line.recv(1)):
            break
        found += byte
    return bytes(found)


def parse(line: bytes) -> dict[str, Any]:
    """The object of a line; empty for any other line."""
    if not line.endswith(b"\n") and b"\n" not in line:
        return {}
    try:
        found = parse_json(line.split(b"\n")[0])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _proof(token: str, said: str) -> str:
    """What only the holder of the token can say; empty without one."""
    return hmac.new(token.encode(), said.encode(), hashlib.sha256).hexdigest() if token else ""


def _proven(line: dict[str, Any], token: str, said: str) -> bool:
    return hmac.compare_digest(str(line.get("proof", "")).encode("utf-8", "replace"),
                               _proof(token, said).encode())  # fmt: skip


def _listen(address: tuple[str, int], count: int) -> socket.socket:
    """On the coordinator's address alone, where this machine has it under that name.

    A name that leads to the loopback (as /etc/hosts of some systems has it for the machine's own),
    or to an address that another machine translates, would keep the others out: then on all.
    """
    host, port = address
    places: list[Any] = []
    with contextlib.suppress(OSError, UnicodeError):
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, _, _, _, where in places:
        if _loopback(str(where[0])) and not (_loopback(host) or host == "localhost"):
            continue
        with contextlib.suppress(OSError):
            return socket.create_server(where[:2], family=family, backlog=count + MOST)
    try:
        return socket.create_server(("", port), backlog=count + MOST)
    except OSError as error:
        raise UserError(
            f"cannot call the roll on port {port}: {error.strerror or error}; give a coordinator "
            "with another port"
        ) from error


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
