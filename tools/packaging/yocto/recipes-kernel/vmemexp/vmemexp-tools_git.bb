# SPDX-License-Identifier: GPL-2.0
SUMMARY = "Exports memory of a program as a dma-buf (command)"
DESCRIPTION = "The command vmemexp, which checks the driver, shows a picture through it and lists what is exported."
SECTION = "console/utils"
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://COPYING;md5=b234ee4d69f5fce4486a80fdaf4a4263"
DEPENDS = "libdrm libpng"

inherit externalsrc pkgconfig

# The tree that this layer is part of.
EXTERNALSRC = "${@os.path.realpath('${THISDIR}/../../../../..')}"
EXTERNALSRC_SYMLINKS = ""

EXTRA_OEMAKE = "-C ${S}/tools OUTPUT=${B} DESTDIR=${D} PREFIX=${prefix}"

do_compile() {
    oe_runmake
}

do_install() {
    oe_runmake install-command
}
