#!/bin/sh
# Train the fashion-diffusion model and put it where Headrace finds it.
#
#   run.sh                    some 15 minutes on two cores; replaces the model in ../models
#   run.sh --out DIR          the same into another folder
#   run.sh --quick --out DIR  a minute: every step of it, with a model that draws only blurs
#
# Nothing is replaced before the new model has passed its checks. THREADS sets the number of threads
# (default: the cores, at most 4), KEEP=1 keeps the folder with weights and sample sheet.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
python=/usr/bin/python3
packages="python3-torch python3-onnx libopenblas0-pthread dataset-fashion-mnist"
cores=$(nproc)
threads=${THREADS:-$((cores < 4 ? cores : 4))}
out= quick=

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }

while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=--quick ;;
    --out) out=${2:?--out needs a folder}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done
if [ -n "$quick" ] && [ -z "$out" ]; then
    echo "run.sh: --quick needs --out: its model is not worth keeping" >&2
    exit 2
fi
out=${out:-$here/../models/fashion-diffusion/1}

missing=
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "run.sh: installing Debian's$missing"
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root=sudo
    $as_root apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $missing
fi

work=$(mktemp -d)
trap '[ -n "${KEEP:-}" ] && echo "run.sh: kept $work" || rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS="$threads"

least=
[ -z "$quick" ] || least="--least-item 0 --least-colour 0"
cd "$here"
$python train.py --out "$work/weights" --threads "$threads" $quick
$python export.py --weights "$work/weights" --out "$work/model"
# shellcheck disable=SC2086
$python check.py --models "$work/model" --judge "$work/weights/judge.pt" \
    --sheet "$work/sheet.png" --threads "$threads" $least

cd - >/dev/null
mkdir -p "$out"
for file in text_encoder.onnx unet.onnx vae_decoder.onnx vocab.txt; do
    cp "$work/model/$file" "$out/.$file.new" && mv "$out/.$file.new" "$out/$file"
done
echo "run.sh: the model is in $out"
