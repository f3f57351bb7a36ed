#!/usr/bin/env bash
# Train a network that travels with the package, cycle after cycle, in the background of other work.
#
#   scripts/train_packaged.sh --recipe options/train/train_MambaIR_small_SR_x4.yml --name mambair_small_x4 \
#       --data IMAGES --validation IMAGES [--cycles 10] [--first 8000] [--iterations 4000] [--rate 5e-4] [--home FOLDER]
#
# A cycle is one training to the end of its learning-rate schedule. The first cycle has --first iterations and starts
# from random weights (or from HOME/best/NAME.safetensors, if you put a file there). Each later cycle has --iterations,
# the peak learning rate --rate, and starts from the best weights so far. A cycle's weights replace the best ones only
# if their PSNR on the validation images is higher. Stop it at any moment (Ctrl-C, kill) and start it again: the
# interrupted cycle continues from its newest checkpoint.
#
# HOME (default: mambair-training beside the checkout) gets a git worktree of the current commit and an environment of
# its own, so that edits in the checkout cannot break a running training. One thread (THREADS=2 for two), lowest
# priority. PYTHON names an existing interpreter to use instead of a new environment.
# Afterwards: copy HOME/best/NAME.safetensors to mambair/weights/ and run scripts/make_model_card.py.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
recipe="" name="" data="" validation="" cycles=1 first=8000 iterations=4000 rate=5e-4 home="${repository%/*}/mambair-training"

fail() {
  echo "train_packaged.sh: $1" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      sed -n '2,19s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    --recipe | --name | --data | --validation | --cycles | --first | --iterations | --rate | --home)
      [ $# -ge 2 ] || fail "$1: expected a value"
      declare "${1#--}=$2"
      shift 2
      ;;
    *) fail "unknown option $1; run it with --help" ;;
  esac
done
for option in recipe name data validation; do
  [ -n "${!option}" ] || fail "--$option is required; run it with --help"
done
[ -f "$recipe" ] || fail "--recipe $recipe: no such file"
for folder in "$data" "$validation"; do [ -d "$folder" ] || fail "$folder: no such folder"; done
recipe=$(realpath "$recipe") data=$(realpath "$data") validation=$(realpath "$validation")

mkdir -p "$home/best" "$home/packaged" "$home/starts"
cd "$home"
if [ ! -d code ]; then
  git -C "$repository" worktree prune
  git -C "$repository" worktree add --quiet --detach "$PWD/code" HEAD
fi
python=${PYTHON:-$PWD/environment/bin/python}
if [ ! -x "$python" ]; then
  python3 -m venv environment
  environment/bin/pip install --quiet --disable-pip-version-check "./code[train]"
fi
export OMP_NUM_THREADS=${THREADS:-1}

# The PSNR of the last validation in a metrics.jsonl.
last_psnr() {
  "$python" -c 'import json, sys
print([r for r in map(json.loads, open(sys.argv[1], encoding="utf-8")) if "validation" in r][-1]["psnr"])' "$1"
}

best=best/$name.safetensors
for ((cycle = 1; cycle <= cycles; cycle++)); do
  run=${name}_cycle$cycle
  packaged=packaged/$run.safetensors
  [ ! -f "$packaged" ] || continue
  changes=("name=$run" "manual_seed=$cycle" "datasets:train:dataroot_gt=$data" "datasets:val:dataroot_gt=$validation")
  if [ -f "$best" ]; then
    start=starts/$run.safetensors # a copy: a cycle that is resumed must find what it began with
    [ -f "$start" ] || { cp "$best" "$start.part" && mv "$start.part" "$start"; }
    changes+=("path:pretrain_network_g=$PWD/$start" "train:total_iter=$iterations" "train:optim_g:lr=$rate")
  else
    changes+=("train:total_iter=$first")
  fi
  nice -n 19 "$python" code/mambair/train.py -opt "$recipe" --auto_resume --force_yml "${changes[@]}"
  continues=()
  [ ! -f "starts/$run.safetensors" ] || continues=(--continues "starts/$run.safetensors")
  "$python" code/scripts/package_weights.py --experiment "experiments/$run" --output "$packaged" "${continues[@]}" \
    --training-data "$(find "$data" -type f ! -name '*.md' ! -name '*.tsv' ! -name '*.txt' | wc -l) images of $(basename "$data")"
  psnr=$(last_psnr "experiments/$run/metrics.jsonl")
  before=$(cat "best/$name.psnr" 2>/dev/null || echo 0)
  if awk "BEGIN {exit !($psnr > $before)}"; then
    cp "$packaged" "$best.part" && mv "$best.part" "$best" && echo "$psnr" >"best/$name.psnr"
    echo "$run: PSNR $psnr on the validation images (best before: $before); kept as $PWD/$best"
  else
    echo "$run: PSNR $psnr on the validation images (best before: $before); not kept"
  fi
done
