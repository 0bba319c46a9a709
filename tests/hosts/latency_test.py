"""Links between hosts that take time: what must follow from that, whatever else the machine does.

Run by launch/hosts --latency (see tests/hosts.cmake), which puts its own mpirun, `shape` and `on` into the PATH.
"""
import json
import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
os.environ["ANNULUS_MPIRUN"] = "mpirun"  # the one launch/hosts made

from program import needs

needs("h5py", "numpy")

import numpy as np
from attending import AttendTest, case
from oracle import Attention, visible

SEED = 20265
RATE = 2e9  # bits per second
NEAR, FAR = 2e-3, 7e-3  # seconds


def shape(seconds):
    subprocess.run(["shape", f"{RATE:.0f}bit", f"{seconds * 1e3:g}ms"], check=True)


class Latency(AttendTest):
    def calibrated(self, seconds):
        """Latency, bytes from which on messages are announced, and their latency, on a link that takes so many seconds."""
        shape(seconds)
        profile = self.scratch / f"{seconds}.ini"
        self.succeeds("bench", "calibrate", "--tokens", 64, "--dtype", "f32", "--threads", 1, "--repeats", 3, "--output", profile, ranks=2,
                      seconds=120)
        line = next(line for line in profile.read_text().splitlines() if line.startswith("link.network"))
        latency, _, _, *long = (float(x) for x in line.split("=")[1].split(","))
        self.assertEqual(len(long), 2, f"over TCP long messages are announced: {line}")
        return profile, latency, *long

    def row(self, seconds, profile, tokens):
        shape(seconds)
        twin = self.scratch / "bench.json"
        self.succeeds("bench", "strategies", "--strategy", "ring", "--partition", "contiguous", "--mask", "full", "--tokens", tokens,
                      "--query-heads", 4, "--channels", 64, "--threads", 1, "--hardware", profile, "--json", twin, ranks=2, seconds=120)
        return json.loads(twin.read_text())["results"][0]

    def test_a_message_takes_as_long_as_it_was_asked_to(self):
        for seconds in [NEAR, FAR]:
            shape(seconds)
            twin = self.scratch / "exchange.json"
            self.succeeds("bench", "exchange", "--repeats", 3, "--json", twin, ranks=2, seconds=120)
            first = json.loads(twin.read_text())["results"][0]
            self.assertEqual(first["bytes"], 8)
            print(f"\n  {seconds * 1e3:g} ms asked for: {first}")
            # of 64 in a row the first may have left before the receiver's clock began
            self.assertGreaterEqual(first["min_us"], 63 / 64 * seconds * 1e6, "nothing comes before its time")

    def test_predictions_count_the_latency(self):
        tokens = 128  # blocks of 128 KiB
        for seconds in [NEAR, FAR]:
            profile, latency, long_bytes, long_latency = self.calibrated(seconds)
            self.assertGreaterEqual(latency, seconds)
            # announced, asked for, sent: three times across, less what noise took from the difference of two times
            self.assertGreater(long_latency, 2 * seconds)
            self.assertLessEqual(long_bytes, 131072)
            found = self.row(seconds, profile, tokens)
            print(f"\n  {seconds * 1e3:g} ms asked for: {latency * 1e3:.2f} ms, {long_latency * 1e3:.2f} ms from {long_bytes:.0f} bytes on; "
                  f"ring of 2: measured {found['median_ms']:.2f} ms, predicted {found['predicted_ms']:.2f} ms")
            self.assertLess(found["max_error"], 1e-5)
            for name in ["median_ms", "predicted_ms"]:
                self.assertGreater(found[name], 2e3 * seconds, name)

    def test_results_are_those_of_the_oracle(self):
        shape(NEAR)
        random = np.random.default_rng(SEED)
        path = self.scratch / "in.h5"
        arrays, _ = case(random, path, "f32", 301, 301, (4, 2), 32, 32)
        judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible("causal+window:200,0", 301, 301))
        for ranks, strategy in [(2, "ring"), (3, "pass-q"), (4, "all-gather")]:
            with self.subTest(seed=SEED, ranks=ranks, strategy=strategy):
                result = self.attend(path, "--mask", "causal+window:200,0", "--strategy", strategy, "--threads", 1, ranks=ranks)
                self.check_forward(result, judge)
                self.assertEqual((result["attributes"]["ranks"], result["attributes"]["transport"]), (ranks, "mpi"))


if __name__ == "__main__":
    unittest.main()
