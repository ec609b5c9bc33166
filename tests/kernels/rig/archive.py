# SPDX-License-Identifier: MIT
"""Writes an initramfs: a cpio archive in the "newc" format of the kernel's
Documentation/driver-api/early-userspace/buffer-format.rst. Everything in it belongs to root."""
import stat


class Archive:
    def __init__(self):
        self.parts = []
        self.number = 0

    def folder(self, path):
        self._add(path, stat.S_IFDIR | 0o755)

    def file(self, path, content, mode=0o644):
        self._add(path, stat.S_IFREG | mode, content)

    def link(self, path, target):
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path, major, minor):
        self._add(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def write(self, path):
        self._add("TRAILER!!!", 0)
        path.write_bytes(b"".join(self.parts))

    def _add(self, path, mode, content=b"", device=(0, 0)):
        self.number += 1
        name = path.lstrip("/").encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, major, minor, of device: major, minor; length
        # of the name, checksum (unused)
        fields = (self.number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self.parts += [padded(header + name), padded(content)]


def padded(data):
    return data + bytes(-len(data) % 4)
