"""The ranges that NVIDIA's profilers show (NVTX), heard by a profiler of our own: range_listener.cpp."""
import collections
import json
import os
import unittest

from program import ProgramTest, needs

needs("h5py", "numpy")
LISTENER = os.environ.get("ANNULUS_RANGE_LISTENER", "")
if not LISTENER:
    print("skipped: the program was built without NVTX's headers, which come with CUDA")
    raise SystemExit(0)

import numpy as np
import tensors

SEED = 20266


class Ranges(ProgramTest):
    def heard(self, *arguments, ranks):
        """Of a run: the names of the ranges of each thread, in the order of their ends; every range ends, the innermost first."""
        path, lines = self.scratch / "in.h5", self.scratch / "ranges"
        tensors.write(path, **tensors.random_tensors(np.random.default_rng(SEED), 200, 200, 2, 2, 16, 16, dout=True))
        os.environ.update(NVTX_INJECTION64_PATH=LISTENER, ANNULUS_RANGES=str(lines))
        try:
            self.succeeds("attend", path, "--output", self.scratch / "o.h5", "--overwrite", "--backward", "--threads", 1, "--ranks", ranks,
                          *arguments)
        finally:
            del os.environ["NVTX_INJECTION64_PATH"]
        open_ranges, ended = collections.defaultdict(list), collections.defaultdict(list)
        for line in lines.read_text().splitlines():
            thread, what, *name = line.split(" ", 2)
            if what == "begin":
                open_ranges[thread].append(name[0])
            else:
                ended[thread].append(open_ranges[thread].pop())
        self.assertEqual([names for names in open_ranges.values() if names], [])
        return list(ended.values())

    def test_every_event_of_the_timeline_is_a_range(self):
        timeline = self.scratch / "timeline.json"
        for ranks in [1, 3]:
            with self.subTest(ranks=ranks):
                threads = self.heard("--strategy", "ring", "--timeline", timeline, ranks=ranks)
                self.assertEqual(len(threads), ranks)
                events = [e for e in json.loads(timeline.read_text())["traceEvents"] if e["ph"] == "X" and e["tid"] == 0]
                shown = collections.defaultdict(set)
                for event in events:
                    args = event["args"]
                    shown[event["pid"]].add(f"{event['name']}, step {args['batch' if event['name'] == 'control' else 'step']}")
                self.assertIn("compute, step 0", shown[0])
                # threads come in any order: each rank's events are the ranges of one of them
                for rank, names in shown.items():
                    self.assertTrue(any(names <= set(thread) for thread in threads), f"rank {rank}: {names}\n{threads}")
                kinds = {name.split(",")[0] for names in shown.values() for name in names}
                self.assertEqual({name.split(",")[0] for thread in threads for name in thread}, kinds)

    def test_ranges_do_not_need_a_timeline(self):
        (names,) = self.heard(ranks=1)
        self.assertIn("compute, step 0", names)


if __name__ == "__main__":
    unittest.main()
