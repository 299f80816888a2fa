# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What every script here shares: messages, progress for slow steps, clean-up on exit and Ctrl-C.
# Sourced by scripts/*; messages go to stderr so that stdout stays usable by other programs.

WEFT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export WEFT_ROOT
PROGRESS_AFTER_S=2  # a step that takes longer says so
PROGRESS_EVERY_S=15 # and again, where there is no terminal to animate
FAILED_LOG_LINES=40 # of a failed step's log shown

if [[ -t 2 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' RESET=$'\e[0m'
else
    BOLD='' RED='' GREEN='' YELLOW='' RESET=''
fi

say() { printf '%s\n' "$*" >&2; }
good() { printf '%s%s%s\n' "$GREEN" "$*" "$RESET" >&2; }
warn() { printf '%swarning:%s %s\n' "$YELLOW" "$RESET" "$*" >&2; }
headline() { printf '%s== %s%s\n' "$BOLD" "$*" "$RESET" >&2; }
fail() { printf '%serror:%s %s\n' "$RED" "$RESET" "$*" >&2; }
die() {
    fail "$@"
    exit 1
}
usage_error() {
    fail "$*"
    say "Try '$0 --help'."
    exit 2
}

# need_value OPTION COUNT: an option that takes a value must have one.
need_value() { [[ $2 -ge 2 ]] || usage_error "$1 needs a value"; }

# need_number OPTION VALUE: from 1 on.
need_number() {
    [[ $2 =~ ^[1-9][0-9]{0,11}$ ]] || usage_error "$1 takes a number from 1, not '$2'"
}

# at_exit COMMAND...: runs on every way out, last registered first; EXIT_STATUS tells which way.
AT_EXIT=()
EXIT_STATUS=0
at_exit() { AT_EXIT+=("$(printf '%q ' "$@")"); }
run_at_exit() {
    EXIT_STATUS=$?
    local i
    trap - EXIT
    trap '' INT TERM
    for ((i = ${#AT_EXIT[@]} - 1; i >= 0; i--)); do
        eval "${AT_EXIT[i]}" || true
    done
    exit "$EXIT_STATUS"
}
trap run_at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# model_name FILE: what a worker calls it by default (host_model_name() in kernels/host.c).
model_name() {
    local name
    name=$(basename -- "${1,,}" .gguf)
    [[ ! $name =~ ^(.+)[.-](i?q[0-9][a-z0-9_]*|b?f16|f32)$ ]] || name=${BASH_REMATCH[1]}
    printf '%s\n' "$name"
}

STEP_PID=''
stop_step() {
    [[ -n $STEP_PID ]] || return 0
    kill -TERM -- "-$STEP_PID" 2>/dev/null || true
    STEP_PID=''
}
at_exit stop_step

# show_progress LABEL START: one line that stays (log) or moves (terminal).
show_progress() {
    local label=$1 elapsed=$((SECONDS - $2))
    ((elapsed >= PROGRESS_AFTER_S)) || return 0
    if [[ -t 2 ]]; then
        printf '\r%s ... %d s ' "$label" "$elapsed" >&2
    elif ((elapsed >= PROGRESS_NEXT)); then
        say "$label ... $elapsed s"
        PROGRESS_NEXT=$((elapsed + PROGRESS_EVERY_S))
    fi
}

# step LABEL LOG COMMAND...: runs it in the background, output to LOG, progress on stderr. On
# failure shows the end of the log. Returns the command's status.
step() {
    local label=$1 log=$2 start=$SECONDS status=0
    shift 2
    PROGRESS_NEXT=$PROGRESS_AFTER_S
    # Job control puts the command into a process group of its own, so Ctrl-C can end all of it.
    set -m
    "$@" </dev/null >"$log" 2>&1 &
    STEP_PID=$!
    set +m
    while kill -0 "$STEP_PID" 2>/dev/null; do
        sleep 0.2
        show_progress "$label" "$start"
    done
    wait "$STEP_PID" || status=$?
    STEP_PID=''
    [[ -t 2 ]] && ((SECONDS - start >= PROGRESS_AFTER_S)) && printf '\r\e[K' >&2
    if ((status == 0)); then
        say "$label: done in $((SECONDS - start)) s"
        return 0
    fi
    fail "$label failed (status $status) after $((SECONDS - start)) s; the end of $log:"
    tail -n "$FAILED_LOG_LINES" "$log" >&2 || true
    return "$status"
}
