# shellcheck shell=bash
# Sourced by local.sh and test.sh: makes .venv and installs the package given as $1, with pinned versions.
python=${PYTHON:-python3}
# Large arrays are freed and allocated again at each step. With huge pages that costs far fewer page faults.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || {
  echo "lmsi_jax needs Python 3.11 to 3.13, and $python is $("$python" --version 2>&1). Set PYTHON=/path/to/python3.11." >&2
  exit 2
}
[ -x .venv/bin/pip ] || "$python" -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check --constraint launch/constraints.txt --editable "$1"
