"""The launchers: linted, valid, and what they would run on every worker."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TRAIN = [
    "train",
    "--config=configs/text.py:method=lddm_m,size=7b",
    "--workdir=gs://bucket/it's run",
]
GKE = ["--name=run-1", "--image=registry/ldd:1", "--accelerator=tpu-v5p-slice", "--topology=4x4x4",
       "--hosts=16"]  # fmt: skip


def launch(script, *argv, check=True):
    done = subprocess.run(
        [f"launch/{script}", *argv], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 or not check, done.stderr
    return done


def dry(script, *argv):
    return launch(script, "--dry-run", *argv, "--", *TRAIN).stdout


def test_shellcheck():
    """The lint that comes with the dev extra, or the machine's."""
    beside = Path(sys.executable).with_name("shellcheck")
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    assert program, "shellcheck is missing; pip install -e '.[dev]' brings it"
    scripts = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]
    done = subprocess.run([program, *scripts], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_jobset_is_valid_and_runs_on_every_host():
    import jsonschema
    import yaml

    schema = json.loads((HERE / "jobset.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    manifest = yaml.safe_load(dry("gke_jobset.sh", *GKE, "--chips-per-host=4"))
    jsonschema.validate(manifest, schema)
    for broken in (
        {"spec": {**manifest["spec"], "maxRestarts": 3}},
        {"apiVersion": "jobset.x-k8s.io/v1"},
        {"metadata": {"name": "Run_1"}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**manifest, **broken}, schema)
    # A host that is preempted fails its job at once; the set starts all hosts again and resumes.
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] >= 1
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    # Bad input (2) ends the set; 75 and all else starts it again.
    assert job["podFailurePolicy"]["rules"] == [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "ldd-jax", "operator": "In", "values": [2]},
        }
    ]
    (rule,) = policy["rules"]
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert job["parallelism"] == job["completions"] == 16 and job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x4",
    }
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "ldd_jax"]
    assert container["args"] == [*TRAIN, "--distributed=auto"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    (token,) = container["env"]
    more = ("--slices=2", "--restarts=3", "--spot", "--service-account=runner", "--env=A=b c=d")
    found = yaml.safe_load(dry("gke_jobset.sh", *GKE, *more))
    jsonschema.validate(found, schema)
    (jobs,) = found["spec"]["replicatedJobs"]
    assert jobs["replicas"] == 2 and found["spec"]["failurePolicy"]["maxRestarts"] == 3
    pod = jobs["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["serviceAccountName"] == "runner"
    assert pod["containers"][0]["env"][1] == {"name": "A", "value": "b c=d"}
    assert token["name"] == "LDD_JAX_TOKEN" and re.fullmatch("[0-9a-f]{32}", token["value"])


def test_programs_are_kept_where_it_is_said():
    """On the node of a pod, which loses its own folders; elsewhere in another place than ~."""
    import jsonschema
    import yaml

    place = "/var/cache/it's"
    found = yaml.safe_load(dry("gke_jobset.sh", *GKE, "--env=A=b", f"--cache={place}"))
    jsonschema.validate(found, json.loads((HERE / "jobset.json").read_text()))
    (jobs,) = found["spec"]["replicatedJobs"]
    pod = jobs["template"]["spec"]["template"]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    assert {"name": "XDG_CACHE_HOME", "value": place} in container["env"]
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": place}]
    assert volume["hostPath"] == {"path": place, "type": "DirectoryOrCreate"}
    assert "volumes" not in dry("gke_jobset.sh", *GKE)
    words = shlex.split(dry("tpu_vm.sh", "--name=s", "--zone=z", f"--cache={place}"))
    (remote,) = [w.removeprefix("--command=") for w in words if w.startswith("--command=")]
    assert f"XDG_CACHE_HOME={place}" in shlex.split(remote)
    script = dry("slurm.sh", "--nodes=2", f"--cache={place}").partition("\n")[2]
    (line,) = [x for x in script.splitlines() if "XDG" in x]
    assert shlex.split(line) == ["export", f"XDG_CACHE_HOME={place}"]
    assert "XDG" not in dry("slurm.sh", "--nodes=2")


def test_tpu_vm_runs_on_all_workers():
    words = shlex.split(dry("tpu_vm.sh", "--name=slice", "--zone=us-east5-a", "--project=p"))
    assert words[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice"]
    assert {"--worker=all", "--zone=us-east5-a", "--project=p"} <= set(words)
    (remote,) = [w.removeprefix("--command=") for w in words if w.startswith("--command=")]
    inner = shlex.split(remote)
    assert inner[:3] == ["cd", "ldd_jax", "&&"]
    assert re.fullmatch("LDD_JAX_TOKEN=[0-9a-f]{32}", inner[3])
    assert inner[4:] == [".venv/bin/python", "-m", "ldd_jax", *TRAIN, "--distributed=auto"]


# What a shell or YAML would read as its own.
ODD = ["it's", "a b", "$(touch ran)", "`touch ran`", "a\\n", "c: d", "- e", "#f", "caf\u00e9", ""]
SHOW = 'eval "set -- $1"; printf "%s\\0" "$@"'


def words_of(line):
    """What bash makes of a line."""
    done = subprocess.run(["bash", "-c", SHOW, "_", line], capture_output=True, text=True)
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_tpu_vm_in_any_shell(shell, tmp_path):
    """The other end's shell may be dash; the program there gets the words as they were given."""
    program = tmp_path / "it's a folder" / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    program.chmod(0o755)
    where = ("--name=s", "--zone=z", f"--folder={tmp_path}/it's a folder")
    given = ["train", "a\nb", "a\tb", *ODD]
    line = launch("tpu_vm.sh", "--dry-run", *where, "--", *given).stdout
    (remote,) = [w.removeprefix("--command=") for w in words_of(line) if "--command=" in w]
    done = subprocess.run([shell, "-c", remote], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split("\0")[:-1] == ["-m", "ldd_jax", *given, "--distributed=auto"]
    assert not (tmp_path / "ran").exists()


def test_jobset_quotes_everything():
    import yaml

    for word in ODD[:-1]:
        flags = [f"--name={word}", f"--image={word}", f"--accelerator={word}", *GKE[3:]]
        text = launch("gke_jobset.sh", "--dry-run", *flags, "--", "train", *ODD).stdout
        found = yaml.safe_load(text)
        pod = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        assert found["metadata"]["name"] == word
        assert pod["containers"][0]["image"] == word
        assert pod["containers"][0]["args"] == ["train", *ODD, "--distributed=auto"]
        assert word in pod["nodeSelector"].values()
    for bad in ("--name=a\nspec: {}", "--hosts=2\nx: 1", "--chips-per-host=many"):
        done = launch("gke_jobset.sh", "--dry-run", *GKE, bad, "--", *TRAIN, check=False)
        assert done.returncode == 2 and not done.stdout and done.stderr.count("\n") == 1


def test_slurm_requeues_and_resumes():
    text = dry("slurm.sh", "--nodes=2", "--tasks-per-node=4", "--time=01:00:00", "--grace=60",
               "--partition=gpu")  # fmt: skip
    submit, *batch = text.splitlines()
    words = shlex.split(submit)
    assert words[0] == "sbatch"
    assert {"--nodes=2", "--ntasks-per-node=4", "--time=01:00:00", "--partition=gpu"} <= set(words)
    # Preempted: Slurm starts it again. Out of time: warned a minute before, it puts itself back.
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@60"} <= set(words)
    assert batch[1] == """trap 'scontrol requeue "$SLURM_JOB_ID"' USR1"""
    assert batch[3].startswith("export LDD_JAX_TOKEN=")
    tokens = [
        subprocess.run(["bash", "-c", f"{batch[3]}; printf %s $LDD_JAX_TOKEN"], text=True,
                       capture_output=True, check=True, env=env).stdout
        for env in ({}, {}, {"LDD_JAX_TOKEN": "mine"})
    ]  # fmt: skip
    assert re.fullmatch("[0-9a-f]{32}", tokens[0]) and tokens[0] != tokens[1]
    assert tokens[2] == "mine"
    step = shlex.split(batch[4])
    assert step[:3] == ["srun", "--kill-on-bad-exit=1", "--unbuffered"]
    assert step[3:-1] == [".venv/bin/python", "-m", "ldd_jax", *TRAIN, "--distributed=auto"]
    assert step[-1] == "&"


def test_slurm_asks_for_gpus():
    """One process takes a node's; flags that hide what is sent, before those of the shell."""
    submit, *batch = dry("slurm.sh", "--nodes=2", "--gpus-per-node=8").splitlines()
    assert {"--gpus-per-node=8", "--ntasks-per-node=1"} <= set(shlex.split(submit))
    (line,) = [line for line in batch if "XLA_FLAGS" in line]
    assert batch.index(line) < next(i for i, line in enumerate(batch) if line.startswith("srun"))
    show = ["bash", "-c", f'{line}; printf %s "$XLA_FLAGS"']
    run = subprocess.run(
        show, text=True, capture_output=True, check=True, env={"XLA_FLAGS": "--mine"}
    )
    assert run.stdout == "--xla_gpu_enable_latency_hiding_scheduler=true --mine"
    assert "XLA_FLAGS" not in dry("slurm.sh", "--nodes=2")
    both = ("--dry-run", "--nodes=2", "--gpus-per-node=8", "--tasks-per-node=8", "--", *TRAIN)
    refused = launch("slurm.sh", *both, check=False)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1


@pytest.mark.parametrize("status, state, again", [
    (0, "RUNNING", False), (2, "RUNNING", False), (1, "RUNNING", False), (75, "RUNNING", True),
    (75, "CANCELLED", False),
])  # fmt: skip
def test_slurm_goes_on_with_a_run_that_was_asked_to_stop(status, state, again, tmp_path):
    """And with no other; the batch script itself, with stand-ins for Slurm's programs."""
    _, *batch = dry("slurm.sh", "--nodes=1").splitlines()
    for name, line in {
        "srun": f"exit {status}", "squeue": f"echo {state}", "scontrol": 'echo "$@" > called',
    }.items():  # fmt: skip
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", "-c", "\n".join(batch)], cwd=tmp_path, env=env, timeout=60)
    assert done.returncode == status
    called = tmp_path / "called"
    assert called.exists() == again
    assert not again or called.read_text() == "requeue 7\n"


@pytest.mark.parametrize("script", ["gke_jobset.sh", "slurm.sh", "tpu_vm.sh"])
def test_what_is_missing_or_unknown_is_refused(script):
    for argv in (["--dry-run"], ["--dry-run", "--nonsense=1", "--", *TRAIN]):
        done = launch(script, *argv, check=False)
        assert done.returncode == 2 and "Use: launch/" in done.stderr and not done.stdout
