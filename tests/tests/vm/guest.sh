#!/bin/busybox sh
# PID 1 of the Linux microVM: a network, a disk, a web server; resets when told.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "$module" || echo "cannot load $module"
done </vm/modules
ifconfig lo up
ifconfig eth0 10.79.0.2 netmask 255.255.255.0 up
echo "written by the guest" | dd of=/dev/vda bs=512 seek=8 conv=fsync
mkdir -p /www/cgi-bin
uname -r >/www/release
printf '#!/bin/sh\necho reset >/dev/ttyS0\nreboot -f\n' >/www/cgi-bin/reset
printf '#!/bin/sh\npoweroff -f\n' >/www/cgi-bin/off
chmod +x /www/cgi-bin/*
httpd -p 80 -h /www
echo "guest: serving"
while :; do sleep 3600; done
