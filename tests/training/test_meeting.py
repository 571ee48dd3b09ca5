"""The roll call among strangers: none of them stops, delays or joins it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.training import meeting
from tests.training.test_distributed import free_port

STRANGERS = {
    "list": b"[]\n",
    "number": b"5\n",
    "null": b"null\n",
    "empty": b"\n",
    "no text": b"\xff\xfe\x00\n",
    "deep": b"[" * 900 + b"\n",
    "text as rank": b'{"rank": "1"}\n',
    "truth as rank": b'{"rank": true}\n',
    "fraction as rank": b'{"rank": 1.0}\n',
    "rank 0": b'{"rank": 0}\n',
    "rank 99": b'{"rank": 99}\n',
    "endless": b'{"rank": 1, "host": "' + b"x" * 4_000_000,
    "long": b'{"rank": 1, "host": "' + b"x" * 2000 + b'"}\n',
    "silent": b"",
}


def shout(address, data):
    """Connect as soon as somebody listens, send, and stay."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionError):
            line = socket.create_connection(address, timeout=2)
            with contextlib.suppress(OSError):
                line.sendall(data)
            return line
        time.sleep(0.01)
    raise AssertionError("nobody listens")


def meet(address, count, limit, *, tokens, before=()):
    """Verdicts by process; `tokens` of those that call, strangers' lines are sent before."""
    out = {}

    def one(rank, run, *args):
        try:
            out[rank] = run(*args)
        except Exception as error:  # reported by the comparison
            out[rank] = error

    threads = [threading.Thread(
        target=one, args=(0, meeting.host, address, count, limit, tokens[0]))]  # fmt: skip
    threads[0].start()
    lines = [shout(address, data) for data in before]
    for rank in set(tokens) - {0}:
        args = (rank, meeting.call, address, rank, limit, tokens[rank])
        threads.append(threading.Thread(target=one, args=args))
        threads[-1].start()
    for thread in threads:
        thread.join()
    for line in lines:
        line.close()
    return out


@pytest.mark.parametrize("stranger", STRANGERS)
def test_strangers_do_not_matter(stranger):
    began = time.monotonic()
    found = meet(("127.0.0.1", free_port()), 3, 20, tokens=dict.fromkeys(range(3), "secret"),
                 before=[STRANGERS[stranger]] * 3)  # fmt: skip
    assert {rank: missing for rank, (missing, _, _) in found.items()} == {0: [], 1: [], 2: []}
    assert time.monotonic() - began < 4  # also a silent one delays nobody


def test_a_crowd_of_silent_ones():
    found = meet(("127.0.0.1", free_port()), 2, 20, tokens={0: "", 1: ""}, before=[b""] * 300)
    assert found[0][0] == found[1][0] == []


@pytest.mark.parametrize("theirs", ["", "other"])
def test_without_the_token_nobody_joins(theirs):
    """Both sides say why."""
    found = meet(("127.0.0.1", free_port()), 2, 1.0, tokens={0: "secret", 1: theirs})
    assert found[0][0] == [1] and "turned away" in found[0][1]
    assert found[1][0] == [0] and "another token (LDD_JAX_TOKEN)" in found[1][1]


def test_the_token_is_not_sent_and_a_false_host_is_not_believed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, seen = server.getsockname(), []

        def false_host():
            with contextlib.suppress(OSError):
                while True:
                    line, _ = server.accept()
                    seen.append(line.recv(4096))
                    line.sendall(json.dumps({"missing": []}).encode() + b"\n")
                    line.close()

        threading.Thread(target=false_host, daemon=True).start()
        missing, why, _ = meeting.call(address, 1, 0.5, "secret")
        assert missing == [0] and "lacks this run's token" in why
        assert seen and all(b"secret" not in s for s in seen)


@pytest.mark.parametrize("answer", [b"[]\n", b"5\n", b'{"missing": 3}\n', b'{"missing": ["x"]}\n',
                                    b"\xff\n", b"x" * 2_000_000])  # fmt: skip
def test_an_answer_that_is_none(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak():
            with contextlib.suppress(OSError):
                while True:
                    line, _ = server.accept()
                    line.sendall(answer)
                    line.close()

        threading.Thread(target=speak, daemon=True).start()
        assert meeting.call(server.getsockname(), 1, 0.5, "")[0] == [0]


def test_it_listens_on_the_coordinators_address_alone():
    with meeting._listen(("127.0.0.1", 0), 1) as server:
        assert server.getsockname()[0] == "127.0.0.1"
    with meeting._listen(("localhost", 0), 1) as server:
        assert server.getsockname()[0] in ("127.0.0.1", "::1")


def test_a_name_that_leads_to_the_loopback_would_keep_the_others_out(monkeypatch):
    loop = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: loop)
    with meeting._listen(("node7", 0), 1) as server:
        assert server.getsockname()[0] == "0.0.0.0"


def test_a_port_in_use_is_said():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}"):
            meeting.host(("127.0.0.1", port), 2, 1, "")
