# SPDX-License-Identifier: GPL-2.0
SUMMARY = "Exports memory of a program as a dma-buf (Python module)"
DESCRIPTION = "The module vmemexp, which exports NumPy arrays, mmaps and all else that has the buffer protocol."
SECTION = "devel/python"
LICENSE = "LGPL-2.1-or-later | MIT"
LIC_FILES_CHKSUM = "file://tools/lib/COPYING.LGPL-2.1;md5=4fbd65380cdd255951079008b364516c \
                    file://tools/lib/COPYING.MIT;md5=53adc1a3cf9b7110a3286b1977265a94"

inherit externalsrc python3-dir

# The tree that this layer is part of.
EXTERNALSRC = "${@os.path.realpath('${THISDIR}/../../../../..')}"
EXTERNALSRC_SYMLINKS = ""

EXTRA_OEMAKE = "-C ${S}/tools OUTPUT=${B} DESTDIR=${D} PYTHONDIR=${PYTHON_SITEPACKAGES_DIR}"
RDEPENDS:${PN} = "python3-core python3-ctypes python3-fcntl python3-mmap"

do_compile[noexec] = "1"

do_install() {
    oe_runmake install-python
}

FILES:${PN} = "${PYTHON_SITEPACKAGES_DIR}/vmemexp.py"
