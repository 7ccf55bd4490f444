#!/usr/bin/env bash
# A Cloud TPU slice: create it or take the one that is there, install on all its workers, run, fetch the results.
#   TPU=lmsi ZONE=us-east5-a TYPE=v5p-128 WORKDIR=gs://bucket/run bash launch/tpu_pod.sh [--dry-run] --config=configs/hf.py [...]
# SPOT=1 takes spot capacity: a slice that is preempted is made anew and the run goes on. VERSION is the runtime's image.
# The workers get the last commit of this checkout, in ~/lmsi_jax; changes that are not committed stay here, and are named.
# A slice of this name that was preempted or has failed is deleted and made anew; a stopped one is left alone. The slice is left
# running; KEEP=0 deletes it at the end. Results are fetched into runs/$TPU, over files of the same names.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh
need TPU "${TPU:-}" "a name for the slice"
need ZONE "${ZONE:-}" "the zone it is in"
need TYPE "${TYPE:-}" "its accelerator type, such as v5p-128"
need WORKDIR "${WORKDIR:-}" "a gs:// folder for the run, which every worker writes to"
tpu=(gcloud compute tpus tpu-vm)
folder="${TMPDIR:-/tmp}/lmsi_jax.XXXXXX"
[ -n "$dry_run" ] || folder=$(mktemp -d "$folder")
archive="$folder/lmsi_jax.tar.gz"
trap '[ -n "$dry_run" ] || rm -rf "$folder"' EXIT

state() {
  [ -n "$dry_run" ] || "${tpu[@]}" describe "$TPU" --zone="$ZONE" --format='value(state)' 2>/dev/null || true
}

ensure() { # a slice that is ready
  case "$(state)" in
    READY) return ;;
    STOPPED | STOPPING)
      echo "$0: the slice $TPU is STOPPED. Start it (gcloud compute tpus tpu-vm start), delete it, or set another TPU." >&2
      exit 2
      ;;
    PREEMPTED | TERMINATED | FAILED) do_it "${tpu[@]}" delete "$TPU" --zone="$ZONE" --quiet || return ;;
  esac
  do_it "${tpu[@]}" create "$TPU" --zone="$ZONE" --accelerator-type="$TYPE" \
    --version="${VERSION:-tpu-ubuntu2204-base}" ${SPOT:+--spot}
}

everywhere() {
  do_it "${tpu[@]}" ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

attempt() {
  local unpack="mkdir -p lmsi_jax && tar -xzf lmsi_jax.tar.gz -C lmsi_jax"
  ensure &&
    do_it "${tpu[@]}" scp "$archive" "$TPU:lmsi_jax.tar.gz" --zone="$ZONE" --worker=all &&
    everywhere "$unpack && cd lmsi_jax && bash -c 'source launch/install.sh .[tpu]'" &&
    everywhere "cd lmsi_jax && LMSI_DISTRIBUTED=1 .venv/bin/lmsi run --workdir=${WORKDIR@Q} ${*@Q}"
}

changes=$(git status --porcelain)
[ -z "$changes" ] || printf '%s\n' "The workers get the last commit, without these changes:" "$changes" >&2
do_it git archive --format=tar.gz --output="$archive" HEAD
until attempt "$@"; do
  status=$(state)
  [ "$status" != READY ] || exit 1 # the run failed, not the slice
  echo "The slice is ${status:-gone}; making it anew in ${PAUSE:-60} s." >&2
  sleep "${PAUSE:-60}"
done
do_it gcloud storage rsync --recursive "$WORKDIR" "runs/$TPU"
[ "${KEEP:-1}" != 0 ] || do_it "${tpu[@]}" delete "$TPU" --zone="$ZONE" --quiet
