# Sourced by demo.sh and test.sh: a virtual environment in .venv that holds this checkout and what it needs.

install_into_venv() {
    wanted=$(cat pyproject.toml .ci/venv.sh; echo "$1")
    stamp=.venv/installed
    if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    make_venv
    echo "installing $1 into .venv" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable "$1"
    printf '%s\n' "$wanted" > "$stamp"
}

make_venv() {
    [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1 && return 0
    python=$(find_python) || { echo "smtpf needs Python 3.11 or newer" >&2; exit 1; }
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
        else
            echo "this Python cannot make virtual environments: install its venv package (Debian: apt-get install python3-venv)" >&2
            exit 1
        fi
    fi
    "$python" -m venv .venv
}

find_python() {
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}
