#!/usr/bin/env bash
# Install into .venv and run the whole loop on the built-in model, offline. Started again, it goes on where it was.
#   bash launch/local.sh [--config.section.key=value ...]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/install.sh .
set -x
.venv/bin/lmsi run --config=configs/tiny.py --workdir=runs/tiny "$@"
