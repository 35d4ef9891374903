#!/bin/sh
# Becomes the container of a pod: pod.sh FOLDER HOST_NAME USER GROUP FS_GROUP COMMAND...
#
# Runs in new mount, process, network and host-name namespaces. FOLDER/mounts has a line for each mount: what, where, ro or rw.
# The root file system is this machine's /usr, without its /usr/local, as an image of the same distribution has it.
set -eu
folder=$1 name=$2 user=$3 group=$4 fs_group=$5
shift 5

mount --make-rprivate /
root=$folder/root
mkdir -p "$root"
mount -t tmpfs -o mode=755 root "$root"
cd "$root"
mkdir -p usr proc dev/shm etc tmp
mount --bind /usr usr
mount -t tmpfs -o mode=755 local usr/local
mkdir -p usr/local/bin
mount -o remount,bind,ro usr
cp -a /bin /lib /lib64 /sbin .
cp /etc/ld.so.cache etc
cp "$folder/hosts" etc/hosts
echo 'hosts: files' >etc/nsswitch.conf
mount -t proc proc proc
for device in null zero full random urandom; do
  touch "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
while IFS='	' read -r what where access; do
  if [ -d "$what" ]; then mkdir -p ".$where"; else mkdir -p ".$(dirname "$where")"; touch ".$where"; fi
  mount --bind "$what" ".$where"
  if [ "$access" = ro ]; then mount -o remount,bind,ro ".$where"; fi
done <"$folder/mounts"
mount -o remount,ro usr/local
mount -o remount,ro .
hostname "$name"
exec chroot . setpriv --reuid "$user" --regid "$group" --groups "$fs_group" --no-new-privs --bounding-set=-all --inh-caps=-all \
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
