#!/usr/bin/env bash
# Install into .venv with the test tools; check style and types; run the tests.
#   bash launch/test.sh [pytest arguments]
# With PEERS=1 it installs transformers, torch, peft, trl and lm-eval too, and compares with them; as root on Debian it also installs
# Chromium, in which the review page is tested. Without them those tests are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/install.sh ".[test${PEERS:+,peers}]"
if [ -n "${PEERS:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromedriver >/dev/null; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver
fi
set -x
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/pytest --numprocesses=logical --maxprocesses=8 --dist=worksteal "$@"
