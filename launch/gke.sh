#!/usr/bin/env bash
# A TPU slice of a GKE cluster with JobSet: submit the run, and follow its first pod. Submitted again, the run goes on.
#   NAME=lmsi IMAGE=REGION-docker.pkg.dev/PROJECT/lmsi ACCELERATOR=tpu-v5p-slice TOPOLOGY=4x4x4 HOSTS=16 \
#     bash launch/gke.sh [--dry-run] --config=configs/hf.py --workdir=gs://bucket/run [...]
# IMAGE is built from launch/Dockerfile. CHIPS are those of a host: 4 unless set.
# A JobSet of this NAME that this script made is deleted and made anew. One that somebody else made is left alone, and kubectl
# says that it exists: choose another NAME.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh
for name in NAME IMAGE ACCELERATOR TOPOLOGY HOSTS; do
  need "$name" "${!name:-}" "as the head of $0 shows"
done
export CHIPS="${CHIPS:-4}"
manifest=$("${PYTHON:-python3}" launch/gke_jobset.py "$@")
echo "$manifest"
# shellcheck disable=SC2153 # NAME comes from the environment
do_it kubectl delete jobset --selector=app.kubernetes.io/managed-by=lmsi_jax --field-selector="metadata.name=$NAME"
do_it kubectl create --filename=- <<<"$manifest"
do_it kubectl wait --for=condition=Ready --timeout=1h pod --selector="jobset.sigs.k8s.io/jobset-name=$NAME"
do_it kubectl logs --follow "job/$NAME-slice-0"
