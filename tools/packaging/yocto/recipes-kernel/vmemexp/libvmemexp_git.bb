# SPDX-License-Identifier: GPL-2.0
SUMMARY = "Exports memory of a program as a dma-buf (library)"
DESCRIPTION = "libvmemexp, with which programs export, sync and query, and its headers."
SECTION = "libs"
LICENSE = "LGPL-2.1-or-later | MIT"
LIC_FILES_CHKSUM = "file://tools/lib/COPYING.LGPL-2.1;md5=4fbd65380cdd255951079008b364516c \
                    file://tools/lib/COPYING.MIT;md5=53adc1a3cf9b7110a3286b1977265a94"

inherit externalsrc

# The tree that this layer is part of.
EXTERNALSRC = "${@os.path.realpath('${THISDIR}/../../../../..')}"
EXTERNALSRC_SYMLINKS = ""

EXTRA_OEMAKE = "-C ${S}/tools OUTPUT=${B} DESTDIR=${D} PREFIX=${prefix} LIBDIR=${libdir}"

do_compile() {
    oe_runmake lib
}

do_install() {
    oe_runmake install-lib
}
