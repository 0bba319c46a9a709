"""What the tests of attend share: cases over every mask and layout, and how far results may be off."""
from program import ProgramTest, needs

needs("numpy", "h5py")

import h5py
import numpy as np

from dimensions import datasets
from tensors import random_tensors, rounded, write

SEED = 20260
UNUSED = 2**32 - 1  # a place of top-k without a key

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


def rounding_of_weights(result, dtype):
    """The same of P and dS in backward; tiles take two bf16 numbers for one of f16."""
    in_tiles = "-amx-" in result["attributes"]["kernel"]
    return {"bf16": 2**-8, "f16": 2**-15}.get(dtype, 0) if in_tiles else rounding_of_p(result, dtype)


class AttendTest(ProgramTest):
    def attend(self, path, *options, ranks=0, each=(), name="out.h5"):
        """The arrays and attributes of the result."""
        output = self.scratch / name
        self.succeeds("attend", path, "--output", output, "--overwrite", *options, ranks=ranks, each=each)
        with h5py.File(output, "r") as file:
            arrays = {name: file[name][()] for name in datasets(file)}
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


def case(random, path, dtype="f32", queries=61, keys=61, heads=(4, 2), channels=24, value_channels=16, dout=False):
    """An input file and what it holds after rounding to the type that is computed with."""
    arrays = random_tensors(random, queries, keys, *heads, channels, value_channels, dout)
    documents = sorted([0, keys, *random.integers(0, keys + 1, 3)]) if queries == keys else None
    write(path, dtype, documents, **arrays)
    return {name: rounded(values, dtype) for name, values in arrays.items()}, documents or ()
