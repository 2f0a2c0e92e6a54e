#!/bin/busybox sh
# PID 1 of the VM: makes a system of it, loads modules, runs one command,
# reports its exit code (or what is wrong) on the third serial port, and
# powers off.
export PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/root

if [ "$1" != again ]; then
    # The first root can be neither left with pivot_root nor hidden from a
    # user namespace, so all runs on another mount of it.
    /bin/busybox mount --bind / /mnt
    cd /mnt || exit 1
    /bin/busybox mount --move . /
    exec /bin/busybox chroot . /init again
fi

/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
hostname vm
ifconfig lo up

while read -r module; do
    insmod "$module" && continue
    echo "cannot load $module" | tee /dev/ttyS2
    [ -e /vm/interactive ] || poweroff -f
done </vm/modules

if [ -e /vm/interactive ]; then
    # A shell of its own session, so that it has job control and Ctrl-C.
    setsid cttyhack sh
else
    stty raw -F /dev/ttyS1
    sh /vm/command </dev/null >/dev/ttyS1 2>&1
    echo "$?" >/dev/ttyS2
fi
poweroff -f
