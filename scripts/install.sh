#!/usr/bin/env bash
# Installs Strata and its pinned libraries into .venv, or returns at once if that is done:
#
#     scripts/install.sh          what `make demo` needs
#     scripts/install.sh dev      and the tools of `make test`
#
# Optional, from the environment: PYTHON=/path/to/python (3.11 to 3.14); DEVICE=cpu or cuda (by default cuda where
# `nvidia-smi` works); TORCH_INDEX=URL, one more pip index to find torch on, such as PyTorch's own of CPU builds: pip's
# usual index often has only the CUDA build, which runs on a CPU but takes 5 GB.
#
# .venv belongs to this script: one that it did not finish, or made for something else, is built anew.
set -euo pipefail
cd "$(dirname "$0")/.."
extra=${1:-}
stamp=.venv/strata-installed # line 1: device, Python and folder it was built for; then what was installed
log=.venv/install.log

fail() {
    echo "error: $1" >&2
    exit 2
}

# Prints "3.12 /its/executable" for a usable Python, otherwise why it is not. A virtual environment's Python answers for
# the one it was made with, since .venv may be about to be removed.
probe() {
    local answer
    answer=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2], sys._base_executable)' 2>/dev/null) || answer=
    case $answer in
        "") echo "does not run" ;;
        3.1[1-4]" "*) "$1" -c 'import ensurepip, venv' 2>/dev/null && echo "$answer" || echo "has no venv module" ;;
        *) echo "is version ${answer%% *}" ;;
    esac
}

# What went wrong, from the end of pip's log, and what to do about it.
remedy() {
    local end
    end=$(tail -n 20 "$log")
    if grep -qi 'no space left' <<<"$end"; then
        echo "the disk is full; free some space here and in ${TMPDIR:-/tmp} (TMPDIR moves the latter)"
    elif grep -qiE 'connection|timed out|resolution|SSLError|ProxyError' <<<"$end"; then
        echo "pip reaches no package index; check the network, or name an index in PIP_INDEX_URL"
    elif grep -qi 'no matching distribution' <<<"$end"; then
        echo "pip finds no build for Python $version on $(uname -m); check PIP_INDEX_URL and the network, or change PYTHON"
    else
        tail -n 1 <<<"$end" | cut -c 1-200
    fi
}

# run WHAT COMMAND...: one line for the user; the command's own output goes to the log.
run() {
    echo "installing $1 ..."
    "${@:2}" </dev/null >>"$log" 2>&1 || fail "could not install $1: $(remedy); details are in $log"
}

pip=(.venv/bin/python -m pip install --no-input --progress-bar off)

# Ends with the reason unless everything imports and is what was asked for.
check='
import sys, torch
pin, device = sys.argv[1:]
installed = f"torch=={torch.__version__}"
if installed.split("+")[0] != pin or (device == "cuda" and not torch.version.cuda):
    sys.exit(f"pip took {installed}, not {pin} for {device}: name an index that has it in TORCH_INDEX")
import fbgemm_gpu, torchrec, pipeline
'

[ "$(uname -s)" = Linux ] || fail "fbgemm has no build for $(uname -s); run Strata on Linux or in a Linux container"

# What an earlier run built for stays, unless the environment asks for something else.
built_for=$(head -n 1 "$stamp" 2>/dev/null) || built_for=
device=${DEVICE:-${built_for%% *}}
[ -n "$device" ] || if nvidia-smi >/dev/null 2>&1; then device=cuda; else device=cpu; fi
case $device in
    cpu) fbgemm=fbgemm-gpu-cpu==1.8.0 gigabytes=4 ;;
    cuda) fbgemm=fbgemm-gpu==1.8.0 gigabytes=12 ;;
    *) fail "DEVICE is '$device'; give cpu or cuda" ;;
esac
if [ -n "${PYTHON:-}" ]; then pythons=("$PYTHON"); else pythons=(.venv/bin/python python3 python3.{13,12,11,14}); fi
refused=
for candidate in "${pythons[@]}"; do
    read -r version python < <(probe "$candidate")
    case $version in 3.*) break ;; *) refused+="$candidate $version $python, " version= ;; esac
done
[ -n "$version" ] || fail "no usable Python (${refused%, }); install 3.11 to 3.14 with its venv module, or name one in PYTHON"

pins=$(cat pyproject.toml scripts/install.sh | cksum)
if [ "$built_for" != "$device $version $PWD" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    echo "building .venv for Python $version, $device (a few minutes the first time)"
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1e6) }')
    [ "$free" -ge $gigabytes ] || fail "the disk has $free GB free, $device needs $gigabytes GB; free some space"
    { rm -rf .venv && mkdir .venv; } 2>/dev/null || fail "cannot write in $PWD; clone Strata where you may write"
    run "the virtual environment" "$python" -m venv .venv
fi
if ! grep -qs "^$pins" "$stamp"; then
    rm -f "$stamp"
    torch=$(grep -oP '"\Ktorch==[0-9.]*' pyproject.toml)
    run "$torch" "${pip[@]}" ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$torch"
    # Without its dependencies: it demands the CUDA build of fbgemm, which overwrites the files of the CPU build.
    run "torchrec and $fbgemm" "${pip[@]}" --no-deps torchrec==1.8.0 "$fbgemm"
    run "Strata's other libraries" "${pip[@]}" --editable .
    .venv/bin/python -I -W ignore -c "$check" "$torch" "$device" </dev/null >>"$log" 2>&1 ||
        fail "what was installed does not work: $(grep -v 'Could not load' "$log" | tail -n 1); details are in $log"
    printf '%s\n' "$device $version $PWD" "$pins" >"$stamp"
fi
if [ -n "$extra" ] && ! grep -qx "$pins $extra" "$stamp"; then
    run "the $extra tools" "${pip[@]}" --editable ".[$extra]"
    echo "$pins $extra" >>"$stamp"
fi
