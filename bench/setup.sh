#!/usr/bin/env bash
# The Debian packages of the rivals that the benchmarks run beside us.
exec "$(dirname "$0")/../bin/install-packages.sh" openssl nginx-light util-linux slapd postgresql-15
