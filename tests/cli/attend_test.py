"""attend against attention in float64, written independently in oracle.py."""
import pathlib
import unittest

from program import needs

needs("numpy", "h5py")

import h5py
import numpy as np

from attending import BACKWARD, COARSENESS, GRIDS, HEADS, MASKS, PARTITIONS, ROUNDING, SEED, TERMS, UNUSED, AttendTest, case, rounding_of_weights, worst
from oracle import Attention, visible
from tensors import random_tensors, rounded, write

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Forward(AttendTest):
    def test_every_mask_at_every_number_of_threads_as_ranks(self):
        random = np.random.default_rng(SEED)
        for number, mask in enumerate(MASKS):
            heads, ranks = HEADS[number % len(HEADS)], [1, 2, 3, 4, 8][number % 5]
            channels, value_channels = int(random.integers(1, 70)), int(random.integers(1, 70))
            path = self.scratch / "in.h5"
            arrays, documents = case(random, path, "f32", 61, 61, heads, channels, value_channels)
            judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible(mask, 61, 61, documents))
            for count in sorted({1, ranks, 8}):
                with self.subTest(seed=SEED, mask=mask, heads=heads, channels=(channels, value_channels), ranks=count):
                    self.check_forward(self.attend(path, "--mask", mask, "--ranks", count), judge)

    def test_every_type_at_every_grid_and_partition(self):
        random = np.random.default_rng(SEED + 1)
        number = 0
        for dtype in ["f32", "bf16", "f16", "f64"]:
            path = self.scratch / "in.h5"
            arrays, documents = case(random, path, dtype, 67, 67, (4, 2), 32, 24)
            stored = "f32" if dtype == "f64" else dtype
            for ranks, grids in GRIDS.items():
                for grid in grids:
                    number += 1
                    mask, partition = ["causal", "causal+window:9,0+sink:2", "full"][number % 3], PARTITIONS[number % 5]
                    with self.subTest(seed=SEED + 1, dtype=dtype, grid=grid, mask=mask, partition=partition):
                        judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible(mask, 67, 67, documents))
                        result = self.attend(path, "--mask", mask, "--grid", grid, "--ranks", ranks, "--partition", partition)
                        self.check_forward(result, judge, stored)
                        self.assertEqual(result["attributes"]["grid"], grid)
                        self.assertEqual(result["attributes"]["dtype"], stored)

    def test_every_strategy_by_name(self):
        random = np.random.default_rng(SEED + 2)
        path = self.scratch / "in.h5"
        arrays, _ = case(random, path, "f32", 50, 50, (4, 4), 16, 16)
        judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible("causal", 50, 50))
        for strategy in ["auto", "ring", "double-ring", "ulysses", "hybrid"]:
            for partition in PARTITIONS:
                with self.subTest(seed=SEED + 2, strategy=strategy, partition=partition):
                    result = self.attend(path, "--strategy", strategy, "--ranks", 4, "--partition", partition)
                    self.check_forward(result, judge)
                    if strategy != "auto":
                        self.assertEqual(result["attributes"]["strategy"], strategy)
                    if partition != "auto":
                        self.assertEqual(result["attributes"]["partition"], partition)

    def test_queries_and_keys_of_different_lengths_are_aligned_at_the_ends(self):
        random = np.random.default_rng(SEED + 3)
        for queries, keys in [(13, 61), (61, 13), (1, 40), (40, 1)]:
            path = self.scratch / "in.h5"
            arrays, _ = case(random, path, "f32", queries, keys, (2, 1), 20, 12)
            for mask in ["full", "causal", "window:8,0", "window:3,3+sink:2", "causal+window:6"]:
                judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible(mask, queries, keys))
                for ranks in [1, 3]:
                    with self.subTest(seed=SEED + 3, lengths=(queries, keys), mask=mask, ranks=ranks):
                        self.check_forward(self.attend(path, "--mask", mask, "--ranks", ranks), judge)

    def test_rows_that_see_nothing_are_zero_and_their_lse_is_minus_infinity(self):
        random = np.random.default_rng(SEED + 4)
        path = self.scratch / "in.h5"
        case(random, path, "f32", 20, 5, (2, 2), 8, 8)
        result = self.attend(path, "--mask", "causal", "--trace", "full", "--ranks", 3)
        self.assertTrue((result["lse"][:15] == -np.inf).all())
        for name in ["out", "trace/entropy", "trace/max_probability", "trace/sink_mass", "trace/mean_distance"]:
            self.assertTrue((result[name][:15] == 0).all(), name)
        self.assertTrue((result["trace/topk_index"][:15] == UNUSED).all())

    def test_the_scale_and_the_type_can_be_chosen(self):
        random = np.random.default_rng(SEED + 5)
        path = self.scratch / "in.h5"
        arrays, _ = case(random, path, "f32", 33, 33, (2, 2), 16, 16)
        judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible("causal", 33, 33), scale=0.75)
        self.check_forward(self.attend(path, "--softmax-scale", "0.75", "--ranks", 2), judge)
        for dtype in ["bf16", "f16"]:
            with self.subTest(dtype=dtype):
                small = {name: rounded(values, dtype) for name, values in arrays.items()}
                judge = Attention(small["q"], small["k"], small["v"], visible("causal", 33, 33))
                self.check_forward(self.attend(path, "--dtype", dtype, "--ranks", 2), judge, dtype)

    def test_of_different_types_the_one_that_holds_all_is_taken(self):
        random = np.random.default_rng(SEED + 8)
        path = self.scratch / "in.h5"
        for types, common in [(("bf16", "f32", "f32"), "f32"), (("f16", "f16", "bf16"), "f32"), (("f16", "f16", "f16"), "f16"),
                              (("f32", "f64", "bf16"), "f32")]:
            arrays, _ = case(random, path, "f32", 12, 12, (2, 2), 8, 8)
            for name, dtype in zip("qkv", types):
                one = write(self.scratch / "one.h5", dtype, **{name: arrays[name]})
                with h5py.File(one, "r") as source, h5py.File(path, "a") as file:
                    del file[name]
                    source.copy(name, file)
            with self.subTest(types=types):
                self.assertEqual(self.attend(path)["attributes"]["dtype"], common)

    def test_every_kernel_that_runs_here_agrees(self):
        random = np.random.default_rng(SEED + 6)
        path = self.scratch / "in.h5"
        arrays, _ = case(random, path, "f32", 70, 70, (6, 2), 37, 19, dout=True)
        judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible("causal", 70, 70))
        lines = [line.split() for line in self.succeeds("info").stdout.splitlines()]
        running = [line[0] for line in lines if line and line[-1] == "runs"]
        self.assertIn("reference", running)
        fast = "tiled-amx-fast" if "tiled-amx-fast" in running else running[0]  # as auto
        for asked, kernel in [(kernel, kernel) for kernel in running] + [("fast", fast)]:
            with self.subTest(seed=SEED + 6, kernel=asked):
                result = self.attend(path, "--kernel", asked, "--backward", "--ranks", 2)
                self.check_forward(result, judge)
                self.assertEqual(result["attributes"]["kernel"], kernel)
                for name, expected in zip(["dq", "dk", "dv"], judge.gradients(arrays["dout"])):
                    self.agrees(result[name], expected, BACKWARD * COARSENESS.get(kernel, 1), floor=TERMS, what=name)


class Backward(AttendTest):
    def test_gradients_agree_for_every_mask_and_type(self):
        random = np.random.default_rng(SEED + 7)
        number = 0
        for dtype in ["f32", "bf16", "f16"]:
            for mask in MASKS[number % 3::2]:
                number += 1
                heads, ranks = HEADS[number % len(HEADS)], [1, 2, 3, 4, 8][number % 5]
                grid = GRIDS[ranks][number % len(GRIDS[ranks])]
                path = self.scratch / "in.h5"
                arrays, documents = case(random, path, dtype, 43, 43, heads, 18, 22, dout=True)
                judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible(mask, 43, 43, documents))
                with self.subTest(seed=SEED + 7, dtype=dtype, mask=mask, heads=heads, grid=grid):
                    result = self.attend(path, "--mask", mask, "--backward", "--ranks", ranks, "--grid", grid)
                    self.check_forward(result, judge, dtype)
                    for name, expected in zip(["dq", "dk", "dv"], judge.gradients(arrays["dout"])):
                        self.agrees(result[name], expected, BACKWARD + rounding_of_weights(result, dtype), ROUNDING[dtype], TERMS, what=name)

    def test_gradients_of_cross_attention_agree(self):
        random = np.random.default_rng(SEED + 8)
        for queries, keys in [(12, 37), (37, 12)]:
            path = self.scratch / "in.h5"
            arrays, _ = case(random, path, "f32", queries, keys, (4, 2), 16, 8, dout=True)
            judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible("causal", queries, keys))
            with self.subTest(seed=SEED + 8, lengths=(queries, keys)):
                result = self.attend(path, "--backward", "--ranks", 3)
                for name, expected in zip(["dq", "dk", "dv"], judge.gradients(arrays["dout"])):
                    self.agrees(result[name], expected, BACKWARD, floor=TERMS, what=name)


class Said(AttendTest):
    def test_heads_where_tokens_should_be_are_pointed_out(self):
        random = np.random.default_rng(SEED + 8)
        for shape, hinted in [((4, 30, 8, 8), True), ((30, 4, 8, 8), False), ((1, 8, 8, 8), False)]:  # tokens, heads, channels
            tokens, heads, *channels = shape
            path = write(self.scratch / "in.h5", "f32", **random_tensors(random, tokens, tokens, heads, heads, *channels))
            page = self.succeeds("attend", path, "--output", self.scratch / "out.h5", "--overwrite").stdout
            self.assertEqual("not [heads, tokens, channels]" in page, hinted, page)
            self.assertIn("1 token x" if tokens == 1 else f"{tokens} tokens x", page)

    def test_what_a_profile_predicted_stands_beside_what_was_measured(self):
        random = np.random.default_rng(SEED + 17)
        path, output = self.scratch / "in.h5", self.scratch / "out.h5"
        case(random, path, "f32", 64, 64, (4, 2), 8, 8, dout=True)
        profile = ROOT / "configs" / "hardware" / "cpu-100gbe.ini"
        for options, passes in [([], ["forward"]), (["--backward"], ["forward", "backward"])]:
            with self.subTest(passes=passes):
                page = self.succeeds("attend", path, "--output", output, "--overwrite", "--ranks", 2, "--hardware", profile, *options).stdout
                line = next(line for line in page.splitlines() if line.startswith("  predicted "))
                with h5py.File(output) as file:
                    for one in ["forward", "backward"]:
                        self.assertEqual(f"{one} " in line, one in passes, line)
                        for word in ["predicted", "measured"]:
                            self.assertEqual(file.attrs.get(f"{word}_{one}_seconds", 0) > 0, one in passes, (word, one))
        self.assertNotIn("predicted", self.succeeds("attend", path, "--output", output, "--overwrite").stdout)

    def test_a_config_file_stands_for_the_command_line(self):
        random = np.random.default_rng(SEED + 18)
        path, config = self.scratch / "in.h5", self.scratch / "job.ini"
        case(random, path, "f32", 31, 31, (4, 2), 8, 8, dout=True)
        options = ["--mask", "causal+window:4,0", "--ranks", 3, "--partition", "striped", "--backward", "--trace", "full"]
        config.write_text(self.succeeds("attend", path, *options, "--print-config").stdout)
        said, written = self.attend(path, *options), self.attend(path, "--config", config)
        for name in said:
            if name != "attributes":
                self.assertEqual(said[name].tobytes(), written[name].tobytes(), name)
        won = self.attend(path, "--config", config, "--mask", "full")
        self.assertEqual(won["attributes"]["mask"], "full", "the command line wins")
        self.assertIn("mask = full", won["attributes"]["configuration"])


class Ranks(AttendTest):
    def test_processes_and_threads_agree_with_float64_and_with_one_rank(self):
        self.needs_mpirun()
        random = np.random.default_rng(SEED + 14)
        path = self.scratch / "in.h5"
        arrays, documents = case(random, path, "f32", 83, 83, (4, 2), 24, 16, dout=True)
        mask = "causal+documents"
        judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible(mask, 83, 83, documents))
        options = ["--mask", mask, "--trace", "full", "--backward"]
        one = self.attend(path, *options)
        gradients = dict(zip(["dq", "dk", "dv"], judge.gradients(arrays["dout"])))
        for ranks in [1, 2, 3, 4]:
            with self.subTest(seed=SEED + 14, ranks=ranks):
                result = self.attend(path, *options, ranks=ranks)
                self.assertEqual(result["attributes"]["transport"], "shared" if ranks > 1 else "mpi")
                self.assertEqual(result["attributes"]["ranks"], ranks)
                self.check_forward(result, judge)
                self.check_traces(result, judge, 4, 128, 8)
                for name, expected in gradients.items():
                    self.agrees(result[name], expected, BACKWARD, floor=TERMS, what=name)
                for name in ["out", "lse"]:
                    self.assertLessEqual(worst(result[name], one[name]), 1e-6, name)

    def test_any_number_of_ranks_gives_the_same_result_within_rounding(self):
        random = np.random.default_rng(SEED + 15)
        path = self.scratch / "in.h5"
        case(random, path, "f32", 97, 97, (4, 4), 32, 32)
        one = self.attend(path)
        for ranks in [2, 3, 4, 5, 7, 8]:
            result = self.attend(path, "--ranks", ranks)
            for name in ["out", "lse"]:
                self.assertLessEqual(worst(result[name], one[name]), 1e-6, (SEED + 15, ranks, name))

    def test_the_same_plan_twice_gives_the_same_bits(self):
        random = np.random.default_rng(SEED + 16)
        path = self.scratch / "in.h5"
        case(random, path, "f32", 97, 97, (4, 2), 32, 16, dout=True)
        options = ["--trace", "full", "--backward", "--partition", "zigzag", "--threads", 2]
        plans = [("--ranks", 3, "--grid", "1x3x1"), ("--ranks", 4, "--grid", "2x2x1"), ("--ranks", 4, "--grid", "1x2x2")]
        for plan in plans:
            runs = [self.attend(path, *options, *plan) for _ in range(3)]
            for name in runs[0]:
                if name != "attributes":
                    for other in runs[1:]:
                        self.assertEqual(runs[0][name].tobytes(), other[name].tobytes(), (plan, name))

    def test_processes_and_threads_give_the_same_bits(self):
        self.needs_mpirun()
        random = np.random.default_rng(SEED + 17)
        path = self.scratch / "in.h5"
        case(random, path, "f32", 97, 97, (4, 2), 32, 16, dout=True)
        options = ["--trace", "full", "--backward", "--partition", "zigzag", "--grid", "1x3x1"]
        threads = self.attend(path, *options, "--ranks", 3)
        processes = [self.attend(path, *options, ranks=3) for _ in range(2)]
        for name in threads:
            if name != "attributes":
                for other in processes:
                    self.assertEqual(threads[name].tobytes(), other[name].tobytes(), name)


if __name__ == "__main__":
    unittest.main()
