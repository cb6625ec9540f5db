#!/bin/bash
# usage: boot_systemd.sh FOLDER   (as root)
# A systemd as process 1 of its own namespaces, on a copy-on-write view of this machine's files: nothing that happens in
# there outlives it, and no unit of this machine is started but the journal. FOLDER is an empty folder for its mounts.
# ROOT: the root of another Debian system, in place of this machine's. STICK: a folder that is /mnt in there. NODES: more
# device nodes that are to be seen in there.
# PREPARE: a script that is run in the view before systemd. SIGKILL ends all of it.
set -euo pipefail
export folder=$1 ROOT=${ROOT:-/} NODES=${NODES:-} STICK=${STICK:-} PREPARE=${PREPARE:-}
# shellcheck disable=SC2016  # expanded in there
exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup bash -euo pipefail -c '
mount --make-rprivate /
mount -t tmpfs top "$folder"
mkdir "$folder"/{upper,work,root}
cd "$folder/root"
mount -t overlay view -o "lowerdir=$ROOT,upperdir=$folder/upper,workdir=$folder/work" .
cd "$folder/root"
mount -t proc proc proc
mount -t sysfs sys sys
mount -t cgroup2 cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
for node in null zero full random urandom tty $NODES; do touch dev/$node && mount --bind /dev/$node dev/$node; done
mkdir dev/shm dev/pts
mount -t tmpfs shm dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 pts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for number in 0 1 2; do ln -s fd/$number dev/$(echo stdin stdout stderr | cut -d" " -f$((number + 1))); done
mount -t tmpfs -o mode=755 run run
# Settings of the kernel belong to the whole machine.
for unit in systemd-sysctl systemd-modules-load systemd-remount-fs systemd-random-seed systemd-binfmt systemd-udevd; do
  ln -sf /dev/null etc/systemd/system/$unit.service
done
rm -rf etc/systemd/system/*.wants var/log/journal
printf "[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\n" >etc/systemd/system/rig.target
if [ -n "$STICK" ]; then mount --bind "$STICK" mnt; fi
if [ -e "$PREPARE" ]; then chroot . bash -euo pipefail -s <"$PREPARE"; fi
mkdir -p .old
pivot_root . .old
exec chroot . sh -c "umount -l /.old; exec env -i container=rig PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=rig.target --show-status=0" </dev/null
'
