#!/usr/bin/env bash
# Run one ldd_jax command as a Slurm job, one process per task; JAX finds the coordinator itself.
# Use: launch/slurm.sh [--dry-run] --nodes=N [--tasks-per-node=K] [--time=HH:MM:SS] [--partition=P] [--python=PATH] -- train --config=... --workdir=DIR
set -euo pipefail
nodes='' tasks=1 limit='' partition='' python='.venv/bin/python' dry=''
usage() { sed -n '2,3p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case "$1" in
    --nodes=*) nodes=${1#*=} ;;
    --tasks-per-node=*) tasks=${1#*=} ;;
    --time=*) limit=${1#*=} ;;
    --partition=*) partition=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --dry-run) dry=1 ;;
    --) shift; break ;;
    *) echo "slurm.sh: unknown option $1" >&2; usage ;;
  esac
  shift
done
[ -n "$nodes" ] && [ $# -gt 0 ] || usage
command=(srun "--nodes=$nodes" "--ntasks-per-node=$tasks" --kill-on-bad-exit=1 --unbuffered)
[ -z "$limit" ] || command+=("--time=$limit")
[ -z "$partition" ] || command+=("--partition=$partition")
command+=("$python" -m ldd_jax "$@" --distributed=auto)
if [ -n "$dry" ]; then printf '%q ' "${command[@]}"; echo; exit 0; fi
exec "${command[@]}"
