#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
"""A NumPy array in another process, without a copy.

    python3 python-numpy.py /tmp/socket &
    ./send-fd fetch /tmp/socket >picture

Draws a picture of 640x480 pixels, XRGB8888, exports it where it lies, and sends the
descriptor to the first client, which is send-fd.c in this example.
"""
import socket
import struct
import sys

import numpy

import vmemexp

WIDTH, HEIGHT = 640, 480


def main():
    """Serves one client."""
    if len(sys.argv) != 2:
        sys.exit("usage: python-numpy.py SOCKET")

    # Memory of whole pages, that NumPy works on like on its own.
    memory = vmemexp.alloc(HEIGHT * WIDTH * 4)
    frame = numpy.frombuffer(memory, numpy.uint32, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    y, x = numpy.indices(frame.shape, numpy.uint32)

    with vmemexp.Export(memory) as export, \
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        # Around every access of the CPU, if a device may have the dma-buf.
        with export.access(vmemexp.WRITE):
            frame[:] = x << 16 | y << 8 & 0xff00 | (x ^ y) & 0xff
        listener.bind(sys.argv[1])
        listener.listen(1)
        client, _ = listener.accept()
        with client:
            message = struct.pack("=QQ", export.offset, frame.nbytes)
            socket.send_fds(client, [message], [export.fd])
            # Until the client is done.
            while client.recv(1):
                pass


main()
