"""Traces of attend against statistics of attention in float64."""
import unittest

from program import needs

needs("numpy", "h5py")

import h5py
import numpy as np

from attending import GRIDS, HEADS, MASKS, SEED, AttendTest, case
from dimensions import datasets
from oracle import Attention, visible
from tensors import element, random_tensors, write


class Traces(AttendTest):
    NAMES = ["lse", "entropy", "max_probability", "sink_mass", "mean_distance", "received_mass", "block_mass"]

    def test_all_traces_agree_for_every_mask(self):
        random = np.random.default_rng(SEED + 9)
        for number, mask in enumerate(MASKS):
            heads, ranks = HEADS[number % len(HEADS)], [1, 2, 3, 4, 8][number % 5]
            grid = GRIDS[ranks][number % len(GRIDS[ranks])]
            top_k, sink, blocks = [8, 1, 70][number % 3], [4, 0, 9][number % 3], [128, 7, 1][number % 3]
            path = self.scratch / "in.h5"
            arrays, documents = case(random, path, ["f32", "bf16", "f16"][number % 3], 53, 53, heads, 16, 8)
            judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible(mask, 53, 53, documents))
            with self.subTest(seed=SEED + 9, mask=mask, heads=heads, grid=grid, top_k=top_k, blocks=blocks):
                result = self.attend(path, "--mask", mask, "--trace", "full", "--ranks", ranks, "--grid", grid, "--top-k", top_k,
                                     "--sink-tokens", sink, "--map-blocks", blocks)
                self.check_traces(result, judge, sink, blocks, top_k)

    def test_traces_of_cross_attention_agree(self):
        random = np.random.default_rng(SEED + 10)
        for queries, keys in [(11, 47), (47, 11)]:
            path = self.scratch / "in.h5"
            arrays, _ = case(random, path, "f32", queries, keys, (2, 1), 16, 8)
            for mask in ["full", "causal"]:
                judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible(mask, queries, keys))
                with self.subTest(seed=SEED + 10, lengths=(queries, keys), mask=mask):
                    result = self.attend(path, "--mask", mask, "--trace", "full", "--ranks", 3, "--map-blocks", 6)
                    self.check_traces(result, judge, 4, 6, 8)

    def test_equal_scores_are_ordered_by_key_at_any_number_of_ranks(self):
        # Small whole numbers and a scale of 1/8: every score is exact in any order of summation, and ties are many.
        random = np.random.default_rng(SEED + 11)
        arrays = {name: random.integers(-1, 2, shape).astype(float)
                  for name, shape in {"q": (60, 2, 4), "k": (60, 2, 4), "v": (60, 2, 4)}.items()}
        path = write(self.scratch / "in.h5", "f32", **arrays)
        judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible("causal", 60, 60), scale=0.125)
        for ranks in [1, 2, 3, 8]:
            for partition in ["contiguous", "striped", "zigzag"]:
                with self.subTest(seed=SEED + 11, ranks=ranks, partition=partition):
                    result = self.attend(path, "--trace", "full", "--softmax-scale", "0.125", "--ranks", ranks,
                                         "--partition", partition)
                    self.check_traces(result, judge, 4, 128, 8, exact=True)

    def test_large_scores_break_no_law(self):
        # scores of 40,000: f32 tells them to 0.004 apart, and what keys receive is off by as much
        random = np.random.default_rng(SEED + 14)
        arrays = random_tensors(random, 1, 4096, 4, 4, 64, 8)
        path = write(self.scratch / "in.h5", "f32", q=100 * arrays["q"], k=100 * arrays["k"], v=arrays["v"])
        for options in [[], ["--ranks", 3], ["--kernel", "reference"]]:
            with self.subTest(seed=SEED + 14, options=options):
                result = self.attend(path, "--trace", "full", *options)
                self.assertGreater(result["lse"].max(), 3e4)
                self.in_range(result)
                self.succeeds("verify", self.scratch / "out.h5")

    def test_entropies_and_probabilities_are_in_their_range(self):
        random = np.random.default_rng(SEED + 15)
        arrays = random_tensors(random, 200, 200, 4, 4, 64, 8)
        path = write(self.scratch / "in.h5", "f32", q=5 * arrays["q"], k=5 * arrays["k"], v=arrays["v"])
        for options in [[], ["--mask", "window:0,0"], ["--kernel", "reference"]]:
            with self.subTest(seed=SEED + 15, options=options):
                self.in_range(self.attend(path, "--trace", "full", *options))

    def in_range(self, result):
        self.assertGreaterEqual(result["trace/entropy"].min(), 0)
        for name in ["max_probability", "sink_mass", "topk_probability"]:
            self.assertGreaterEqual(result[f"trace/{name}"].min(), 0)
            self.assertLessEqual(result[f"trace/{name}"].max(), 1)

    def test_each_level_holds_what_it_promises(self):
        random = np.random.default_rng(SEED + 12)
        path = self.scratch / "in.h5"
        case(random, path, "f32", 19, 19, (2, 2), 8, 8)
        summary = {"lse", "entropy", "max_probability", "sink_mass", "mean_distance"}
        standard = summary | {"received_mass", "block_mass", "query_block", "key_block"}
        edges = standard | {"topk_index", "topk_probability"}
        for level, names in {"none": set(), "summary": summary, "standard": standard, "edges": edges, "full": edges}.items():
            result = self.attend(path, "--trace", level)
            found = {name.split("/")[1] for name in result if name.startswith("trace/")}
            self.assertEqual(found, names, level)

    def test_every_dataset_says_what_it_is(self):
        random = np.random.default_rng(SEED + 13)
        path, output = self.scratch / "in.h5", self.scratch / "said.h5"
        case(random, path, "bf16", 19, 19, (4, 2), 8, 6, dout=True)
        self.succeeds("attend", path, "--output", output, "--trace", "full", "--backward", "--ranks", 2)
        token, key, places = ("token", "head"), ("key", "head"), ("query_block", "key_block")
        expected = {
            "out": ("bf16", (19, 4, 6), (*token, "value_channel")), "lse": ("f32", (19, 4), token),
            "dq": ("bf16", (19, 4, 8), (*token, "channel")), "dk": ("bf16", (19, 2, 8), ("key", "kv_head", "channel")),
            "dv": ("bf16", (19, 2, 6), ("key", "kv_head", "value_channel")), "trace/received_mass": ("f32", (19, 4), key),
            "trace/topk_index": ("u32", (19, 4, 8), (*token, "k")), "trace/topk_probability": ("f32", (19, 4, 8), (*token, "k")),
            "trace/block_mass": ("f32", (4, 19, 19), ("head", *places)),
            **{f"trace/{name}": ("i64", (19,), (name,)) for name in places},
            **{f"trace/{name}": ("f32", (19, 4), token) for name in self.NAMES[:5]}}
        with h5py.File(output, "r") as file:
            self.assertEqual(datasets(file), set(expected))
            for name, (kind, shape, labels) in expected.items():
                with self.subTest(dataset=name):
                    dataset = file[name]
                    self.assertEqual((element(dataset), dataset.shape), (kind, shape))
                    self.assertEqual(tuple(dim.label for dim in dataset.dims), labels)
                    self.assertTrue(dataset.attrs["units"])
                    self.assertTrue(dataset.attrs["long_name"])
            for name in ["schema", "program", "command_line", "configuration", "strategy", "ranks", "device", "mask",
                         "softmax_scale", "dtype", "input_hash", "status", "kernel", "grid", "partition"]:
                self.assertIn(name, file.attrs)
            self.assertEqual(file.attrs["status"], "complete")
            self.assertEqual(file.attrs["ranks"], 2)
            self.assertAlmostEqual(file.attrs["softmax_scale"], 8**-0.5)


if __name__ == "__main__":
    unittest.main()
