#!/usr/bin/env bash
# The gate of a repository of models, for any CI service and for a desk. Run it in a checkout with the history
# of both commits; it writes gate.md, gate.json and gate.xml there, and ends with the exit code of assay gate.
#
#   gate.sh [OPTION OF ASSAY GATE ...]
#
# From the environment: ASSAY, what pip installs (assay[gate]); PYTHON, the interpreter for it (python3);
# VENV, where to install it (a temporary folder, removed at the end); BASE, the commit to compare with, and
# MODELS, paths or names with commas (those of assay-gate.toml); INCONCLUSIVE, `pass` to end with 0 where the
# gate ends without an answer (fail).
set -euo pipefail

if [ -z "${VENV:-}" ]; then
  VENV=$(mktemp -d)
  trap 'rm -rf "$VENV"' EXIT
fi
if [ ! -x "$VENV/bin/assay" ]; then
  "${PYTHON:-python3}" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet "${ASSAY:-assay[gate]}"
fi

arguments=()
if [ -n "${BASE:-}" ]; then arguments+=(--base "$BASE"); fi
if [ -n "${MODELS:-}" ]; then arguments+=(--models "$MODELS"); fi

rm -f gate.md gate.json gate.xml
code=0
"$VENV/bin/assay" gate "${arguments[@]}" --head HEAD --markdown gate.md --junit gate.xml --report gate.json "$@" ||
  code=$?
# 24: nothing got worse for sure, but the answer is not clear for everything.
if [ "$code" -eq 24 ] && [ "${INCONCLUSIVE:-fail}" = pass ]; then
  echo "The gate found no answer within its budget, which is let pass." >&2
  exit 0
fi
exit "$code"
