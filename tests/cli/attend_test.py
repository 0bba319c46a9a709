"""attend against attention in float64, written independently in oracle.py."""
import unittest

from program import ProgramTest, needs

needs("numpy", "h5py")

import h5py
import numpy as np

from oracle import Attention, visible
from tensors import element, random_tensors, rounded, write

SEED = 20260
UNUSED = 2**32 - 1

# Largest error over largest value of what is summed. f32 sums of up to 128 products and of up to 128 exponentials, with
# errors of both signs: sqrt(128) * 2^-24 = 7e-7 at the worst element. Gradients go through five products instead of two.
FORWARD, BACKWARD = 1e-6, 5e-6
# dq and dk are differences, p (dp - delta), which may cancel to nothing; what is subtracted has about this size.
TERMS = 1.0
# Half a unit in the last place of a rounded output, relative to the element.
ROUNDING = {"f32": 0, "bf16": 2**-8, "f16": 2**-11}
# Probabilities rounded before they meet the values, by the kernels that do so.
ROUNDING_OF_P = {("tiled-avx512-bf16", "bf16"): 2**-8, ("tiled-amx-bf16", "bf16"): 2**-8, ("tiled-amx-split", "f16"): 2**-16}
# Where f32 and f16 numbers keep 16 bits: three times the 2e-5 that is their error in the mean.
COARSENESS = {"tiled-amx-fast": 60}

MASKS = [
    "full", "causal", "window:9,0", "window:3", "window:4,6", "causal+window:12", "causal+window:5,0+sink:3",
    "window:2,2+global:0,31,40-42", "causal+window:6,0+sink:2+global:17", "prefix:11+causal", "documents",
    "causal+documents", "causal+documents+window:7,0+sink:4", "documents+window:3,3+global:5,30", "prefix:9+documents+causal",
    "window:0,0", "window:-2,5", "sink:5", "prefix:200+window:1,0"]
GRIDS = {1: ["1x1x1"], 2: ["1x2x1", "2x1x1"], 3: ["1x3x1", "3x1x1"], 4: ["1x4x1", "1x2x2", "4x1x1", "2x2x1"],
         8: ["1x8x1", "1x2x4", "8x1x1", "2x2x2", "4x2x1"]}
PARTITIONS = ["auto", "contiguous", "striped", "zigzag", "balanced"]
HEADS = [(4, 4), (4, 2), (4, 1), (6, 3), (1, 1)]


def worst(found, expected):
    """Largest error over largest value; infinities must agree."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    finite = np.isfinite(expected)
    if found.shape != expected.shape or not np.array_equal(found[~finite], expected[~finite]):
        return np.inf
    if not finite.any():
        return 0.0
    return np.abs(found[finite] - expected[finite]).max() / max(np.abs(expected[finite]).max(), 1e-30)


def rounding_of_p(result, dtype):
    return ROUNDING_OF_P.get((result["attributes"]["kernel"], dtype), 0)


class AttendTest(ProgramTest):
    def attend(self, path, *options, ranks=0, name="out.h5"):
        """The arrays and attributes of the result."""
        output = self.scratch / name
        self.succeeds("attend", path, "--output", output, "--overwrite", *options, ranks=ranks)
        arrays = {}
        with h5py.File(output, "r") as file:
            file.visititems(lambda name, it: arrays.__setitem__(name, it[()]) if isinstance(it, h5py.Dataset) else None)
            arrays["attributes"] = dict(file.attrs)
        return arrays

    def agrees(self, found, expected, tolerance, rounding=0.0, floor=0.0, what=""):
        """Within tolerance times the largest value expected (or floor, if that is more), and the rounding of each element."""
        found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
        self.assertEqual(found.shape, expected.shape, what)
        if expected.size == 0:
            return
        largest = max(np.abs(expected[np.isfinite(expected)]).max(initial=0), floor)
        with np.errstate(invalid="ignore"):
            allowed = tolerance * largest + rounding * np.abs(expected)
            off = np.where(found == expected, 0, np.abs(found - expected))
        bad = ~(off <= np.where(np.isfinite(allowed), allowed, 0))
        where = np.argwhere(bad)[:3].tolist()
        self.assertFalse(bad.any(), f"{what}: {bad.sum()} of {bad.size} elements, first at {where}; worst {np.nanmax(off)}")

    def check_forward(self, result, judge, dtype="f32"):
        forward = FORWARD * COARSENESS.get(result["attributes"]["kernel"], 1)
        self.agrees(result["lse"], judge.lse, forward * 2, what="lse")
        # an output is a mean of values: its rounding is that of the values, also where they cancel
        values = np.abs(judge.v).max(initial=0)
        self.agrees(result["out"], judge.out, forward + rounding_of_p(result, dtype), ROUNDING[dtype], values, what="out")
        if dtype == "f32":  # the promise: relative error over the whole result
            self.assertLessEqual(np.linalg.norm(result["out"] - judge.out), forward * np.linalg.norm(judge.out))


def case(random, path, dtype="f32", queries=61, keys=61, heads=(4, 2), channels=24, value_channels=16, dout=False):
    """An input file and what it holds after rounding to the type that is computed with."""
    arrays = random_tensors(random, queries, keys, *heads, channels, value_channels, dout)
    documents = sorted([0, keys, *random.integers(0, keys + 1, 3)]) if queries == keys else None
    write(path, dtype, documents, **arrays)
    return {name: rounded(values, dtype) for name, values in arrays.items()}, documents or ()


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

    def test_every_kernel_that_runs_here_agrees(self):
        random = np.random.default_rng(SEED + 6)
        path = self.scratch / "in.h5"
        arrays, _ = case(random, path, "f32", 70, 70, (6, 2), 37, 19, dout=True)
        judge = Attention(arrays["q"], arrays["k"], arrays["v"], visible("causal", 70, 70))
        lines = [line.split() for line in self.succeeds("info").stdout.splitlines()]
        running = [line[0] for line in lines if line and line[-1] == "runs"]
        self.assertIn("reference", running)
        for kernel in running:
            with self.subTest(seed=SEED + 6, kernel=kernel):
                result = self.attend(path, "--kernel", kernel, "--backward", "--ranks", 2)
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
                        self.agrees(result[name], expected, BACKWARD + rounding_of_p(result, dtype), ROUNDING[dtype], TERMS, what=name)

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


class Traces(AttendTest):
    NAMES = ["lse", "entropy", "max_probability", "sink_mass", "mean_distance", "received_mass", "block_mass"]

    def check_traces(self, result, judge, sink_tokens, map_blocks, top_k, exact=False):
        scores = 1 + judge.largest_score()
        unit = 16 * 2**-24 * scores  # a probability's relative error is its score's absolute one
        keys = judge.seen.shape[1]
        for name, expected in judge.traces(sink_tokens, map_blocks).items():
            allowed = unit * {"lse": 1, "entropy": scores, "mean_distance": keys}.get(name, 1)
            found = result[f"trace/{name}"].astype(np.float64)
            self.assertEqual(found.shape, expected.shape, name)
            with np.errstate(invalid="ignore"):
                off = np.where(found == expected, 0, np.abs(found - expected))
            most = allowed * max(1, np.abs(expected[np.isfinite(expected)]).max(initial=0))
            self.assertLessEqual(off.max(initial=0), most, name)
        index, probability = judge.top_keys(top_k)
        found = result["trace/topk_index"].astype(np.int64)
        found[found == UNUSED] = -1
        self.assertEqual(found.shape, index.shape)
        self.assertTrue(((found < 0) == (index < 0)).all(), "as many places are used as keys are seen")
        self.assertLessEqual(np.abs(result["trace/topk_probability"] - probability).max(initial=0), unit)
        if exact:
            np.testing.assert_array_equal(found, index)
        for h in range(found.shape[1]):  # near-equal probabilities may change places, but each place holds its own
            for i in range(found.shape[0]):
                used = found[i, h][found[i, h] >= 0]
                self.assertEqual(len(set(used)), len(used), "every key once")
                self.assertLessEqual(np.abs(judge.p[h, i, used] - probability[i, h, :len(used)]).max(initial=0), unit)
        rows = result["trace/block_mass"].sum(2)
        sees = judge.seen.any(1)
        tokens = max(1, -(-max(judge.seen.shape) // map_blocks))
        for b in range(rows.shape[1]):
            expected = 1 if sees[b * tokens:(b + 1) * tokens].any() else 0
            self.assertLessEqual(np.abs(rows[:, b] - expected).max(), unit)
        received = result["trace/received_mass"].sum(0, dtype=np.float64)
        self.assertLessEqual(np.abs(received - sees.sum()).max(), unit * max(1, sees.sum()))

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

    def test_each_level_holds_what_it_promises(self):
        random = np.random.default_rng(SEED + 12)
        path = self.scratch / "in.h5"
        case(random, path, "f32", 19, 19, (2, 2), 8, 8)
        summary = {"lse", "entropy", "max_probability", "sink_mass", "mean_distance"}
        standard = summary | {"received_mass", "block_mass"}
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
        token, key = ("token", "head"), ("key", "head")
        expected = {
            "out": ("bf16", (19, 4, 6), ("token", "head", "channel")), "lse": ("f32", (19, 4), token),
            "dq": ("bf16", (19, 4, 8), ("token", "head", "channel")), "dk": ("bf16", (19, 2, 8), ("key", "head", "channel")),
            "dv": ("bf16", (19, 2, 6), ("key", "head", "channel")), "trace/received_mass": ("f32", (19, 4), key),
            "trace/topk_index": ("u32", (19, 4, 8), (*token, "k")), "trace/topk_probability": ("f32", (19, 4, 8), (*token, "k")),
            "trace/block_mass": ("f32", (4, 19, 19), ("head", "query_block", "key_block")),
            **{f"trace/{name}": ("f32", (19, 4), token) for name in self.NAMES[:5]}}
        with h5py.File(output, "r") as file:
            names = []
            file.visititems(lambda name, it: names.append(name) if isinstance(it, h5py.Dataset) else None)
            self.assertEqual(set(names), set(expected))
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


class Said(AttendTest):
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
                self.assertEqual(result["attributes"]["transport"], "mpi")
                self.assertEqual(result["attributes"]["ranks"], ranks)
                self.check_forward(result, judge)
                Traces.check_traces(self, result, judge, 4, 128, 8)
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
