# Sourced by the scripts beside it: a Python environment in .venv, and system packages where they are allowed.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $1"; [ -n "${2:-}" ] && say "hint: $2"; exit 1; }

# Run a command as root: as it is, or through sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else return 1; fi
}

# Install the Debian or Ubuntu packages that are missing. RUNLEVEL=1: no service of theirs is started.
need_packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || fail "cannot install ${missing[*]}: no apt-get here" "install them by hand"
    say "installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq \
        || fail "cannot install ${missing[*]}: apt-get update failed" "run as root or with sudo, or pass --no-install"
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq -y --no-install-recommends \
        "${missing[@]}" >/dev/null || fail "cannot install ${missing[*]}" "see apt-get's message above"
}

python_is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Make .venv with this project and the given extra ("" or "dev") in it, unless it is up to date.
need_venv() {
    local extra=$1 stamp="$top/.venv/.stamp-$1" python=${PYTHON:-python3}
    if [ -e "$stamp" ] && [ ! "$top/pyproject.toml" -nt "$stamp" ]; then return; fi
    python_is_new_enough "$python" || fail "cannot use $python: Python 3.11 or newer is needed" "set PYTHON=/path/to/python3"
    if [ ! -x "$top/.venv/bin/python" ]; then
        "$python" -m venv "$top/.venv" >/dev/null 2>&1 || {
            rm -rf "$top/.venv"
            [ "${install:-yes}" = yes ] || fail "cannot make .venv: the venv module is missing" "install python3-venv"
            need_packages python3-venv
            "$python" -m venv "$top/.venv" || fail "cannot make $top/.venv" "see the message above"
        }
    fi
    say "installing the Python packages into .venv"
    "$top/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$top${extra:+[$extra]}" \
        || fail "cannot install the Python packages" "see pip's message above"
    touch "$stamp"
}
