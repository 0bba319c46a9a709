"""Ranks of a node read one another's blocks where they lie: who says so, the same bits as without, and what happens where it
cannot be, or when a rank is lost."""
import os
import pathlib
import signal
import time
import unittest
from unittest import mock

from program import ProgramTest, needs, start

needs("h5py", "numpy")

import h5py
import numpy as np
import tensors

SEED = 20265
REFUSE = os.environ.get("ANNULUS_REFUSE_MEMORY", "")


def shared_memory(processes):
    """What these processes map that others can map, too: names of files."""
    maps = [line.split(maxsplit=5) for process in processes for line in pathlib.Path(f"/proc/{process}/maps").read_text().splitlines()]
    return {parts[5] for parts in maps if len(parts) == 6 and parts[1].endswith("s") and parts[5].startswith("/")}


class Shared(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.path = tensors.write(cls.scratch / "in.h5", **tensors.random_tensors(np.random.default_rng(SEED), 500, 500, 4, 2, 32, 32, dout=True))

    def setUp(self):
        self.needs_mpirun()

    def attend(self, *options, ranks=2):
        """The finished process, and all arrays of its result."""
        output = self.scratch / "out.h5"
        done = self.succeeds("attend", self.path, "--output", output, "--overwrite", "--backward", "--trace", "standard", *options, ranks=ranks)
        with h5py.File(output) as file:
            arrays = {}
            file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
            return done, arrays, file.attrs["transport"]

    def test_auto_takes_it_where_ranks_share_a_node(self):
        for options, ranks, name in [([], 2, "shared"), (["--transport", "auto"], 4, "shared"), ([], 1, "mpi"),
                                     (["--transport", "mpi"], 2, "mpi"), (["--transport", "shared"], 2, "shared"),
                                     (["--ranks", 2], 0, "threads")]:
            with self.subTest(options=options, ranks=ranks):
                done, _, attribute = self.attend(*options, ranks=ranks)
                self.assertEqual(attribute, name)
                self.assertIn(f", {name}\n", done.stdout)
                self.assertEqual(done.stderr, "")
        self.assertIn("transport   shared: ", self.succeeds("info", ranks=2).stdout)
        self.assertIn("transport   threads: ", self.succeeds("info").stdout)

    def test_the_bits_do_not_depend_on_the_transport(self):
        for options in [["--mask", "causal", "--partition", "zigzag"], ["--mask", "causal+window:90,0+sink:4"], ["--strategy", "ulysses"],
                        ["--strategy", "pass-q"], ["--strategy", "tree"]]:
            with self.subTest(options=options):
                _, shared, _ = self.attend(*options, "--transport", "shared")
                for others, ranks in [(["--transport", "mpi"], 2), (["--ranks", 2], 0)]:
                    _, arrays, _ = self.attend(*options, *others, ranks=ranks)
                    self.assertEqual(arrays.keys(), shared.keys())
                    for name, array in arrays.items():
                        self.assertTrue(np.array_equal(array.view(np.uint8), shared[name].view(np.uint8)), f"{name}, {others}")

    def test_a_system_that_has_none_is_told_once_and_messages_are_copied(self):
        if not REFUSE:
            self.skipTest("the library that refuses memory is not here")
        with mock.patch.dict(os.environ, LD_PRELOAD=REFUSE, ASAN_OPTIONS="verify_asan_link_order=0"):
            done, _, attribute = self.attend(ranks=3)
            self.assertEqual(attribute, "mpi")
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertIn("memfd_create failed: Cannot allocate memory", done.stderr)
            self.assertIn("MPI copies messages", done.stderr)
            self.assertIn("transport   mpi: ", self.succeeds("info", ranks=2).stdout)
            self.refuses(2, "--transport shared", "memfd_create",
                         command=["attend", self.path, "--output", self.scratch / "no.h5", "--transport", "shared"], ranks=2)

    def test_alone_it_cannot_be_had(self):
        self.refuses(2, "--transport shared", "mpirun", command=["attend", self.path, "--output", self.scratch / "no.h5", "--transport", "shared"])

    def lose(self, how, *options):
        """Three ranks, of which one gets the signal `how` while all compute: exit code and messages."""
        path, output = self.scratch / "long.h5", self.scratch / "lost.h5"
        if not path.exists():
            tensors.write(path, **tensors.random_tensors(np.random.default_rng(SEED), 3000, 3000, 8, 8, 64, 64))
        for left in self.scratch.glob("lost.h5.partial-*"):
            left.unlink()
        process = start("attend", path, "--output", output, "--mask", "full", "--kernel", "reference", "--threads", 1, *options, ranks=3)
        deadline = time.monotonic() + 30
        while not list(self.scratch.glob("lost.h5.partial-*")) and time.monotonic() < deadline:
            self.assertIsNone(process.poll(), "it must not end before a rank is lost")
            time.sleep(0.01)
        time.sleep(0.5)
        children = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
        ranks = [int(pid) for of_thread in children for pid in of_thread.read_text().split()]
        self.assertEqual(len(ranks), 3)
        shared = shared_memory(ranks)
        self.assertEqual(any("annulus" in name for name in shared), "mpi" not in options, shared)
        os.kill(ranks[1], how)
        try:
            _, errors = process.communicate(timeout=120)
        except Exception:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        self.assertFalse(output.exists())
        # PMIx keeps files of its own; when mpirun removes them is its business
        self.assertEqual([name for name in shared if "pmix" not in name and pathlib.Path(name).exists()], [], "nothing is left in shared memory")
        return process.returncode, errors

    def test_a_killed_rank_ends_the_job_and_leaves_nothing_in_shared_memory(self):
        code, errors = self.lose(signal.SIGKILL)
        self.assertNotEqual(code, 0, errors)

    def test_a_rank_that_hangs_is_a_communication_error_which_one_rank_tells(self):
        for transport in ["shared", "mpi"]:
            with self.subTest(transport=transport):
                code, errors = self.lose(signal.SIGSTOP, "--timeout", 2, "--transport", transport)
                self.assertEqual(code, 6, errors)
                told = [line for line in errors.splitlines() if line.startswith("annulus: ")]
                self.assertEqual(len(told), 1, errors)
                self.assertIn("waited 2 s in batch", told[0])

    def test_the_next_job_removes_what_a_killed_one_has_left(self):
        self.lose(signal.SIGKILL)
        left = list(self.scratch.glob("lost.h5.partial-*"))
        self.assertEqual(len(left), 1, "the lead was killed, too")
        start, mark, process, random = left[0].name.split("-")
        kept = [self.scratch / "-".join(parts) for parts in [(start, mark, str(os.getpid()), random), (start, "0.1", process, random),
                                                            (start, mark, "one", random), (start, mark, process)]]
        for path in kept:
            path.touch()
        done = self.succeeds("attend", self.path, "--output", self.scratch / "lost.h5", ranks=2)
        self.assertEqual(done.stderr, f"annulus: removed {left[0]}, which a killed job had left\n")
        self.assertEqual(set(self.scratch.glob("lost.h5.partial-*")), set(kept), "of living processes, and other machines")
        for path in [*kept, self.scratch / "lost.h5"]:
            path.unlink()


if __name__ == "__main__":
    unittest.main()
