"""What a library of kernels may contain: checked after linking, and by the tests."""

from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

# Functions of the C library that kernels call. They are found in the process, so the library needs no other one by
# name, and fits every C library: glibc and musl.
IMPORTS = frozenset({"memset", "sched_yield"})
_MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
_WRITABLE, _EXECUTABLE = 2, 1


def faults(path: Path, machine: str, exports: set[str]) -> list[str]:
    """What is wrong with a library for a machine, which must export these functions and nothing else."""
    found = []
    with path.open("rb") as file:
        elf = ELFFile(file)
        if elf["e_machine"] != _MACHINES[machine] or elf["e_type"] != "ET_DYN":
            found.append(f"expected a shared library for {machine}, found {elf['e_type']} for {elf['e_machine']}")
        symbols, dynamic = elf.get_section_by_name(".dynsym"), elf.get_section_by_name(".dynamic")
        if not isinstance(symbols, SymbolTableSection) or not isinstance(dynamic, DynamicSection):
            return [*found, "it has no table of dynamic symbols"]
        named = [symbol for symbol in symbols.iter_symbols() if symbol.name]
        undefined = {symbol.name for symbol in named if symbol["st_shndx"] == "SHN_UNDEF"}
        defined = {symbol.name for symbol in named} - undefined
        if undefined - IMPORTS:
            found.append(f"it calls {', '.join(sorted(undefined - IMPORTS))}, which are outside of it")
        if defined != exports:
            found.append(f"expected the functions {sorted(exports)}, found {sorted(defined)}")
        tags = {tag.entry.d_tag for tag in dynamic.iter_tags()}
        if tags & {"DT_NEEDED", "DT_TEXTREL", "DT_INIT", "DT_INIT_ARRAY", "DT_RPATH", "DT_RUNPATH"}:
            found.append(f"expected no other libraries, no relocated code and no initialisers, found {sorted(tags)}")
        segments = {segment["p_type"]: segment["p_flags"] for segment in elf.iter_segments()}
        if segments.get("PT_GNU_STACK", _EXECUTABLE) & _EXECUTABLE:
            found.append("it asks for an executable stack")
        both = _WRITABLE | _EXECUTABLE
        if any(segment["p_flags"] & both == both for segment in elf.iter_segments()):
            found.append("it has memory that is writable and executable")
    return found
