#!/bin/sh
# Try smtpf out: a node on 127.0.0.1:2525 with a mail server behind it, everything in work/demo.
set -eu
cd "$(dirname "$0")"
. ./.ci/venv.sh
install_into_venv .
exec .venv/bin/smtpf demo --work work/demo "$@"
