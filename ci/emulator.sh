#!/usr/bin/env bash
# Install what tests need of the system: PostgreSQL's server, and what runs levels that this machine lacks: Mesa's
# Vulkan device on the CPU, Chromium, QEMU, and Bochs for `assay verify --emulate`, with what makes a CD image from
# packages and a Linux kernel in the user's cache folder.
# For Debian 12, as root.
set -euo pipefail
folder="${XDG_CACHE_HOME:-$HOME/.cache}/assay/emulator"
export DEBIAN_FRONTEND=noninteractive
apt-get -o Acquire::Retries=3 update -qq
apt-get -o Acquire::Retries=3 install -y -qq --no-install-recommends \
  bochs bochsbios bochs-term vgabios isolinux syslinux-common xorriso busybox-static qemu-user \
  libc6-arm64-cross libclblast1 \
  libvulkan1 mesa-vulkan-drivers pocl-opencl-icd chromium chromium-driver postgresql-15 >/dev/null
[ -f "$folder/vmlinuz" ] && exit 0
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
# The newest kernel, unpacked and not installed: nothing of this machine's start changes.
package="$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')"
apt-get download -qq "$package"
dpkg -x ./*.deb kernel
mkdir -p "$folder"
cp kernel/boot/vmlinuz-* "$folder/vmlinuz"
