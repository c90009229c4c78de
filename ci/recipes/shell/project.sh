#!/usr/bin/env bash
# Assay's own checks for any CI service: every verb is sessions of nox, in the checkout that this file is in.
#
#   project.sh checks | build TARGET [MODEL ...] | gate BASE | nightly | tune MODEL ...
#
# gate writes gate.md and gate.xml, nightly adds to results/ and writes the site to results/site, tune commits
# new records on a branch, which is left to be pushed.
set -euo pipefail
cd "$(dirname "$0")/../../.."

nox() { "${PYTHON:-python3}" -m nox --non-interactive "$@"; }

verb=${1:-}
if [ $# -gt 0 ]; then shift; fi
case "$verb" in
  checks)
    nox --session lint types docs tests runtime_only
    ;;
  build)
    target=${1:?which target?}
    shift
    nox --session "build-$target" -- "${@:-light-squeezenet}"
    ;;
  gate)
    nox --session gate -- --base "${1:?which base?}" --models silero-vad,light-squeezenet \
      --markdown gate.md --junit gate.xml
    ;;
  nightly)
    nox --session bench asv dashboard
    ;;
  tune)
    nox --session tune -- "${@:?which models?}"
    git add compile/assay/compile/records
    if ! git diff --cached --quiet; then
      git switch --create "tuning-records-$(date -u +%Y%m%d)"
      git commit --message "Add tuning records"
    fi
    ;;
  *)
    sed -n '4p' "$0" >&2
    exit 2
    ;;
esac
