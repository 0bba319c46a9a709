"""--weights measured: work is shared out by what each rank's processor does."""
import json
import unittest

from program import needs

needs("numpy", "h5py")

import numpy as np

from attending import SEED, AttendTest, case
from oracle import Attention, visible
from timelines import slices

TOKENS, KV_HEADS, CHANNELS = 600, 2, 16
ROW_BYTES = KV_HEADS * 2 * CHANNELS * 4  # of K and V
# Tokens are dealt in blocks, at most 32 per rank, until nobody takes 2 % longer than it should: of two ranks one may have a 64th of all
# work too much, of three a 96th and half as much again under a causal mask.
DEALT = 0.025


class Measured(AttendTest):
    def case(self, mask):
        path = self.scratch / "in.h5"
        arrays, _ = case(np.random.default_rng(SEED + 16), path, "f32", TOKENS, TOKENS, (4, KV_HEADS), CHANNELS, CHANNELS)
        return path, Attention(arrays["q"], arrays["k"], arrays["v"], visible(mask, TOKENS, TOKENS))

    def test_equal_ranks_share_evenly_or_as_the_weights_say(self):
        path, judge = self.case("causal")
        result = self.attend(path, "--weights", "measured", "--ranks", 3)
        self.check_forward(result, judge)
        weights = result["attributes"].get("weights")  # none where the ranks were alike
        if weights is not None:
            self.assertEqual((len(weights), result["attributes"]["partition"]), (3, "balanced"))
            self.assertAlmostEqual(np.mean(weights), 1, places=4)

    def test_rows_follow_the_weights_that_were_found(self):
        """A rank with three threads and one with a single one: about three times as fast, whatever the machine; and the other way round.
        Each rank sends its keys and values once, so its timeline tells how many rows it has."""
        self.needs_mpirun()
        for threads in [(1, 3), (3, 1)]:
            with self.subTest(threads=threads):
                path, judge = self.case("full")
                timeline = self.scratch / "timeline.json"
                result = self.attend(path, "--weights", "measured", "--strategy", "ring", "--mask", "full", "--timeline", timeline,
                                     each=[["--threads", n] for n in threads])
                self.check_forward(result, judge)
                self.assertEqual(result["attributes"]["partition"], "balanced")
                weights = np.array(result["attributes"]["weights"])
                self.assertAlmostEqual(weights.mean(), 1, places=4)
                more, fewer = weights[np.argmax(threads)], weights[np.argmin(threads)]
                self.assertGreater(more, 1.2 * fewer)  # three where nobody else wants the cores
                rows = np.zeros(2)
                for event in slices(json.loads(timeline.read_text())["traceEvents"], "send"):
                    rows[event["pid"]] += event["args"]["bytes"] / ROW_BYTES
                self.assertEqual(rows.sum(), TOKENS)
                self.assertLessEqual(np.abs(rows - TOKENS * weights / 2).max(), DEALT * TOKENS, f"rows {rows}, weights {weights}")

    def test_a_plan_with_the_same_weights_is_the_same(self):
        """As who gives the numbers that a run wrote down would have it."""
        self.needs_mpirun()
        path, _ = self.case("causal")
        measured, given = self.scratch / "measured.json", self.scratch / "plan.json"
        how = ["--strategy", "ring", "--mask", "causal"]
        weights = self.attend(path, "--weights", "measured", "--timeline", measured, *how,
                              each=[["--threads", 2], ["--threads", 1], ["--threads", 1]])["attributes"]["weights"]
        self.succeeds("plan", path, "--ranks", 3, "--weights", ",".join(f"{w:g}" for w in weights), "--json", given, *how)
        plan = json.loads(given.read_text())
        self.assertEqual(plan["partition"], "balanced")
        pairs = np.array([sum(step["pairs"] for step in seat) for seat in plan["visits"]["by_seat_and_step"]])
        self.assertEqual(pairs.sum(), TOKENS * (TOKENS + 1) // 2)
        self.assertLessEqual(np.abs(pairs - pairs.sum() * np.array(weights) / 3).max(), DEALT * pairs.sum(), f"pairs {pairs}, weights {weights}")
        sent = sum(e["args"]["bytes"] for e in slices(json.loads(measured.read_text())["traceEvents"], "send"))
        self.assertEqual(sent, plan["exchange_bytes_total"])

    def test_it_needs_ranks_that_run_and_a_kernel_that_can_be_measured(self):
        path, _ = self.case("causal")
        self.refuses(2, "--weights", "measured", command=["plan", path, "--ranks", 3, "--weights", "measured"])
        self.refuses(2, "--weights", "measured", "reference", command=["attend", path, "--output", self.scratch / "no.h5", "--ranks", 2,
                                                                       "--weights", "measured", "--kernel", "reference"])


if __name__ == "__main__":
    unittest.main()
