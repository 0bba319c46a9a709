"""Runs the program as a user does, with a hard time-out; for the tests beside this file.

ANNULUS_PROGRAM names the program, ANNULUS_MPIRUN the launcher (empty: tests over several processes are skipped).
"""
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

PROGRAM = os.environ["ANNULUS_PROGRAM"]
MPIRUN = os.environ.get("ANNULUS_MPIRUN", "")


def needs(*modules):
    """Ends the test file as skipped, with the reason, where a Python module is missing."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        print(f"skipped: {sys.executable} has no {', '.join(missing)}")
        sys.exit(0)


def environment():
    """The caller's, with what Open MPI needs in containers and as root."""
    more = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    return {**os.environ, **more}


def start(*arguments, ranks=0, each=(), cwd=None):
    """The running process, leader of a group of its own; ranks = 0: without mpirun. each: a process for each item, a list of
    options that it has besides."""
    command = [PROGRAM, *map(str, arguments)]
    if ranks:
        command = [MPIRUN, "-n", str(ranks), "--oversubscribe", "--bind-to", "none", *command]
    elif each:
        parts = [part for more in each for part in (":", "-n", "1", *command, *map(str, more))]
        command = [MPIRUN, "--oversubscribe", "--bind-to", "none", *parts[1:]]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)


def patience(seconds):
    """The time that `seconds` of an idle machine may take on this one: more where others want its cores, too."""
    return seconds * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))


def annulus(*arguments, ranks=0, each=(), seconds=60, cwd=None):
    """The finished process: returncode, stdout, stderr as text; ranks, each: as in start().
    Raises subprocess.TimeoutExpired after `seconds` of an idle machine, with every process it started gone."""
    process = start(*arguments, ranks=ranks, each=each, cwd=cwd)
    try:
        stdout, stderr = process.communicate(timeout=patience(seconds))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


class ProgramTest(unittest.TestCase):
    """Claims about one run of the program."""

    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory(prefix="annulus-cli-")
        cls.addClassCleanup(scratch.cleanup)
        cls.scratch = pathlib.Path(scratch.name)  # empty at first, shared by the tests of the class

    def succeeds(self, *arguments, **how):
        """The command ends with code 0; returns the finished process."""
        done = annulus(*arguments, **how)
        self.assertEqual(done.returncode, 0, f"{done.args}\n{done.stdout}\n{done.stderr}")
        return done

    def refuses(self, code, *words, command, **how):
        """The command ends with the code, within 10 seconds of an idle machine, and stderr has one line that holds all the words."""
        done = annulus(*command, seconds=10, **how)
        shown = f"{done.args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.assertEqual(done.returncode, code, shown)
        lines = [line for line in done.stderr.splitlines() if all(word in line for word in words)]
        self.assertEqual(len(lines), 1, f"expected one line with {words}\n{shown}")
        self.assertNotIn("terminate called", done.stderr, shown)
        return done

    def needs_mpirun(self):
        if not MPIRUN:
            self.skipTest("mpirun is not here")
