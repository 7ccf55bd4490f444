#!/usr/bin/env bash
# One machine with NVIDIA GPUs: install into .venv and run. Started again, it goes on where it was.
#   bash launch/gpu.sh [--dry-run] --config=configs/hf.py --workdir=runs/hf [--config.section.key=value ...]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh
do_it bash -c 'source launch/install.sh ".[cuda]"'
do_it .venv/bin/lmsi run "$@"
