#!/usr/bin/env bash
# Run one ldd_jax command on every worker of a TPU VM slice; JAX finds the coordinator itself.
# Use: launch/tpu_vm.sh [--dry-run] --name=SLICE --zone=ZONE [--project=PROJECT] [--folder=DIR] [--cache=DIR] -- train --config=... --workdir=gs://...
set -euo pipefail
name='' zone='' project='' folder='ldd_jax' cache='' dry=''
usage() { sed -n '2,3p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --folder=*) folder=${1#*=} ;;
    --cache=*) cache=${1#*=} ;;
    --dry-run) dry=1 ;;
    --) shift; break ;;
    *) echo "tpu_vm.sh: unknown option $1" >&2; usage ;;
  esac
  shift
done
if [ -z "$name" ] || [ -z "$zone" ] || [ $# -eq 0 ]; then usage; fi
# The shell at the other end may be dash, which does not know the $'..' of bash's %q.
quoted() { printf "'%s'" "${1//\'/\'\\\'\'}"; }
words=''
for word in "$@"; do words+=" $(quoted "$word")"; done
# A secret of this run: who does not have it is no process of it.
token=${LDD_JAX_TOKEN:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}
# Programs that were compiled before are read there: below ~/.cache, unless it is said.
[ -z "$cache" ] || cache=" XDG_CACHE_HOME=$(quoted "$cache")"
remote="cd $(quoted "$folder") && LDD_JAX_TOKEN=$(quoted "$token")$cache .venv/bin/python -m ldd_jax$words --distributed=auto"
command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all "--command=$remote")
[ -z "$project" ] || command+=("--project=$project")
if [ -n "$dry" ]; then printf '%q ' "${command[@]}"; echo; exit 0; fi
exec "${command[@]}"
