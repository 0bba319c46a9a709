"""What the tests of what cannot work share: one sentence, the contract's exit code, and nothing left behind."""
import re

from program import MPIRUN, ProgramTest, needs

needs("numpy", "h5py")

import numpy as np

from tensors import random_tensors, write

SEED = 777
# What mpirun says about the end of its job, beside what the program says.
MPIRUN_NOTICE = re.compile(r"^(-{20,}|\[.*|Primary job .*|mpirun .*|MPI_ABORT .*|with errorcode .*|NOTE: .*|You may .*|exactly .*|"
                           r"a non-zero exit code.*|Per user-direction.*|  ?Process name: .*|  Exit code: .*|process .*|"
                           r"noticed that .*|.*thus causing.*|the job to be terminated.*|.*the first process to do so was:|)$")


class Refused(ProgramTest):
    def setUp(self):
        self.room = self.scratch / self._testMethodName
        self.room.mkdir()
        self.output = self.room / "out.h5"

    def tensors(self, name="in.h5", queries=12, keys=12, heads=4, kv_heads=2, channels=8, dtype="f32", **more):
        random = np.random.default_rng(SEED)
        arrays = random_tensors(random, queries, keys, heads, kv_heads, channels, channels, dout=True)
        return write(self.room / name, dtype, **{**arrays, **more})

    def one_sentence(self, code, *words, command, ranks=(0,), **how):
        """Ends with the code and one line on stderr, with all the words in it; no file is left that was not there."""
        for count in ranks:
            with self.subTest(command=command[0], words=words, ranks=count):
                before = sorted(self.room.rglob("*"))
                done = self.refuses(code, *words, command=command, ranks=count, **how)
                said = [line for line in done.stderr.splitlines() if not (count and MPIRUN_NOTICE.match(line))]
                self.assertEqual(len(said), 1, f"one sentence\n{done.stderr}")
                self.assertTrue(said[0].startswith("annulus: "), said)
                self.assertEqual(done.stdout, "")
                self.assertEqual(sorted(self.room.rglob("*")), before, "nothing is left behind")

    def attend(self, code, *words, input, options=(), ranks=(0,), **how):
        self.one_sentence(code, *words, command=["attend", input, "--output", self.output, *options], ranks=ranks, **how)

    def processes(self):
        return (0, 2) if MPIRUN else (0,)
