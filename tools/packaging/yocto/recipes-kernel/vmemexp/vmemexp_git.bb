# SPDX-License-Identifier: GPL-2.0
SUMMARY = "Exports memory of a program as a dma-buf (kernel module)"
DESCRIPTION = "The module, its header, a udev rule that gives the device to the group video, and a file that has it loaded at boot."
SECTION = "kernel"
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://COPYING;md5=b234ee4d69f5fce4486a80fdaf4a4263"

inherit module externalsrc

# The tree that this layer is part of, in which the module is built.
EXTERNALSRC = "${@os.path.realpath('${THISDIR}/../../../../..')}"
EXTERNALSRC_SYMLINKS = ""
EXTERNALSRC_BUILD = "${EXTERNALSRC}"

EXTRA_OEMAKE += "KDIR=${STAGING_KERNEL_DIR} DESTDIR=${D} PREFIX=${prefix}"
MAKE_TARGETS = "all"
MODULES_INSTALL_TARGET = "install-module"

FILES:${PN} += "${nonarch_libdir}/udev ${nonarch_libdir}/modules-load.d"
