#!/bin/sh
# Before a removal, not before an upgrade (Debian says "upgrade", RPM counts what stays): the daemons end, and the
# units that run here go on without them. State and configuration stay until the package is purged.
set -e
case "$1" in remove | 0) ;; *) exit 0 ;; esac
if [ -d /run/systemd/system ]; then
    systemctl disable --now unit-agent.service unit-master.service || true
fi
exit 0
