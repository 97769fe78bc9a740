#!/bin/sh
# After an installation or an upgrade. Running daemons are started anew; units are left alone (KillMode=process).
set -e
command -v systemd-sysusers >/dev/null && systemd-sysusers unitfleet.conf
if [ -d /run/systemd/system ]; then
    systemd-tmpfiles --create unitfleet.conf
    systemctl daemon-reload
    systemctl try-restart unit-master.service unit-agent.service || true
fi
exit 0
