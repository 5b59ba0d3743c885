# Sourced by test.sh: the daemons and clients that the tests talk to, from the packages of Debian or Ubuntu.

daemons="postfix clamav-daemon spamassassin spamd rbldnsd unbound nsd p0f redis-server swaks curl openssl"

install_daemons() {
    missing=""
    for package in $daemons; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "cannot install, so tests that need them fail:$missing" >&2
        return 0
    fi
    # The tests start their own daemons with their own configuration; the system's must not run.
    policy=/usr/sbin/policy-rc.d
    made=""
    if [ ! -e "$policy" ]; then
        made=$policy
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
    # A release may lack one: spamd is part of spamassassin before Debian 12.
    offered=""
    for package in $missing; do
        apt-cache show "$package" >/dev/null 2>&1 && offered="$offered $package"
    done
    # shellcheck disable=SC2086
    [ -z "$offered" ] || apt-get install -y -qq --no-install-recommends $offered >/dev/null
    [ -z "$made" ] || rm -f "$made"
}
