"""Many processes: a roll call with a time limit that names who is missing, then JAX's own start.

`jax.distributed.initialize` waits for all processes and then aborts the program without saying who
did not come; so the processes meet here first, 4,096 ports below the coordinator's.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import socket
import time
from pathlib import Path

import jax
import numpy as np

from ldd_jax.core import writing
from ldd_jax.core.checks import UserError, is_whole, require
from ldd_jax.training import meeting
from ldd_jax.training.company import Company

# JAX takes a job's coordinator port from the uppermost 4,096 by the job's number, so that the
# neighbouring ports are those of the next jobs on this host, and the last one has no port above.
APART = 4096
# Set by the launchers to the same secret for all processes of a run; who lacks it is turned away.
TOKEN = "LDD_JAX_TOKEN"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where this process stands: coordinator `host:port`, number of processes, own number."""

    coordinator: str
    count: int
    rank: int

    def __post_init__(self):
        host, colon, port = self.coordinator.rpartition(":")
        require(
            bool(colon and host) and is_whole(port, 1) and int(port) < 65536,
            f"coordinator {self.coordinator!r} is not host:port",
        )
        require(
            0 <= self.rank < self.count,
            f"process {self.rank} of {self.count}: numbers run from 0 to {self.count - 1}",
        )

    @property
    def meeting(self) -> tuple[str, int]:
        """Address of the roll call."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port) + (-APART if int(port) > 2 * APART else APART)


def detect() -> Place | None:
    """The place that the cluster's environment gives (Slurm, MPI, TPU pods), or None."""
    from jax._src.clusters import ClusterEnv

    for kind in ClusterEnv._cluster_types:
        if kind.is_env_present() and not kind.opt_in_only_method:
            return Place(
                coordinator=kind.get_coordinator_address(
                    timeout_secs=60,
                    override_coordinator_port=os.environ.get("JAX_COORDINATOR_PORT"),
                ),
                count=kind.get_process_count(),
                rank=kind.get_process_id(),
            )
    return None


def parse(text: str) -> Place:
    """`auto`, or `COORDINATOR:PORT,COUNT,RANK`.

    Raises:
      UserError: for anything else, or where `auto` finds no cluster.
    """
    if text == "auto":
        place = detect()
        require(
            place is not None,
            "--distributed=auto finds no cluster here (Slurm, MPI or TPU pod); "
            "give --distributed=COORDINATOR:PORT,COUNT,RANK",
        )
        assert place is not None
        return place
    parts = text.split(",")
    require(
        len(parts) == 3 and is_whole(parts[1]) and is_whole(parts[2]),
        f"--distributed={text!r} is neither auto nor COORDINATOR:PORT,COUNT,RANK",
    )
    return Place(coordinator=parts[0], count=int(parts[1]), rank=int(parts[2]))


def leader() -> bool:
    """Whether this process writes what all processes share."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait for all processes."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def agreed(number: int) -> int:
    """Process 0's number, in all of them."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.asarray(number)))


def told(text: str) -> list[str]:
    """The text of every process, in their order, in all of them."""
    if jax.process_count() == 1:
        return [text]
    from jax.experimental import multihost_utils

    said = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(len(said), np.int32))
    # A power of two, so that few programs serve all texts.
    padded = np.zeros(1 << max(int(max(lengths)) - 1, 255).bit_length(), np.uint8)
    padded[: len(said)] = said
    texts = multihost_utils.process_allgather(padded)
    return [
        bytes(t[:n]).decode(errors="surrogatepass") for t, n in zip(texts, lengths, strict=True)
    ]


def shared(folder: Path, patience: float = 30.0) -> None:
    """Make sure that all processes see one folder, which is process 0's; waits for all of them.

    Process 0 puts a file of a random name into it, which the others look for: a network's file
    system may show it late.

    Args:
      folder: that every process calls the same.
      patience: seconds to look for it.

    Raises:
      UserError: in all processes, naming the hosts that do not see it.
    """
    if jax.process_count() == 1:
        return
    mark = folder / f".shared-{agreed(secrets.randbits(31))}"
    if leader():
        writing.write(mark, "")
    try:
        barrier("a mark in the workdir")
        until = time.monotonic() + patience
        while not (seen := mark.exists()) and time.monotonic() < until:
            time.sleep(0.2)
        hosts = told("" if seen else socket.gethostname() or "a host without a name")
    finally:
        if leader():
            mark.unlink(missing_ok=True)
    lost = [f"{i} ({name})" for i, name in enumerate(hosts) if name]
    require(
        not lost,
        f"{folder} is not one folder for all processes: process {', '.join(lost)} does not see "
        "what process 0 writes there; give a workdir on a file system that all hosts share",
    )


def start(place: Place, *, limit: float = 300.0, silence: float = 60.0) -> Company | None:
    """Meet, then initialise JAX's distributed runtime; the company of the others, if there are any.

    Args:
      place: where this process stands.
      limit: seconds to wait for the others.
      silence: seconds after which a host that does not answer counts as gone.

    Raises:
      UserError: after `limit` seconds, naming the processes that never came.
    """
    if place.count == 1:
        return None
    lines = roll_call(place, limit)
    jax.distributed.initialize(
        place.coordinator,
        place.count,
        place.rank,
        initialization_timeout=int(limit),
        heartbeat_timeout_seconds=int(2 * silence),  # JAX aborts by then; we have left before
    )
    return Company(lines, place.count, silence)


def roll_call(place: Place, limit: float) -> dict[int, socket.socket]:
    """Wait until every process has called, or tell all of them who is missing.

    Returns:
      Open lines: on process 0 to all others, elsewhere to process 0.

    Raises:
      UserError: naming them.
    """
    token = os.environ.get(TOKEN, "")
    if place.rank == 0:
        missing, more, lines = meeting.host(place.meeting, place.count, limit, token)
    else:
        missing, more, lines = meeting.call(place.meeting, place.rank, limit, token)
    if missing:
        raise UserError(_message(missing, place.count, limit) + more)
    return lines


def _message(missing: list[int], count: int, limit: float) -> str:
    names = ", ".join(map(str, missing))
    return (
        f"{len(missing)} of {count} processes did not start within {limit:g} s: process {names}; "
        "start the same command on every host, or give the right number of processes"
    )
