#!/usr/bin/env bash
# Several hosts that ssh reaches and that share the work directory: copy this checkout to each, install, run one process a host.
#   HOSTS="host1 host2" bash launch/ssh_hosts.sh [--dry-run] --config=configs/hf.py --workdir=/shared/run [...]
# This checkout is written over ~/lmsi_jax of each host. Other files there stay, except in the package's folder
# ~/lmsi_jax/lmsi_jax, which becomes the same as here.
# EXTRA is what to install beside: cuda (the default) or tpu. PORT is one that is free on the first host.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh
need HOSTS "${HOSTS:-}" "the hosts to run on, with spaces between them"
read -r -a hosts <<<"$HOSTS"
address="${hosts[0]#*@}:${PORT:-8476}"

for host in "${hosts[@]}"; do
  do_it rsync --archive --exclude=.venv --exclude=.git --exclude=runs ./ "$host:lmsi_jax/"
  do_it rsync --archive --delete lmsi_jax/ "$host:lmsi_jax/lmsi_jax/" # modules of an older checkout go
  do_it ssh "$host" "cd lmsi_jax && bash -c 'source launch/install.sh .[${EXTRA:-cuda}]'"
done

processes=()
trap '[ ${#processes[@]} = 0 ] || kill "${processes[@]}" 2>/dev/null || true' EXIT
for number in "${!hosts[@]}"; do
  names="JAX_COORDINATOR_ADDRESS=$address JAX_NUM_PROCESSES=${#hosts[@]} JAX_PROCESS_ID=$number"
  do_it ssh -tt "${hosts[$number]}" "cd lmsi_jax && $names .venv/bin/lmsi run ${*@Q}" </dev/null &
  processes+=($!)
  [ -z "$dry_run" ] || wait "${processes[-1]}" # keep the printed order
done
for process in "${processes[@]}"; do wait "$process"; done
processes=()
