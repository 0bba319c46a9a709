"""plan --timeline: the predicted twin of what attend writes; it must add up to what plan prints."""
import collections
import json
import pathlib
import unittest

from program import annulus, needs

needs("h5py", "numpy")

import numpy as np
import tensors
from timelines import TimelineTest, bytes_received, bytes_sent, slices

SEED = 20262
ROOT = pathlib.Path(__file__).resolve().parents[2]
PROFILE = ROOT / "configs" / "hardware" / "h200-ib.ini"
STRATEGIES = ["ring", "double-ring", "ulysses", "hybrid", "all-gather", "pass-q", "tree"]


class Predicted(TimelineTest):
    def predicted(self, *options):
        """The page, its twin, and the timeline."""
        twin, timeline = self.scratch / "plan.json", self.scratch / "timeline.json"
        page = self.succeeds("plan", *options, "--json", twin, "--timeline", timeline).stdout
        self.assertEqual([p.name for p in self.scratch.iterdir() if "partial" in p.name], [])
        return page, json.loads(twin.read_text()), json.loads(timeline.read_text())

    def ways(self):
        for strategy in STRATEGIES:
            for more in [[], ["--hardware", PROFILE, "--ranks-per-node", 4]]:
                for which in ["forward", "backward"]:
                    with self.subTest(strategy=strategy, which=which, more=more):
                        yield self.predicted("--tokens", "64Ki", "--ranks", 8, "--kv-heads", 8, "--strategy", strategy, "--pass", which, *more)

    def test_it_ends_when_the_page_says(self):
        for _, plan, timeline in self.ways():
            ends = collections.defaultdict(float)
            for event in slices(timeline["traceEvents"]):
                ends[event["pid"]] = max(ends[event["pid"]], event["ts"] + event["dur"])
            self.assertEqual(len(ends), 8)
            for end in ends.values():
                self.assertAlmostEqual(end / 1e6, plan["seconds"], delta=1e-6)

    def test_a_rank_computes_waits_or_merges_and_computing_is_what_the_page_says(self):
        for _, plan, timeline in self.ways():
            sums = collections.defaultdict(collections.Counter)
            first = collections.Counter()  # of the forward pass alone
            for event in slices(timeline["traceEvents"], "compute", "merge", "wait"):
                self.assertEqual((event["tid"], event["cat"]), (0, "work"))
                sums[event["pid"]][event["name"]] += event["dur"] / 1e6
                if event["name"] == "compute" and event["ts"] / 1e6 < plan["forward_seconds"] - 1e-6:
                    first[event["pid"]] += event["dur"] / 1e6
            close = 1e-5
            forward = max(first.values())
            backward = max(sums[rank]["compute"] - first[rank] for rank in sums)
            self.assertAlmostEqual(forward + backward, plan["compute_seconds"], delta=close)
            for parts in sums.values():  # what is not computing is exposed
                self.assertAlmostEqual(sum(parts.values()), plan["seconds"], delta=close)
            busiest = max(sums.values(), key=lambda parts: parts["compute"])
            exposed = (busiest["wait"] + busiest["merge"]) / plan["seconds"]
            if plan["pass"] == "forward":
                self.assertAlmostEqual(100 * exposed, plan["exposed_percent"], delta=100 * close / plan["seconds"])

    def test_tracks_nest_and_arrows_have_both_ends(self):
        for _, plan, timeline in self.ways():
            events = timeline["traceEvents"]
            self.assertLessEqual(max(self.spans_of_nested_tracks(events)), 1e6 * plan["seconds"] + 1)
            self.check_arrows(events, backwards=0.02)
            self.assertEqual(bytes_sent(events), bytes_received(events))
            self.assertEqual(sum(bytes_sent(events).values()), plan["bytes_inside_nodes"] + plan["bytes_between_nodes"])

    def test_it_says_what_it_is(self):
        page, plan, timeline = self.predicted("--tokens", "8Ki", "--ranks", 8, "--ranks-per-node", 4, "--hardware", PROFILE)
        about = timeline["otherData"]
        self.assertEqual(about["times"], "predicted")
        for key in ["strategy", "grid", "partition", "mask", "pass", "prices", "seconds", "ranks"]:
            self.assertEqual(about[key], plan[key])
        names = [e["args"]["name"] for e in timeline["traceEvents"] if e["name"] == "process_name"]
        self.assertEqual(names, [f"rank {rank} on node {rank // 4}, predicted" for rank in range(8)])
        self.assertIn(f"  timeline        {self.scratch / 'timeline.json'}: predicted, of all 8 ranks\n", page)
        self.assertEqual(plan["timeline"], {"file": str(self.scratch / "timeline.json"), "recorded_ranks": 8})

    def test_of_many_ranks_it_shows_the_first_and_says_so(self):
        for ranks, each, shown in [(96, 96, 64), (100, 24, 48), (2048, 8, 24)]:
            with self.subTest(ranks=ranks):
                page, plan, timeline = self.predicted("--tokens", "1M", "--ranks", ranks, "--ranks-per-node", each, "--strategy", "ring",
                                                      "--partition", "zigzag", "--query-heads", 1)
                events = timeline["traceEvents"]
                self.assertEqual({e["pid"] for e in events}, set(range(shown)))
                self.assertIn(f"predicted, of the first {shown} of {ranks:,} ranks, as much as can be looked at\n", page)
                self.assertEqual(timeline["otherData"]["recorded_ranks"], shown)
                self.assertLessEqual(len(slices(events)), 1 << 18)
                self.check_arrows(events, backwards=0.02)
                self.assertIn(ranks - 1, {e["args"]["from"] for e in slices(events, "receive")}, "rank 0 receives from the last, without an arrow")

    def test_the_plan_does_not_change(self):
        options = ["--tokens", "100k", "--ranks", 12, "--pass", "backward", "--mask", "causal+window:9000,0"]
        page, plan, _ = self.predicted(*options)
        twin = self.scratch / "alone.json"
        alone = self.succeeds("plan", *options, "--json", twin).stdout
        self.assertEqual(page.split("\n  timeline ")[0], alone)
        del plan["timeline"]
        self.assertEqual(plan, json.loads(twin.read_text()))


class BesideTheMeasured(TimelineTest):
    def blocks(self, events, rank, empty=0):
        """Whose blocks the rank computes on, one after another: a kernel may take a step in several goes. A step without a block has
        nothing to compute, nor has the first of a tree, which the engine goes through with the rank's own: `empty` of the first are left
        out."""
        steps = [e["args"]["step"] for e in slices(events, "compute") if e["pid"] == rank and e["args"]["step"] >= 0]
        return [step for step, before in zip(steps[empty:], [None, *steps[empty:]]) if step != before]

    def test_both_tell_of_the_same_events_messages_and_bytes(self):
        path, measured, predicted = self.scratch / "in.h5", self.scratch / "measured.json", self.scratch / "predicted.json"
        tensors.write(path, **tensors.random_tensors(np.random.default_rng(SEED), 700, 700, 4, 4, 32, 32, dout=True))
        for strategy in STRATEGIES:
            for mask in ["full", "causal+window:99,0"]:
                for backward in [False, True]:
                    with self.subTest(seed=SEED, strategy=strategy, mask=mask, backward=backward):
                        how = [path, "--ranks", 4, "--strategy", strategy, "--partition", "contiguous", "--mask", mask]
                        self.succeeds("attend", *how, "--output", self.scratch / "out.h5", "--overwrite", "--timeline", measured,
                                      *(["--backward"] if backward else []))
                        self.succeeds("plan", *how, "--pass", "backward" if backward else "forward", "--timeline", predicted)
                        was, said = [json.loads(file.read_text())["traceEvents"] for file in (measured, predicted)]
                        self.assertEqual(bytes_sent(said), bytes_sent(was))
                        for rank in range(4):
                            self.assertEqual(self.blocks(said, rank), self.blocks(was, rank, empty=int(strategy == "tree")))
                        for name in ["compute", "wait", "send", "receive", "message", "process_name", "thread_name"]:
                            shapes = [{(e["ph"], e.get("cat"), *sorted(e), *sorted(e.get("args", {}))) for e in events if e["name"] == name}
                                      for events in (said, was)]
                            self.assertEqual(*shapes)


class Files(TimelineTest):
    def test_inputs_and_the_twin_are_not_replaced(self):
        path = tensors.write(self.scratch / "in.h5", **tensors.random_tensors(np.random.default_rng(SEED), 9, 9, 1, 1, 8, 8))
        profile, config = self.scratch / "profile.ini", self.scratch / "plan.ini"
        profile.write_bytes((ROOT / "configs" / "hardware" / "cpu-100gbe.ini").read_bytes())
        config.write_text("ranks = 4\n")
        before = [file.read_bytes() for file in (path, profile, config)]
        self.refuses(2, "--timeline", "input", command=["plan", path, "--timeline", path])
        self.refuses(2, "--timeline", "input", command=["plan", "--hardware", profile, "--timeline", profile])
        self.refuses(2, "--timeline", "input", command=["plan", "--config", config, "--timeline", config])
        self.refuses(2, "--json", "input", command=["plan", "--config", config, "--timeline", self.scratch / "t.json", "--json", config])
        self.refuses(2, "--timeline", "--json", command=["plan", "--json", self.scratch / "a.json", "--timeline",
                                                         f"{self.scratch}/./a.json"])
        attend = ["attend", path, "--output", self.scratch / "out.h5"]
        self.refuses(2, "--timeline", "input", command=[*attend, "--hardware", profile, "--timeline", profile])
        self.refuses(2, "--timeline", "input", command=[*attend, "--config", config, "--timeline", config])
        self.assertEqual([file.read_bytes() for file in (path, profile, config)], before)
        self.assertEqual([p.name for p in self.scratch.iterdir() if p.name in ("a.json", "out.h5") or "partial" in p.name], [])

    def test_a_file_that_cannot_be_written_is_known_before_anything_is_planned(self):
        long = ["plan", "--tokens", "100M", "--ranks", 65536]  # minutes
        self.refuses(5, "--timeline", "cannot be written", command=[*long, "--timeline", self.scratch / "no" / "t.json"])
        self.refuses(5, "--timeline", "directory", command=[*long, "--timeline", self.scratch])

    def test_a_plan_that_is_refused_leaves_no_timeline(self):
        timeline = self.scratch / "t.json"
        timeline.write_text("before")
        done = annulus("plan", "--ranks", 7, "--strategy", "hybrid", "--timeline", timeline)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.refuses(2, "--timeline", "every step", "pairs of seats = 400000000", "300000000",
                     command=["plan", "--ranks", 20000, "--strategy", "ring", "--mask", "full", "--partition", "contiguous", "--timeline", timeline])
        self.assertEqual(timeline.read_text(), "before")
        self.assertEqual([p.name for p in self.scratch.iterdir() if "partial" in p.name], [])


if __name__ == "__main__":
    unittest.main()
