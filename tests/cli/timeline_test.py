"""--timeline: what Chrome and Perfetto load must be whole, nested, and tell of every message at both ends."""
import json
import time
import unittest

from program import ProgramTest, annulus, needs

needs("h5py", "numpy")

import numpy as np
import tensors
from timelines import TimelineTest, bytes_received, bytes_sent

SEED = 20261


class Timelines(TimelineTest):
    def recorded(self, options, ranks):
        """The events of an attend job with gradients, and the wall time it took, in microseconds."""
        path, timeline = self.scratch / "in.h5", self.scratch / "timeline.json"
        random = np.random.default_rng(SEED)
        tensors.write(path, **tensors.random_tensors(random, 700, 700, 4, 2, 32, 32, dout=True))
        begins = time.monotonic()
        self.succeeds("attend", path, "--output", self.scratch / "out.h5", "--overwrite", "--backward", "--mask", "full",
                      "--timeline", timeline, *options, ranks=ranks)
        return json.loads(timeline.read_text())["traceEvents"], 1e6 * (time.monotonic() - begins)

    def ways(self):
        self.needs_mpirun()
        for strategy, partition in [("ring", "zigzag"), ("ulysses", "contiguous"), ("hybrid", "striped")]:
            for options, ranks in [(["--ranks", 4], 0), ([], 4)]:
                if strategy == "ulysses":
                    options, ranks = [*options[:-1], *([2] if options else [])], ranks and 2
                with self.subTest(seed=SEED, strategy=strategy, ranks=ranks, options=options):
                    events, wall = self.recorded([*options, "--strategy", strategy, "--partition", partition], ranks)
                    yield events, wall, ranks or options[-1]

    def test_every_rank_is_a_process_with_named_tracks(self):
        merged = []  # not where each rank has all keys of its heads
        for events, _, ranks in self.ways():
            names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
            self.assertEqual({e["pid"] for e in events}, set(range(ranks)))
            for event in events:
                if event["ph"] == "X":
                    expected = event["name"] if event["name"] in ("send", "receive") else "work"
                    self.assertEqual(names[event["pid"], event["tid"]], expected)
            for rank in range(ranks):
                did = {e["name"] for e in events if e["ph"] == "X" and e["pid"] == rank}
                self.assertLessEqual({"compute", "send", "receive", "wait"}, did)
                merged.append("merge" in did)
        self.assertGreaterEqual(sum(merged), 4 + 4 + 4 + 4)  # all ranks of ring and hybrid, as threads and as processes

    def test_rows_and_waits_come_first_and_agreements_apart(self):
        """A ring of 4 over 700 tokens: every message is a block of rows to another rank, every wait has the step of its batch."""
        for options, ranks in [(["--ranks", 4], 0), ([], 4)]:
            if ranks:
                self.needs_mpirun()
            events, _ = self.recorded([*options, "--strategy", "ring", "--partition", "contiguous"], ranks)
            slices = [e for e in events if e["ph"] == "X"]
            messages = [e for e in slices if e["cat"] == "message"]
            row = 2 * (32 + 32) * 4  # of K/V, and of their gradients
            for message in messages:
                self.assertEqual(message["args"]["bytes"] % row, 0, message)
                self.assertNotEqual(message["args"].get("to", message["args"].get("from")), message["pid"], message)
            # each rank sends its block 3 times forward and 3 times backward, and sums as often
            self.assertEqual(sum(m["name"] == "send" for m in messages), 4 * (3 + 3 + 3))
            for event in slices:
                self.assertEqual(event["cat"], "message" if event["name"] in ("send", "receive") else "control" if event["name"] == "control"
                                 else "work", event)
                if event["name"] == "wait":
                    self.assertIn(event["args"]["step"], range(4), event)
            for rank in range(4):
                self.assertEqual({e["args"]["step"] for e in slices if e["pid"] == rank and e["name"] == "wait"}, set(range(4)))

    def test_slices_of_a_track_nest_and_fit_the_wall_time(self):
        for events, wall, _ in self.ways():
            self.assertLessEqual(max(self.spans_of_nested_tracks(events)), wall)

    def test_every_arrow_has_both_ends(self):
        for events, _, _ in self.ways():
            # clocks are known to half a round trip: thousands of times this on a busy machine's worst day
            self.check_arrows(events, backwards=1e5)

    def test_bytes_agree_at_both_ends(self):
        for events, _, _ in self.ways():
            self.assertEqual(bytes_sent(events), bytes_received(events))

    def test_it_says_that_it_was_measured(self):
        self.recorded(["--ranks", 2], 0)
        about = json.loads((self.scratch / "timeline.json").read_text())["otherData"]
        self.assertEqual(about["times"], "measured")


class Files(ProgramTest):
    def test_inputs_and_outputs_are_not_replaced(self):
        path = tensors.write(self.scratch / "in.h5", **tensors.random_tensors(np.random.default_rng(SEED), 9, 9, 1, 1, 8, 8))
        before = path.read_bytes()
        command = ["attend", path, "--output", self.scratch / "out.h5"]
        self.refuses(2, "--timeline", "input", command=[*command, "--timeline", path])
        self.refuses(2, "--timeline", "output", command=[*command, "--timeline", self.scratch / "out.h5"])
        self.refuses(5, "--timeline", "directory", command=[*command, "--timeline", self.scratch])
        self.assertEqual(path.read_bytes(), before)
        self.assertFalse([p.name for p in self.scratch.iterdir() if p.name == "out.h5" or "partial" in p.name])

    def test_a_job_that_fails_leaves_no_timeline(self):
        path = self.scratch / "nan.h5"
        values = tensors.random_tensors(np.random.default_rng(SEED), 9, 9, 1, 1, 8, 8)
        values["k"][3, 0, 2] = np.nan
        tensors.write(path, **values)
        timeline = self.scratch / "timeline.json"
        timeline.write_text("before")
        done = annulus("attend", path, "--output", self.scratch / "o.h5", "--ranks", 2, "--timeline", timeline)
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertEqual(timeline.read_text(), "before")
        self.assertFalse([p.name for p in self.scratch.iterdir() if "partial" in p.name])


if __name__ == "__main__":
    unittest.main()
