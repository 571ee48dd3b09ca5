#!/usr/bin/env bash
# Print (or apply) a GKE JobSet that runs one ldd_jax command on every host of a TPU slice.
# Use: launch/gke_jobset.sh [--dry-run] --name=JOB --image=IMAGE --accelerator=tpu-v5p-slice --topology=4x4x4 --hosts=N [--chips-per-host=4] [--slices=1] [--restarts=10] [--spot] [--service-account=NAME] [--env=NAME=VALUE ...] [--cache=DIR] -- train --config=... --workdir=gs://...
set -euo pipefail
name='' image='' accelerator='' topology='' hosts='' chips=4 slices=1 restarts=10 spot='' account='' env=() cache='' dry=''
usage() { sed -n '2,3p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --hosts=*) hosts=${1#*=} ;;
    --chips-per-host=*) chips=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --spot) spot=1 ;;
    --service-account=*) account=${1#*=} ;;
    --env=*=*) env+=("${1#*=}") ;;
    --cache=*) cache=${1#*=} ;;
    --dry-run) dry=1 ;;
    --) shift; break ;;
    *) echo "gke_jobset.sh: unknown option $1" >&2; usage ;;
  esac
  shift
done
for given in "$name" "$image" "$accelerator" "$topology" "$hosts"; do
  [ -n "$given" ] || usage
done
[ $# -gt 0 ] || usage
# A YAML scalar in single quotes: everything stands for itself, but a line end would fold.
quoted() {
  case $1 in *[[:cntrl:]]*) echo "gke_jobset.sh: a control character in $(printf %q "$1")" >&2; return 2 ;; esac
  printf "'%s'" "${1//\'/\'\'}"
}
for number in "$hosts" "$chips" "$slices" "$restarts"; do
  case $number in '' | *[!0-9]*) echo "gke_jobset.sh: $(printf %q "$number") is no number" >&2; exit 2 ;; esac
done
arguments=''
for word in "$@" --distributed=auto; do
  arguments+="
                - $(quoted "$word")"
done
variables=''
for pair in ${env[@]+"${env[@]}"}; do
  variables+="
                - name: $(quoted "${pair%%=*}")
                  value: $(quoted "${pair#*=}")"
done
# Compiled programs stay on the node, so that a restart reads them: a pod's own folders go with it.
mounts='' volumes=''
if [ -n "$cache" ]; then
  variables+="
                - name: XDG_CACHE_HOME
                  value: $(quoted "$cache")"
  mounts="
                volumeMounts:
                - name: cache
                  mountPath: $(quoted "$cache")"
  volumes="
              volumes:
              - name: cache
                hostPath:
                  path: $(quoted "$cache")
                  type: DirectoryOrCreate"
fi
[ -z "$spot" ] || spot="
                cloud.google.com/gke-spot: 'true'"
[ -z "$account" ] || account="
              serviceAccountName: $(quoted "$account")"
name=$(quoted "$name")
image=$(quoted "$image")
accelerator=$(quoted "$accelerator")
topology=$(quoted "$topology")
# A secret of this run: who does not have it is no process of it.
token=$(quoted "${LDD_JAX_TOKEN:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}")
manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  annotations:
    # A slice belongs to one job of the set, with all its hosts.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: $restarts
    rules:
      # Bad input stays bad; a run that was asked to stop (75), a lost host: all start again.
      - name: badinput
        action: FailJobSet
        onJobFailureReasons: ['PodFailurePolicy']
  replicatedJobs:
    - name: workers
      replicas: $slices
      template:
        spec:
          parallelism: $hosts
          completions: $hosts
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: ldd-jax
                  operator: In
                  values: [2]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 120$account
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $accelerator
                cloud.google.com/gke-tpu-topology: $topology$spot
              containers:
              - name: ldd-jax
                image: $image
                command: ['python', '-m', 'ldd_jax']
                args:$arguments
                env:
                - name: LDD_JAX_TOKEN
                  value: $token$variables
                resources:
                  limits:
                    google.com/tpu: $chips$mounts$volumes
YAML
}
if [ -n "$dry" ]; then manifest; else manifest | kubectl apply -f -; fi
