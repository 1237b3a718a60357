"""Compiled libraries without what only debuggers and linkers read."""

from io import BytesIO

from elftools.elf.elffile import ELFFile

MAGIC = b"\x7fELF"


def stripped(content: bytes) -> bytes:
    """An ELF file without symbol tables and other sections that no segment holds: the loader maps segments alone.

    Every byte up to the end of the last segment stays where it is, beside the header's three fields about sections.
    It is done here since no `strip` for arm64 can be counted on, and LIEF 1.0 rewrites `.dynamic` and frees nothing.
    """
    elf = ELFFile(BytesIO(content))
    end = max(each["p_offset"] + each["p_filesz"] for each in elf.iter_segments())
    header = elf.header.copy()
    header.update(e_shoff=0, e_shnum=0, e_shstrndx=0)
    return bytes(elf.structs.Elf_Ehdr.build(header)) + content[elf["e_ehsize"] : end]
