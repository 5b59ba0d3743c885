#!/bin/sh
# Every check of this project, set up from nothing: style, types, tests with coverage. Arguments go to pytest.
set -eu
cd "$(dirname "$0")"
. ./.ci/venv.sh
. ./.ci/daemons.sh
install_daemons
install_into_venv ".[test]"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy -p smtpf
.venv/bin/coverage erase
status=0
.venv/bin/coverage run -m pytest "$@" || status=$?
# Into a file, so that the closing line of the tests is the last one printed.
.venv/bin/coverage report --skip-covered --sort=cover > .venv/coverage.txt
exit "$status"
