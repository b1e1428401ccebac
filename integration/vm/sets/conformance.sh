#!/usr/bin/env bash
# conformance.sh ROOT: the user that runc's rootless tests run as.
set -euo pipefail
chroot "$1" useradd -m -s /bin/bash -u 1100 rootless
