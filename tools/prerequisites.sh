#!/usr/bin/env bash
# Prints the Python to use. Installs what the build needs and the machine lacks, where apt and root allow; else says what.
set -euo pipefail

find_python() {
  for name in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$name" ] && command -v "$name" >/dev/null || continue
    "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && { command -v "$name"; return; }
  done
  return 1
}

has_headers() {
  "$1" -c 'import ensurepip, os, sysconfig, venv, sys
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null
}

missing=()
command -v g++ >/dev/null || missing+=(g++)
python=$(find_python) || missing+=(python3)
{ [ -n "${python:-}" ] && has_headers "$python"; } || missing+=(python3-venv python3-dev)

if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  echo "installing ${missing[*]}" >&2
  if ! { command -v apt-get >/dev/null && "${as_root[@]}" apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2
  then
    echo "error: needed and not installed: ${missing[*]} (Python must be 3.11 or later)" >&2
    exit 1
  fi
  python=$(find_python) || { echo "error: Python 3.11 or later is needed" >&2; exit 1; }
fi
echo "$python"
