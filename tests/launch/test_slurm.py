"""Slurm and MPI for real, on this machine: two tasks do what one process does.

Skipped where Slurm (slurmctld, slurmd, munged) or mpirun is not installed, or without root.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from tests.children import environment
from tests.training.processes import MESH, ROOT, arguments, command, corpus, read

SLURM = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "sinfo")
STEPS = 4

CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={next}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def free_ports():
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        return a.getsockname()[1], b.getsockname()[1]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Environment variables of a cluster of one node, this one."""
    absent = [name for name in SLURM if shutil.which(name) is None]
    if absent or os.geteuid() != 0 or (os.cpu_count() or 1) < 2:
        pytest.skip(f"a Slurm cluster needs root and two cores; not installed: {absent}")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir()
    for above in (folder, *folder.parents):  # munged refuses a socket that others cannot reach
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    port, after = free_ports()
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(host=socket.gethostname().split(".")[0], port=port, next=after, folder=folder,
                    cores=os.cpu_count())
    )  # fmt: skip
    variables = {"SLURM_CONF": str(conf), "PYTHONPATH": str(ROOT)}
    own = {**os.environ, **variables}
    munge = [f"--{k}={folder}/munge/{k.split('-')[0]}" for k in
             ("key-file", "socket", "pid-file", "log-file", "seed-file")]  # fmt: skip
    log = (folder / "log").open("w")
    quiet = dict(env=own, stdout=log, stderr=log)
    daemons = [
        subprocess.Popen(argv, **quiet)
        for argv in (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"],
                     ["slurmd", "-D"])
    ]  # fmt: skip
    try:
        for _ in range(60):
            state = subprocess.run(
                ["sinfo", "-h", "-o", "%T"], env=own, capture_output=True, text=True
            ).stdout.strip()
            if state == "idle":
                break
            time.sleep(0.5)
        else:
            pytest.skip(f"the cluster did not start: {(folder / 'log').read_text()[-1000:]}")
        yield variables
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=20)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory, text):
    """Losses and samples of one process with one device."""
    workdir = tmp_path_factory.mktemp("one")
    subprocess.run(command(text, workdir, STEPS), env=environment(1), cwd=ROOT, check=True,
                   timeout=300, capture_output=True)  # fmt: skip
    return read(workdir)


def same(found, expected):
    assert found[0] == pytest.approx(expected[0], abs=1e-5) and len(found[0]) == STEPS
    assert found[1] == expected[1]


@pytest.mark.slow
def test_two_slurm_tasks_do_what_one_process_does(slurm, text, alone, tmp_path):
    workdir = tmp_path / "slurm"
    done = subprocess.run(
        [
            f"{ROOT}/launch/slurm.sh", "--nodes=1", "--tasks-per-node=2", "--time=00:10:00",
            f"--python={sys.executable}", "--wait", "--",
            *arguments(text, workdir, STEPS, *MESH),
        ],
        env=environment(4) | slurm, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    said = "".join(path.read_text() for path in tmp_path.glob("*.out"))
    assert done.returncode == 0, done.stderr + said[-2000:]
    same(read(workdir), alone)


@pytest.mark.slow
@pytest.mark.parametrize("missing", [0, 1])
def test_a_slurm_task_that_never_starts_is_named(slurm, text, tmp_path, missing):
    own = command(text, tmp_path / "never", STEPS, "--distributed=auto", "--start_limit=4")
    tasks = tmp_path / "tasks"
    tasks.write_text(f"{1 - missing} {' '.join(own)}\n{missing} sleep 120\n")
    began = time.monotonic()
    done = subprocess.run(
        ["srun", "-n2", "-c1", "--kill-on-bad-exit=1", "--multi-prog", str(tasks)],
        env=environment(1) | slurm, cwd=ROOT, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert f"did not start within 4 s: process {missing};" in done.stderr, done.stderr
    assert done.returncode != 0 and time.monotonic() - began < 60
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_two_mpi_processes_do_what_one_does(text, alone, tmp_path):
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed")
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [
            "mpirun", *root, "--oversubscribe", "-n", "2",
            *command(text, tmp_path / "mpi", STEPS, *MESH, "--distributed=auto"),
        ],
        env=environment(4), cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    same(read(tmp_path / "mpi"), alone)
