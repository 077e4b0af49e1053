#!/usr/bin/env bash
# The Debian packages that the interoperability runs drive.
exec "$(dirname "$0")/../bin/install-packages.sh" \
  openssl curl lftp swaks libnet-ssleay-perl libio-socket-ssl-perl baresip-core python3 \
  libnss3-tools gnutls-bin gpgsm gpg-agent s-nail \
  strongswan-pki libstrongswan-extra-plugins libstrongswan-standard-plugins knot postgresql-15 knot-dnsutils
