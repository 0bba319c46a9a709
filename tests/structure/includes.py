#!/usr/bin/env python3
"""Checks every #include under include/ and src/ against the rooms and floors of the design.

usage: includes.py ROOT          checks a source tree; prints one line per violation; exit code 1 if there is any
       includes.py --self-test   plants one violation of every rule in a scratch tree and expects it to be caught
"""
import pathlib
import re
import sys
import tempfile

FLOOR_2 = {"geometry", "memory", "timeline"}
BELOW_ENGINE = FLOOR_2 | {"plan", "kernel", "transport"}

# Which rooms a room may include, besides itself and base. What is not listed is forbidden.
MAY_INCLUDE = {
    "base": set(),
    "geometry": set(),
    "memory": set(),
    "timeline": set(),
    "plan": {"geometry", "timeline"},
    "kernel": {"geometry", "memory"},
    "transport": {"memory"},
    "store": FLOOR_2,
    "engine": BELOW_ENGINE,
    "input": BELOW_ENGINE | {"engine"},
    "model": BELOW_ENGINE | {"engine", "input"},
    "app": BELOW_ENGINE | {"engine", "store", "input", "model"},
}

# Headers of other projects: where under src/ they may be included. Under include/ never.
VENDORS = [
    (re.compile(r"boost/"), {"app"}),
    (re.compile(r"nlohmann/"), {"app", "store", "input", "model"}),
    (re.compile(r"oneapi/|dnnl"), {"model"}),
    (re.compile(r"mpi(-ext|_cxx|cxx)?\.h"), {"transport", "app"}),
    (re.compile(r"nccl\w*\.h"), {"transport"}),
    (re.compile(r"hdf5(_hl)?\.h|H5\w*\.h"), {"store"}),
    (re.compile(r"xxh\w*\.h"), {"store"}),
    (re.compile(r"cuda\w*\.(h|hpp|cuh)|cooperative_groups"), {"memory", "kernel", "transport", "app"}),
    (re.compile(r"sndfile\.hh?|soxr\.h|kissfft/|kiss_fft|z(lib|conf)\.h|pcre2\.h|utf8proc\.h"), {"input"}),
]

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SWITCH = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif)\b.*\bANNULUS_HAS_")
SUFFIXES = {".hpp", ".h", ".cpp", ".cu", ".cuh", ".inc"}


def room_of(path):
    """The room a file stands in: include/annulus/<room>/... or src/<room>/..., and whether it is a public header."""
    parts = path.parts
    return (parts[2], True) if parts[0] == "include" else (parts[1], False)


def included_room(name, quoted):
    """The room an include names, or None for another project's header or one beside the file itself."""
    parts = name.split("/")
    if parts[0] == "annulus" and len(parts) > 2:
        return parts[1]
    if quoted and len(parts) > 1 and parts[0] in MAY_INCLUDE:
        return parts[0]
    return None


def complaint(room, public, mark, name):
    """Why a file of the room must not include the name, or None."""
    if name.startswith("..") or "/../" in name:
        return f"includes {name}: paths start at include/ or src/"
    target = included_room(name, mark == '"')
    if target is not None and target != room and target != "base" and target not in MAY_INCLUDE[room]:
        return f"room {room} must not include room {target}: {name}"
    for pattern, rooms in VENDORS:
        if pattern.match(name):
            if public:
                return f"a header in include/ must not include {name}"
            if room not in rooms:
                return f"{name} may be included only in src/{', src/'.join(sorted(rooms))}"
    return None


def check_file(root, path):
    relative = path.relative_to(root)
    if len(relative.parts) < (4 if relative.parts[0] == "include" else 3):
        return [f"{relative}: stands in no room"]
    room, public = room_of(relative)
    if room not in MAY_INCLUDE:
        return [f"{relative}: {room} is not a room of the design"]
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if SWITCH.match(line) and relative.as_posix() != "src/app/backends.cpp":
            found.append(f"{relative}:{number}: #if ANNULUS_HAS_... belongs into src/app/backends.cpp only")
        include = INCLUDE.match(line)
        reason = complaint(room, public, *include.groups()) if include else None
        if reason:
            found.append(f"{relative}:{number}: {reason}")
    return found


def check(root):
    """All violations under root, and how many files were read."""
    files = [f for top in ("include", "src") for f in sorted((root / top).rglob("*")) if f.suffix in SUFFIXES]
    return [line for file in files for line in check_file(root, file)], len(files)


# path, text, and a part of the complaint expected (None: allowed).
PLANTED = [
    ("src/plan/a.cpp", '#include "annulus/kernel/kernel.hpp"', "room plan must not include room kernel"),
    ("src/plan/b.cpp", '#include "annulus/memory/rows.hpp"', "room plan must not include room memory"),
    ("src/kernel/a.cpp", '#include "annulus/transport/transport.hpp"', "room kernel must not include room transport"),
    ("src/kernel/b.cpp", '#include "plan/plan.hpp"', "room kernel must not include room plan"),
    ("src/transport/a.cpp", '#include "annulus/geometry/range.hpp"', "room transport must not include room geometry"),
    ("src/transport/b.cpp", "#include <annulus/plan/plan.hpp>", "room transport must not include room plan"),
    ("src/store/a.cpp", '#include "annulus/engine/attention.hpp"', "room store must not include room engine"),
    ("src/engine/a.cpp", '#include "annulus/store/file.hpp"', "room engine must not include room store"),
    ("src/model/a.cpp", '  #  include "annulus/store/file.hpp"', "room model must not include room store"),
    ("src/input/a.cpp", '#include "app/config.hpp"', "room input must not include room app"),
    ("src/geometry/a.cpp", '#include "annulus/memory/rows.hpp"', "room geometry must not include room memory"),
    ("src/base/a.cpp", '#include "annulus/geometry/range.hpp"', "room base must not include room geometry"),
    ("src/engine/b.cpp", '#include "../plan/plan.hpp"', "paths start at"),
    ("src/engine/c.cpp", "#include <boost/program_options.hpp>", "may be included only in src/app"),
    ("src/engine/d.cpp", "#include <mpi.h>", "may be included only in src/app, src/transport"),
    ("src/app/a.cpp", "#include <hdf5.h>", "may be included only in src/store"),
    ("include/annulus/transport/a.hpp", "#include <mpi.h>", "a header in include/ must not include mpi.h"),
    ("include/annulus/transport/b.hpp", "#include <nccl.h>", "a header in include/ must not include nccl.h"),
    ("include/annulus/store/a.hpp", '#include "hdf5.h"', "a header in include/ must not include hdf5.h"),
    ("include/annulus/memory/a.hpp", "#include <cuda_runtime.h>", "a header in include/ must not include cuda_runtime.h"),
    ("include/annulus/base/a.hpp", "#include <boost/any.hpp>", "a header in include/ must not include boost/any.hpp"),
    ("src/app/commands/a.cpp", "#if ANNULUS_HAS_MPI", "belongs into src/app/backends.cpp only"),
    ("src/engine/e.cpp", "# ifdef ANNULUS_HAS_MPI", "belongs into src/app/backends.cpp only"),
    ("src/app/z.cpp", "#include <zlib.h>", "zlib.h may be included only in src/input"),
    ("include/annulus/input/z.hpp", "#include <zlib.h>", "a header in include/ must not include zlib.h"),
    ("src/input/z.cpp", "#include <zlib.h>", None),
    ("src/shed/a.cpp", "", "shed is not a room"),
    ("src/loose.cpp", "", "stands in no room"),
    ("src/app/backends.cpp", '#if ANNULUS_HAS_MPI\n#include <mpi.h>\n#include "annulus/store/file.hpp"\n#endif', None),
    ("src/transport/mpi.cpp", '#include <mpi.h>\n#include "annulus/memory/rows.hpp"', None),
    ("src/store/file.cpp", '#include <hdf5.h>\n#include "annulus/geometry/range.hpp"', None),
    ("src/engine/f.cpp", '#include <vector>\n#include "annulus/plan/plan.hpp"\n#include "annulus/base/types.hpp"', None),
    ("src/kernel/cpu/a.cpp", '#include "kernel/cpu/b.hpp"\n#include "annulus/geometry/range.hpp"', None),
    ("src/plan/c.cpp", '// #include "annulus/kernel/kernel.hpp" would be wrong here', None),
]


def self_test():
    failures = 0
    for path, text, expected in PLANTED:
        with tempfile.TemporaryDirectory() as scratch:
            file = pathlib.Path(scratch) / path
            file.parent.mkdir(parents=True)
            file.write_text(text + "\n", encoding="utf-8")
            found, _ = check(pathlib.Path(scratch))
        right = not found if expected is None else len(found) == 1 and expected in found[0]
        if not right:
            failures += 1
            print(f"{path}: expected {expected!r}, found {found}")
    print(f"{len(PLANTED)} planted files, {failures} judged wrongly")
    return 1 if failures else 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    violations, files = check(pathlib.Path(arguments[0]).resolve())
    for line in violations:
        print(line)
    print(f"{files} files, {len(violations)} includes against the design")
    return 1 if violations or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
