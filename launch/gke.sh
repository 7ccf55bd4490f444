#!/usr/bin/env bash
# A TPU slice of a GKE cluster with JobSet: submit the run, and follow its first pod. Submitted again, the run goes on.
#   NAME=lmsi IMAGE=REGION-docker.pkg.dev/PROJECT/lmsi ACCELERATOR=tpu-v5p-slice TOPOLOGY=4x4x4 HOSTS=16 \
#     bash launch/gke.sh [--dry-run] --config=configs/hf.py --workdir=gs://bucket/run [...]
# IMAGE is built from launch/Dockerfile. CHIPS are those of a host: 4 unless set.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh
for name in NAME IMAGE ACCELERATOR TOPOLOGY HOSTS; do
  need "$name" "${!name:-}" "as the head of $0 shows"
done
quoted=$(printf '"%s", ' "$@")
# shellcheck disable=SC2153 # they come from the environment
manifest=$(sed -e '/^#/d' -e "s|\bNAME\b|$NAME|" -e "s|\bIMAGE\b|$IMAGE|" -e "s|\bACCELERATOR\b|$ACCELERATOR|" \
  -e "s|\bTOPOLOGY\b|$TOPOLOGY|" -e "s|\bHOSTS\b|$HOSTS|" -e "s|\bCHIPS\b|${CHIPS:-4}|" \
  -e "s|\bARGUMENTS\b|[${quoted%, }]|" launch/gke_jobset.yaml)
echo "$manifest"
do_it kubectl delete jobset "$NAME" --ignore-not-found
do_it kubectl apply --filename=- <<<"$manifest"
do_it kubectl wait --for=condition=Ready --timeout=1h pod --selector="jobset.sigs.k8s.io/jobset-name=$NAME"
do_it kubectl logs --follow "job/$NAME-slice-0"
