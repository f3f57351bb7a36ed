#!/usr/bin/env bash
# Everything worth knowing about a GPU in one run of some minutes: parity of the kernels, tests, times, a training.
#
#   scripts/gpu_check.sh OUT [--crops CROPS] [--seconds 560] [--rehearse]
#
# --crops: a folder with train/ and val/, made by scripts/gpu_crops.py; without it nothing is trained.
# --seconds: the time there is in all; the training gets what the other steps leave.
# --rehearse: the same steps on a CPU with tiny sizes, to find typing errors before a card is at hand.
#
# Each step is a process with its own time limit and its own log; OUT/results.tar.gz and OUT/summary.txt are written anew
# after each, so that a stop loses one step at most. OUT/trained.safetensors is what the training reached. If parity
# fails the training runs on the torch path. No network is used. Exit code 0, or 1 if a step failed.
set -uo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
out="" crops="" seconds=560 rehearse=""

fail() {
  echo "gpu_check.sh: $1" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      sed -n '2,13s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    --rehearse) rehearse=--rehearse && shift ;;
    --crops | --seconds)
      [ $# -ge 2 ] || fail "$1: expected a value"
      declare "${1#--}=$2"
      shift 2
      ;;
    -*) fail "unknown option $1; run it with --help" ;;
    *)
      [ -z "$out" ] || fail "one output folder, got $out and $1"
      out=$1 && shift
      ;;
  esac
done
[ -n "$out" ] || fail "name an output folder; run it with --help"
[[ $seconds =~ ^[0-9]+$ ]] || fail "--seconds $seconds: expected whole seconds"
[ -z "$crops" ] || [ -d "$crops/train" ] || fail "--crops $crops: has no folder train; make it with scripts/gpu_crops.py"
mkdir -p "$out/results" || exit 2
out=$(realpath "$out")
[ -z "$crops" ] || crops=$(realpath "$crops")
cd "$repository" || exit 2
export PYTHONPATH="$repository${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
failed=0

left() { echo $((seconds - SECONDS)); }

# step NAME LIMIT COMMAND...: run with a limit in seconds, never beyond the time there is; keep log, exit code and time
step() {
  local name=$1 limit=$2 began=$SECONDS code
  shift 2
  [ "$limit" -lt "$(left)" ] || limit=$(left)
  if [ "$limit" -lt 5 ]; then
    echo "$name: not run, no time left" >>"$out/summary.txt"
    failed=1
    return 1
  fi
  timeout --signal=TERM --kill-after=15 "$limit" "$@" >"$out/results/$name.log" 2>&1
  code=$?
  echo "$name: exit code $code after $((SECONDS - began)) s (limit $limit s)" | tee -a "$out/summary.txt"
  tar -C "$out" -czf "$out/results.part" results && mv "$out/results.part" "$out/results.tar.gz"
  [ "$code" -eq 0 ] || failed=1
  return "$code"
}

: >"$out/summary.txt"
{
  date -u "+%Y-%m-%d %H:%M UTC"
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>&1 | head -n 4
} | tee -a "$out/summary.txt"
step machine 60 "$python" -m mambair doctor

backend=triton
step parity 90 "$python" benchmarks/gpu_parity.py --output "$out/results/parity.jsonl" $rehearse || backend=torch
step tests 120 "$python" -m pytest -q -p no:cacheprovider tests/ops/test_triton_gpu.py tests/ops/test_triton_kernels.py \
  tests/ops/test_selective_scan_fn.py
step scan 120 "$python" benchmarks/bench_scan.py --device cuda --cases C1 C2 C3 C5 C6 --dtype fp32 bf16 --repeat 3 --seconds 0.3 \
  --output "$out/results/scan" $rehearse
networks=(mambair_light_x4 mambair_classic_x4)
[ -z "$rehearse" ] || networks=(mambair_light_x4)
step networks 75 "$python" benchmarks/bench_scan.py --device cuda --networks "${networks[@]}" --dtype fp32 bf16 \
  --repeat 3 --seconds 0.3 --output "$out/results/networks" $rehearse

if [ -n "$crops" ]; then
  export MAMBAIR_SCAN_BACKEND=$backend
  amp=bf16 batch=128 probe=60
  [ -z "$rehearse" ] || { unset MAMBAIR_SCAN_BACKEND && amp=off batch=2 probe=4; }
  weights=$repository/mambair/weights/mambair_small_x4.safetensors
  train=(env -C "$out" "$python" "$repository/mambair/train.py" -opt "$repository/options/train/train_MambaIR_small_SR_x4.yml" --force_yml
    "datasets:train:dataroot_gt=$crops/train" "datasets:val:dataroot_gt=$crops/val" "datasets:train:total_batch_size=$batch"
    "datasets:train:num_worker_per_gpu=${WORKERS:-$(nproc)}" "train:amp=$amp"
    "path:pretrain_network_g=$weights" "train:optim_g:lr=1.5e-3" "logger:print_freq=$((probe / 4))")
  [ -z "$rehearse" ] || train+=("datasets:train:num_worker_per_gpu=1")
  # a short run for its speed, then one whose learning rate ends when the time does
  if step probe 60 "${train[@]}" name=probe "train:total_iter=$probe" "train:warmup_iter=-1" "val:val_freq=$probe"; then
    budget=$(($(left) - 45)) # start, validation, report and packaging take the rest
    [ -z "$rehearse" ] || budget=$((budget < 30 ? budget : 30))
    total=$("$python" -c 'import json, sys
records = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
speed = [r["seconds"] for r in records if "seconds" in r][-1]
print(max(int(0.9 * float(sys.argv[2]) / speed), 8))' "$out/experiments/probe/metrics.jsonl" "$budget")
    step training "$(($(left) - 15))" "${train[@]}" name=trained "train:total_iter=$total" "val:val_freq=$total" \
      "logger:save_checkpoint_freq=$(((total + 3) / 4))" && step packaging 30 "$python" scripts/package_weights.py \
      --experiment "$out/experiments/trained" --output "$out/trained.safetensors" \
      --training-data "$(find "$crops/train" -type f | wc -l) crops" --continues "$weights"
    cp "$out/experiments/trained/metrics.jsonl" "$out/results/training.jsonl"
    tar -C "$out" -czf "$out/results.tar.gz" results
  fi
fi
[ "$failed" -eq 0 ]
