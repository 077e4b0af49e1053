#!/usr/bin/env bash
# Installs the Debian packages named as arguments, if they are missing. Opens no port, starts no service; a second run is quick.
set -euo pipefail

if ! command -v apt-get >/dev/null; then
  echo "this is no Debian; install yourself: $*"
  exit 0
fi

missing=()
for package in "$@"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" != 0 ]; then
  echo "not root, so nothing was installed; missing: ${missing[*]}"
  exit 0
fi

# Keeps package scripts from starting services; taken away again if we made it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
install || { apt-get update -qq && install; }
