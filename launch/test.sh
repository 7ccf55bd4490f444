#!/usr/bin/env bash
# Install into .venv with the test tools; check style and types; run the tests.
#   bash launch/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/install.sh '.[test]'
set -x
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/pytest "$@"
