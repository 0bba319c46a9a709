"""What the benchmarks in Python share: options, runs of the program, memory of ranks, verdicts.

Scripts of this folder import it; it does nothing by itself. Needs Python's own library only.
"""
import argparse
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
# Run by every rank: starts the program, then tells its peak memory in KiB as the kernel counted it.
WATCH = """import os, resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("rank", os.environ.get("OMPI_COMM_WORLD_RANK", "0"), "peak_kib", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)"""


def parser(description):
    """With what every benchmark takes."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--program", default=str(ROOT / "build" / "release" / "annulus"))
    options.add_argument("--prefix", default="", help="put before every command, for a machine that others use, too")
    options.add_argument("--json", help="all rows")
    return options


def run(options, *arguments, launcher=()):
    """The program with these arguments, launched and prefixed as asked for; its failure is ours, with what it printed."""
    command = [*launcher, *shlex.split(options.prefix), options.program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode not in (0, 3):
        sys.exit(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def bench(options, benchmark, *arguments, launcher=()):
    """Rows of `annulus bench BENCHMARK`, as its JSON has them."""
    with tempfile.TemporaryDirectory() as folder:
        twin = pathlib.Path(folder) / "rows.json"
        run(options, "bench", benchmark, *arguments, "--json", twin, launcher=launcher)
        return json.loads(twin.read_text())["results"]


def mpirun(ranks):
    """A launcher of as many ranks, which may be more than there are cores."""
    return ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none"]


def run_watched(options, ranks, *arguments, environment=None):
    """What mpirun prints for the program on so many ranks, and the peak memory of each rank in bytes, in their order."""
    watch = [*mpirun(ranks), sys.executable, "-c", WATCH, options.program, *map(str, arguments)]
    done = subprocess.run(watch, capture_output=True, text=True, env={**ENVIRONMENT, **(environment or {})})
    if done.returncode != 0:
        sys.exit(f"{shlex.join(watch)}\n{done.stdout}{done.stderr}")
    peaks = sorted((int(rank), 1024 * int(kib)) for rank, kib in re.findall(r"^rank (\d+) peak_kib (\d+)$", done.stdout, re.M))
    return re.sub(r"^rank \d+ peak_kib \d+\n", "", done.stdout, flags=re.M), [peak for _, peak in peaks]


def end(options, rows, holds, summary):
    """Prints the verdict, writes the rows, and ends: 0, or 3 where something does not hold, as the program does."""
    print(f"#\n# verdict: {'PASSED' if holds else 'FAILED'}; {summary}")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(0 if holds else 3)
