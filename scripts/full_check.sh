#!/usr/bin/env bash
# The long check: slow tests, the scan with each compiler, the quick tests on older instruction sets (torch's, and those
# of the compiled scan), then install, import, --help and scan tests on every Python we support. COMPILERS (default: g++
# and clang++) names the compilers; SLOW=0, COMPILERS=" " and INSTRUCTION_SETS="" leave parts out.
# PYTHONS names the interpreters (default: python3.10 to python3.13 on PATH). Prints a dated summary.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
summary=()

if [ "${SLOW:-1}" = 1 ]; then
  python3 -m pytest -m slow
  summary+=("slow tests passed on $(python3 --version)")
fi

for compiler in ${COMPILERS:-g++ clang++}; do
  CXX="$compiler" XDG_CACHE_HOME="$work/$compiler" python3 -m pytest -q -m "not slow" tests/ops/test_native_kernels.py
  summary+=("scan tests passed with $("$compiler" --version | head -n 1)")
done
# torch's instruction set, that of the scan
for pair in ${INSTRUCTION_SETS-default:portable avx2:avx2 :avx512}; do
  ATEN_CPU_CAPABILITY=${pair%:*}
  MAMBAIR_ISA=${pair#*:}
  export ATEN_CPU_CAPABILITY MAMBAIR_ISA
  [ -n "$ATEN_CPU_CAPABILITY" ] || unset ATEN_CPU_CAPABILITY
  if python3 -c 'from mambair.ops import native; native.load() or exit(native.why_not())'; then
    python3 -m pytest -q -m "not slow"
    summary+=("quick tests passed with torch's instruction set ${ATEN_CPU_CAPABILITY:-as it is} and the scan's $MAMBAIR_ISA")
  else
    summary+=("not tried: the scan on $MAMBAIR_ISA, which this machine cannot run")
  fi
done
unset ATEN_CPU_CAPABILITY MAMBAIR_ISA

for python in ${PYTHONS:-python3.10 python3.11 python3.12 python3.13}; do
  environment="$work/environment"
  "$python" -m venv "$environment"
  "$environment/bin/pip" wheel --quiet --no-deps --wheel-dir "$work/wheels" .
  test -f "$work"/wheels/mambair-*-py3-none-any.whl
  "$environment/bin/pip" install --quiet "$work"/wheels/mambair-*.whl pytest hypothesis
  "$environment/bin/python" -m pytest -q -m "not slow" tests/test_imports.py tests/test_registry.py tests/options tests/ops tests/archs
  summary+=("$("$environment/bin/python" -c 'import sys, torch; print(f"Python {sys.version.split()[0]}, torch {torch.__version__}: wheel, import, options, scan and network tests passed")')")
  rm -rf "$environment" "$work/wheels"
done

printf '\n%s, %s\n' "$(date -u +%Y-%m-%d)" "$(uname -sm)"
printf -- '- %s\n' "${summary[@]}"
