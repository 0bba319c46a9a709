"""Several hosts for real: ranks in network namespaces of their own, joined by links that are made slow and fast.

Run by launch/hosts (see tests/hosts.cmake), which puts its own mpirun, `shape` and `on` into the PATH.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
os.environ["ANNULUS_MPIRUN"] = "mpirun"  # the one launch/hosts made

from program import ProgramTest, annulus, environment, needs, start

needs("h5py", "numpy")

import h5py
import numpy as np
import tensors

SEED = 20262
HOSTS = 4
SLOW, FAST = 50e6, 2e9  # bits per second


def shape(bits_per_second):
    subprocess.run(["shape", f"{bits_per_second:.0f}bit"], check=True)


class HostsTest(ProgramTest):
    def tensors(self, tokens=600, heads=4, channels=32):
        path = self.scratch / "in.h5"
        random = np.random.default_rng(SEED)
        tensors.write(path, **tensors.random_tensors(random, tokens, tokens, heads, heads, channels, channels, dout=True))
        return path

    def bench(self, *arguments, ranks):
        document = self.scratch / "bench.json"
        self.succeeds("bench", *arguments, "--threads", 1, "--json", document, ranks=ranks, seconds=120)
        return json.loads(document.read_text())


class Results(HostsTest):
    def test_every_rank_is_on_a_host_of_its_own(self):
        twin = self.bench("exchange", "--repeats", 1, ranks=HOSTS)
        self.assertEqual(sorted(twin["environment"]["hosts"]), [f"host{i}" for i in range(HOSTS)])

    def test_hosts_compute_what_one_process_computes(self):
        path = self.tensors()
        for ranks, strategy in [(2, "ring"), (3, "ring"), (4, "ulysses"), (4, "hybrid")]:
            with self.subTest(seed=SEED, ranks=ranks, strategy=strategy):
                options = ["--backward", "--mask", "causal+window:300,0", "--strategy", strategy, "--threads", 1, "--overwrite"]
                one, many = self.scratch / "one.h5", self.scratch / "many.h5"
                self.succeeds("attend", path, "--output", one, "--ranks", ranks, *options)
                self.succeeds("attend", path, "--output", many, *options, ranks=ranks)
                self.succeeds("verify", many)
                with h5py.File(one) as a, h5py.File(many) as b:
                    self.assertEqual(b.attrs["ranks"], ranks)
                    for name in ["out", "lse", "dq", "dk", "dv"]:
                        self.assertEqual(a[name][...].tobytes(), b[name][...].tobytes(), f"{name}: the same plan, the same bits")

    def test_a_text_over_hosts(self):
        result = self.scratch / "text.h5"
        self.succeeds("run", pathlib.Path(__file__).resolve().parents[2] / "README.md", "--output", result, "--threads", 1, ranks=3)
        self.succeeds("verify", result)

    def test_clocks_of_hosts_are_aligned(self):
        timeline = self.scratch / "timeline.json"
        self.succeeds("attend", self.tensors(), "--output", self.scratch / "o.h5", "--overwrite", "--timeline", timeline, ranks=4)
        events = json.loads(timeline.read_text())["traceEvents"]
        names = {e["args"]["name"] for e in events if e["name"] == "process_name"}
        self.assertEqual({name.split(" on ")[1] for name in names}, {f"host{i}" for i in range(HOSTS)})
        starts = {e["id"]: e["ts"] for e in events if e["ph"] == "s"}
        late = [e["ts"] - starts[e["id"]] for e in events if e["ph"] == "f"]
        self.assertEqual(len(late), len(starts))
        # aligned to half of the fastest round trip, some 30 us here; 2 ms stands for a busy machine
        self.assertGreater(min(late), -2000)

    def test_a_lost_rank_ends_the_job_and_leaves_no_result(self):
        shape(20e6)
        output = self.scratch / "lost.h5"
        process = start("attend", self.tensors(4000, 8, 64), "--output", output, "--mask", "full", ranks=3)
        deadline = time.monotonic() + 30
        victims = []
        while not victims and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
            found = subprocess.run(["on", "host1", "ip netns pids host1"], capture_output=True, text=True).stdout.split()
            victims = [pid for pid in found if self.is_rank(pid)]
        self.assertTrue(victims, "the rank on host1 was not seen")
        for pid in victims:
            os.kill(int(pid), signal.SIGKILL)
        try:
            process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            shape(FAST)
        self.assertNotEqual(process.returncode, 0)
        self.assertFalse(output.exists())

    @staticmethod
    def is_rank(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/exe").resolve().name == "annulus"
        except OSError:
            return False


class Links(HostsTest):
    def calibrated(self, bits_per_second):
        shape(bits_per_second)
        profile = self.scratch / f"{bits_per_second:.0f}.ini"
        self.succeeds("bench", "calibrate", "--tokens", "256,1024", "--dtype", "f32", "--threads", 1, "--repeats", 3, "--output", profile,
                      ranks=2, seconds=120)
        line = next(line for line in profile.read_text().splitlines() if line.startswith("link.network"))
        latency, bandwidth, *_ = (float(x) for x in line.split("=")[1].split(","))
        return profile, latency, bandwidth

    def test_a_slow_and_a_fast_link(self):
        exchanges, bandwidths = {}, {}
        for rate in [SLOW, FAST]:
            profile, latency, bandwidths[rate] = self.calibrated(rate)
            twin = self.bench("strategies", "--strategy", "ring", "--partition", "contiguous", "--mask", "full", "--tokens", 2048,
                              "--query-heads", 4, "--channels", 64, "--hardware", profile, ranks=2)
            row = twin["results"][0]
            exchanges[rate] = row["exchange_ms"] / 1e3
            wire = row["mb_per_rank"] * 1e6 / (rate / 8)
            print(f"\n  {rate / 1e6:.0f} Mbit/s: latency {latency * 1e6:.0f} us, {bandwidths[rate] * 8e-6:.0f} Mbit/s seen; ring of 2: measured "
                  f"{row['median_ms']:.1f} ms, predicted {row['predicted_ms']:.1f} ms, compute {row['compute_ms']:.1f} ms, exchange alone "
                  f"{row['exchange_ms']:.1f} ms, on the wire {wire * 1e3:.1f} ms, exposed {row['exposed_percent']:.0f} %")
            self.assertLess(row["max_error"], 1e-5)
            # one burst of the bucket, 128 KiB, passes unshaped
            self.assertGreater(exchanges[rate], 0.8 * (wire - 128 * 1024 / (rate / 8)), "nothing is faster than the wire")
        # the shaper's rate counts headers too, and acknowledgements wait in the queue behind what goes the same way
        self.assertTrue(0.4 < bandwidths[SLOW] / (SLOW / 8) < 1.1, bandwidths)
        self.assertGreater(bandwidths[FAST], 4 * bandwidths[SLOW])
        # computing takes what it takes on a machine that others use; the exchange alone must follow the link
        self.assertGreater(exchanges[SLOW], 3 * exchanges[FAST])

    def test_packed_documents_move_a_quarter_of_a_plain_ring_or_less(self):
        """Documents of a quarter of what a rank owns, on average, of random lengths; and equal ones that no rank begins with."""
        shape(SLOW)
        ranks, tokens = 2, 2048
        random = np.random.default_rng(SEED)
        mean = tokens // ranks // 4  # lengths are half of it to half as much again
        inner = mean * np.arange(1, 4 * ranks) + random.integers(-mean // 4, mean // 4, 4 * ranks - 1)
        offsets = np.concatenate([[0], inner, [tokens]])
        path, output, twin = self.scratch / "packed.h5", self.scratch / "packed-out.h5", self.scratch / "packed.json"
        tensors.write(path, documents=offsets, **tensors.random_tensors(random, tokens, tokens, 4, 4, 64, 64, dout=True))
        options = ["--mask", "documents", "--strategy", "ring", "--partition", "contiguous"]
        self.succeeds("plan", path, "--ranks", ranks, *options, "--json", twin)
        plan = json.loads(twin.read_text())
        self.assertGreater(plan["exchange_bytes_total"], 0, f"seed {SEED}: a document lies on both ranks")
        self.assertGreaterEqual(plan["whole_ring_bytes_total"], 4 * plan["exchange_bytes_total"], f"seed {SEED}")
        self.succeeds("attend", path, "--output", output, "--backward", "--threads", 1, *options, ranks=ranks, seconds=120)
        self.succeeds("verify", output)
        rows = {}
        for mask, more in [("full", []), ("documents", ["--document-tokens", 9 * tokens // 64])]:  # eight of them
            rows[mask] = self.bench("strategies", "--strategy", "ring", "--partition", "contiguous", "--mask", mask, "--tokens", tokens,
                                    "--query-heads", 4, "--channels", 64, "--repeats", 3, *more, ranks=ranks)["results"][0]
            self.assertLess(rows[mask]["max_error"], 1e-5)
            self.assertTrue(0 <= rows[mask]["exposed_percent"] <= 100, rows[mask])
        self.assertGreaterEqual(rows["full"]["mb_per_rank"], 4 * rows["documents"]["mb_per_rank"])
        self.assertGreater(rows["full"]["exchange_ms"], 3 * rows["documents"]["exchange_ms"])  # 6.4 times the bytes

    def test_a_window_moves_less_and_runs_faster_on_a_slow_link(self):
        shape(SLOW)
        rows = {}
        for mask in ["causal", "causal+window:127,0"]:
            twin = self.bench("strategies", "--strategy", "ring", "--partition", "contiguous", "--mask", mask, "--tokens", 2048,
                              "--query-heads", 4, "--channels", 64, "--repeats", 3, ranks=4)
            rows[mask] = twin["results"][0]
        full, window = rows["causal"], rows["causal+window:127,0"]
        # the last of four ranks receives three blocks of 512 tokens; under the window 127 rows of one
        self.assertAlmostEqual(full["mb_per_rank"] / window["mb_per_rank"], 3 * 512 / 127, delta=0.2)
        self.assertGreater(full["exchange_ms"], 3 * window["exchange_ms"])
        self.assertGreater(full["median_ms"], window["median_ms"])


class Shapes(unittest.TestCase):
    def setUp(self):
        self.addCleanup(shape, FAST)

    def test_links_can_be_cut_and_mended(self):
        down = subprocess.run(["on", "host1", "ip link set eth0 down && ip link set eth0 up && hostname"], capture_output=True, text=True)
        self.assertEqual(down.stdout, "host1\n", down.stderr)
        self.assertEqual(subprocess.run(["on", "host9", "true"], capture_output=True).returncode, 2)


if __name__ == "__main__":
    unittest.main()
