#!/bin/sh
# After a removal, a purge (Debian) or an upgrade. A unit that still runs keeps its directory below the state.
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
case "$1" in
    remove | purge | 0) # with compiled files that were written after the installation
        rm -rf /opt/unitfleet
        rmdir /run/unitfleet 2>/dev/null || true ;;
esac
if [ "$1" = purge ] && [ -z "$(ls -A /var/lib/unitfleet/agent/units 2>/dev/null)" ]; then
    rm -rf /var/lib/unitfleet
    userdel unitfleet 2>/dev/null || true
fi
exit 0
