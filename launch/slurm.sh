#!/usr/bin/env bash
# Submit one ldd_jax command as a Slurm job, one process per task; JAX finds the coordinator itself.
# Use: launch/slurm.sh [--dry-run] --nodes=N [--tasks-per-node=K] [--gpus-per-node=G] [--time=HH:MM:SS] [--partition=P] [--python=PATH] [--grace=SECONDS] [--cache=DIR] [--wait] -- train --config=... --workdir=DIR
set -euo pipefail
nodes='' tasks=1 gpus='' limit='''' partition='' python='.venv/bin/python' grace=120 wait='' cache='' dry=''
usage() { sed -n '2,3p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case "$1" in
    --nodes=*) nodes=${1#*=} ;;
    --tasks-per-node=*) tasks=${1#*=} ;;
    --gpus-per-node=*) gpus=${1#*=} ;;
    --time=*) limit=${1#*=} ;;
    --partition=*) partition=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --wait) wait=1 ;;
    --cache=*) cache=${1#*=} ;;
    --dry-run) dry=1 ;;
    --) shift; break ;;
    *) echo "slurm.sh: unknown option $1" >&2; usage ;;
  esac
  shift
done
if [ -z "$nodes" ] || [ $# -eq 0 ]; then usage; fi
if [ -n "$gpus" ] && [ "$tasks" != 1 ]; then
  echo "slurm.sh: a process takes all GPUs of its node; leave --tasks-per-node out" >&2; exit 2
fi
# --requeue: a preempted job starts again and resumes its workdir. Running out of time is no
# preemption to Slurm, so the job is warned $grace seconds before and puts itself back. So it does
# when the run was asked to stop (status 75), unless somebody cancelled it.
command=(sbatch "--nodes=$nodes" "--ntasks-per-node=$tasks" --job-name=ldd_jax --requeue
  --open-mode=append "--signal=B:USR1@$grace")
# A process takes all GPUs that it sees: the node's, of its one task.
[ -z "$gpus" ] || command+=("--gpus-per-node=$gpus")
[ -z "$limit" ] || command+=("--time=$limit")
[ -z "$partition" ] || command+=("--partition=$partition")
[ -z "$wait" ] || command+=(--wait)
# Programs that were compiled before are read there: below ~/.cache, unless it is said.
[ -z "$cache" ] || printf -v cache 'export XDG_CACHE_HOME=%q\n' "$cache"
# What NVIDIA's images set: collectives run beside computation. XLA_FLAGS of the shell go before.
flags=''
[ -z "$gpus" ] || flags="export XLA_FLAGS=\"--xla_gpu_enable_latency_hiding_scheduler=true \${XLA_FLAGS:-}\""$'\n'
printf -v words ' %q' "$python" -m ldd_jax "$@" --distributed=auto
batch() {
  cat <<SH
#!/usr/bin/env bash
trap 'scontrol requeue "\$SLURM_JOB_ID"' USR1
# A secret of this run: who does not have it is no process of it.
export LDD_JAX_TOKEN="\${LDD_JAX_TOKEN:-\$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')}"
${cache}${flags}srun --kill-on-bad-exit=1 --unbuffered$words &
status=0; wait \$! || status=\$?
if [ \$status = 75 ] && [ "\$(squeue -h -j "\$SLURM_JOB_ID" -o %T)" = RUNNING ]; then
  scontrol requeue "\$SLURM_JOB_ID"
fi
exit \$status
SH
}
if [ -n "$dry" ]; then printf '%q ' "${command[@]}"; echo; batch; exit 0; fi
batch | "${command[@]}"
