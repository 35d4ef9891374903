"""Takes the folders of the machine that built it out of a program's run path: drop_run_path.py PROGRAM...

What begins with $ORIGIN, and so moves with the program, stays. Called by package.sh, for 64-bit ELF files.
"""

import struct
import sys

DYNAMIC, SYMBOLS = 6, 11
NEEDED, SONAME, RPATH, RUNPATH = 1, 14, 15, 29


def sections(data):
    """(type, offset, size, link) of each section."""
    if data[:5] != b"\x7fELF\x02":
        sys.exit("drop_run_path: not a 64-bit ELF file")
    at = struct.unpack_from("<Q", data, 0x28)[0]
    size, count = struct.unpack_from("<HH", data, 0x3A)
    fields = (struct.unpack_from("<IIQQQQIIQQ", data, at + number * size) for number in range(count))
    return [(f[1], f[4], f[5], f[6]) for f in fields]


def names(data, table):
    """Places in the string table that symbols point at."""
    used = set()
    for kind, offset, size, link in table:
        if kind == SYMBOLS:
            used.update(struct.unpack_from("<I", data, at)[0] for at in range(offset, offset + size, 24))
    return used


def drop(path):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    table = sections(data)
    for kind, offset, size, link in table:
        if kind != DYNAMIC:
            continue
        strings = table[link][1]
        entries = [struct.unpack_from("<qQ", data, at) for at in range(offset, offset + size, 16)]
        used = names(data, table) | {value for tag, value in entries if tag in (NEEDED, SONAME)}
        for value in (value for tag, value in entries if tag in (RPATH, RUNPATH)):
            begin = strings + value
            end = data.index(0, begin)
            old = bytes(data[begin:end])
            new = b":".join(folder for folder in old.split(b":") if folder.startswith(b"$ORIGIN"))
            # A linker may let another string be the end of this one.
            shared = [place for place in used if value + len(new) <= place < value + len(old)]
            if new == old:
                continue
            if shared or not old.startswith(new):
                sys.exit(f"drop_run_path: {path}: the run path {old.decode()} cannot be cut in place")
            data[begin:end] = new.ljust(len(old), b"\0")
    with open(path, "wb") as file:
        file.write(data)


for program in sys.argv[1:]:
    drop(program)
