"""A job that is asked to stop ends soon, on all ranks, with exit code 75 and without a trace of its output."""
import os
import signal
import subprocess
import time
import unittest

from program import ProgramTest, needs, start

needs("h5py", "numpy")

import numpy as np
import tensors

SEED = 20263


class Stopping(ProgramTest):
    def stop(self, how, options=(), ranks=0, tokens=6000):
        """Starts a job of about half a minute, asks it to stop once it computes, and returns its exit code and messages."""
        path, output = self.scratch / "in.h5", self.scratch / "out.h5"
        if not path.exists():
            random = np.random.default_rng(SEED)
            tensors.write(path, **tensors.random_tensors(random, tokens, tokens, 16, 16, 64, 64, dout=True))
        process = start("attend", path, "--output", output, "--mask", "full", "--kernel", "tiled-portable", "--backward", "--threads", 1,
                        *options, ranks=ranks)
        deadline = time.monotonic() + 30
        while not any("partial" in p.name for p in self.scratch.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)  # the draft is made just before the computation
        self.assertIsNone(process.poll(), "the job is over before it could be stopped")
        asked = time.monotonic()
        process.send_signal(how)
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            self.fail("the job did not stop")
        self.assertEqual([p.name for p in self.scratch.iterdir()], ["in.h5"], "nothing is left of the output")
        return process.returncode, errors, time.monotonic() - asked

    def test_one_process_stops_at_any_signal(self):
        for how in [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]:
            with self.subTest(signal=how):
                code, errors, seconds = self.stop(how)
                self.assertEqual(code, 75, errors)
                self.assertIn("stopped on request", errors)
                self.assertLess(seconds, 5)

    def test_threads_stop_together(self):
        for grid, ranks in [("1x6x1", 6), ("2x4x1", 8)]:
            with self.subTest(grid=grid):
                code, errors, _ = self.stop(signal.SIGTERM, ["--ranks", ranks, "--grid", grid])
                self.assertEqual(code, 75, errors)
                self.assertEqual(errors.count("stopped on request"), 1, errors)

    def test_processes_stop_together(self):
        self.needs_mpirun()
        code, errors, _ = self.stop(signal.SIGUSR1, ranks=4)  # mpirun passes this one on and waits
        self.assertEqual(code, 75, errors)
        self.assertEqual(errors.count("stopped on request"), 1, errors)


class Early(ProgramTest):
    def begun(self):
        """A job of some seconds whose timeline has been begun just now."""
        path = self.scratch / "in.h5"
        if not path.exists():
            tensors.write(path, **tensors.random_tensors(np.random.default_rng(SEED), 3000, 3000, 16, 16, 64, 64))
        process = start("attend", path, "--output", self.scratch / "out.h5", "--mask", "full", "--kernel", "tiled-portable", "--threads", 1,
                        "--timeline", self.scratch / "line.json")
        while process.poll() is None and not list(self.scratch.glob(f"out.h5.partial-*-{process.pid}-*")):
            os.sched_yield()
        return process

    def test_a_job_that_has_not_begun_to_compute_stops_too(self):
        process = self.begun()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, errors)
        self.assertEqual([p.name for p in self.scratch.iterdir()], ["in.h5"])

    def test_what_a_killed_job_left_goes(self):
        process = self.begun()
        process.kill()
        process.communicate()
        self.assertTrue(list(self.scratch.glob("out.h5.partial-*")))
        self.assertEqual(list(self.scratch.glob("line.json*")), [], "texts have no draft before they are whole")
        process = self.begun()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual([p.name for p in self.scratch.iterdir()], ["in.h5"])


if __name__ == "__main__":
    unittest.main()
