"""Who is gone is known from the closed line; who ends in good order is not missed."""

import json
import socket
import time

import pytest

from ldd_jax.training import company
from ldd_jax.training.company import Company


@pytest.fixture
def left(monkeypatch):
    """Companies that would have ended this process."""
    found = []
    monkeypatch.setattr(company, "GRACE", 0.2)
    monkeypatch.setattr(Company, "leave", lambda self: found.append(self))
    return found


def until(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_first_hears_it_and_tells_the_others(left):
    mine, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
    here = Company(dict(enumerate(mine, 1)), 4, 60)
    time.sleep(0.1)
    assert here.gone is None and here.missed(0) == ""
    theirs[1].close()
    until(lambda: left == [here])
    assert here.gone == 2 and "process 2 of 4 is gone" in here.missed()
    for line in (theirs[0], theirs[2]):
        assert json.loads(line.recv(100)) == {"gone": 2}


def test_the_others_hear_it_from_the_first(left):
    mine, first = socket.socketpair()
    here = Company({0: mine}, 4, 60)
    first.sendall(b'{"go')
    time.sleep(0.05)
    first.sendall(b'ne": 3}\n')
    until(lambda: left == [here])
    assert here.gone == 3


def test_a_line_without_end_is_none(left):
    mine, first = socket.socketpair()
    here = Company({0: mine}, 2, 60)
    first.sendall(b"x" * 2000)
    until(lambda: left == [here])
    assert here.gone == 0


def test_who_ends_in_good_order_is_not_missed(left):
    """In either order: the other first, or this one."""
    pairs = [socket.socketpair() for _ in range(2)]
    one, other = Company({1: pairs[0][0]}, 2, 60), Company({0: pairs[0][1]}, 2, 60)
    one.bye()
    other.bye()
    alone = Company({1: pairs[1][0]}, 2, 60)
    alone.bye()
    pairs[1][1].close()
    time.sleep(0.5)
    assert left == [] and one.missed(0) == other.missed(0) == ""


def test_within_the_grace_it_may_end_by_itself(left, monkeypatch):
    monkeypatch.setattr(company, "GRACE", 5)
    mine, theirs = socket.socketpair()
    here = Company({1: mine}, 2, 60)
    theirs.close()
    until(lambda: here.gone == 1)
    here.bye()
    time.sleep(0.2)
    assert left == []


def test_a_silent_host_is_asked():
    with socket.create_server(("127.0.0.1", 0)) as server:
        out = socket.create_connection(server.getsockname())
        line, _ = server.accept()
        here = Company({1: line}, 2, 40)
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        here.bye()
        out.close()
