#!/bin/sh
# Make the root file system of a whole host: systemd as PID 1, cloud-init, etcd, Docker Engine.
#   host-image.sh DIRECTORY SUITE MIRROR COMPONENTS
# Run in a mount and a pid namespace of its own (host_image.py): no mount and no process outlives it.
set -eu
root=$1 suite=$2 mirror=$3 components=$4

debootstrap --variant=minbase --components="$components" --include=ca-certificates "$suite" "$root" "$mirror"

# the way out is this machine's, while packages are fetched; no service is started in here
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
mount -t proc proc "$root/proc"
# by apt and not by debootstrap, which resolves no virtual packages (cloud-init needs one)
chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 sh -eu -c '
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends systemd systemd-sysv dbus python3 iproute2 iptables netbase \
        openssh-client curl etcd-server docker.io cloud-init
    systemctl disable etcd.service docker.service docker.socket containerd.service
    apt-get clean'
umount "$root/proc"
rm -rf "$root"/var/lib/apt/lists/* "$root/usr/sbin/policy-rc.d" "$root"/usr/share/doc/*/changelog* \
    "$root"/usr/share/locale/* "$root/var/lib/etcd/default"

# each host gets an identity at its first boot
: >"$root/etc/machine-id"
rm -f "$root/etc/hostname" "$root/var/lib/dbus/machine-id"
# they would change the settings of the machine below, or wait for a terminal that is not there
for unit in systemd-sysctl systemd-modules-load systemd-udevd console-getty getty@tty1 e2scrub_reap; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
done
# without en_US.UTF-8 and with the key types that are asked for, cloud-init has nothing to warn of
cat >"$root/etc/cloud/cloud.cfg.d/99_test.cfg" <<'END'
datasource_list: [NoCloud, Ec2, None]
locale: C.UTF-8
preserve_hostname: true
ssh_genkeytypes: [ed25519]
END
