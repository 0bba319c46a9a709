"""attend --append: prefill in parts and decoding give what one attention over everything gives."""
import shutil
import threading
import unittest

from program import MPIRUN, ProgramTest, annulus, needs

needs("numpy", "h5py")

import h5py
import numpy as np

from oracle import Attention, visible
from tensors import element, random_tensors, rounded, write

SEED = 77
FORWARD = 1e-6  # of the largest output; see attend_test.py
CHUNKS = [19, 1, 1, 30, 7, 1, 5]  # parts of a prompt, and tokens decoded one by one


class Append(ProgramTest):
    def grow(self, dtype, mask, options, ranks=0):
        """The sequence in parts through the program, and at once in float64."""
        tokens = sum(CHUNKS)
        whole = random_tensors(np.random.default_rng(SEED), tokens, tokens, 4, 2, 16, 8)
        exact = {name: rounded(values, dtype) for name, values in whole.items()}
        expected = Attention(exact["q"], exact["k"], exact["v"], visible(mask, tokens, tokens))
        cache = self.scratch / "cache.h5"
        cache.unlink(missing_ok=True)
        begin = 0
        for number, count in enumerate(CHUNKS):
            part = {name: values[begin:begin + count] for name, values in whole.items()}
            path = write(self.scratch / f"part-{number}.h5", dtype, **part)
            output = self.scratch / f"out-{number}.h5"
            page = self.succeeds("attend", path, "--append", cache, "--output", output, "--overwrite", "--mask", mask, *options,
                                 ranks=ranks).stdout
            self.assertIn(f"{begin + count} tokens, {count} of them new", page)
            with h5py.File(output, "r") as file:
                out, lse = file["out"][()], file["lse"][()]
                self.assertEqual(file.attrs["cached_tokens"], begin)
            mine = slice(begin, begin + count)
            floor = np.abs(expected.out).max() * (2**-8 if dtype == "bf16" else FORWARD)  # out has the type of the input
            self.assertLessEqual(np.abs(out - expected.out[mine]).max(), floor)
            self.assertLessEqual(np.abs(lse - expected.lse[mine]).max(), FORWARD * max(1, np.abs(expected.lse).max()))
            begin += count
            with h5py.File(cache, "r") as file:
                np.testing.assert_array_equal(file["k"][()], exact["k"][:begin])
                np.testing.assert_array_equal(file["v"][()], exact["v"][:begin])
                self.assertEqual(element(file["k"]), dtype)
        for number in [0, 1, 3, len(CHUNKS) - 1]:  # the cache has grown since: its beginning is what it was
            self.succeeds("verify", self.scratch / f"out-{number}.h5")

    def test_parts_give_what_the_whole_gives(self):
        for dtype, mask, options in [
                ("f32", "causal", []),
                ("f32", "causal", ["--ranks", 3, "--strategy", "ring", "--partition", "striped"]),
                ("f32", "causal+window:11,0+sink:2", ["--ranks", 4, "--strategy", "pass-q"]),
                ("bf16", "causal", ["--ranks", 4, "--strategy", "tree"]),
                ("f32", "causal", ["--ranks", 2, "--strategy", "all-gather", "--partition", "zigzag"])]:
            with self.subTest(dtype=dtype, mask=mask, options=options):
                self.grow(dtype, mask, options)

    def test_documents_nobody_asks_for_do_not_matter(self):
        """A second part of a file whose offsets end with its own tokens, not with those of the cache."""
        path = write(self.scratch / "packed.h5", "f32", [0, 5, 9], **random_tensors(np.random.default_rng(SEED), 9, 9, 4, 2, 8, 8))
        cache, output = self.scratch / "packed-cache.h5", self.scratch / "packed-out.h5"
        for cached in [0, 9]:
            self.succeeds("attend", path, "--append", cache, "--output", output, "--overwrite", "--mask", "causal")
            with h5py.File(output, "r") as file:
                self.assertEqual(file.attrs["cached_tokens"], cached)
        self.succeeds("verify", output)

    def test_a_copy_is_a_branch_and_a_part_that_is_missing_is_named(self):
        """Two continuations of one prompt; then the cache is moved away from the directory its rows are in."""
        random = np.random.default_rng(SEED)
        prompt, one, other = (random_tensors(random, count, count, 4, 2, 8, 8) for count in (12, 3, 2))
        paths = {name: write(self.scratch / f"{name}.h5", "f32", **part)
                 for name, part in [("prompt", prompt), ("one", one), ("other", other)]}
        cache, branch = self.scratch / "trunk.h5", self.scratch / "branch.h5"
        append = lambda name, to: self.succeeds("attend", paths[name], "--append", to, "--output", self.scratch / f"out-{name}.h5",
                                                "--overwrite", "--ranks", 2)
        append("prompt", cache)
        shutil.copy(cache, branch)
        append("one", cache)
        append("other", branch)
        for path, name, part in [(cache, "one", one), (branch, "other", other)]:
            whole = {x: np.concatenate([prompt[x], part[x]]) for x in ("q", "k", "v")}
            exact = {x: rounded(values, "f32") for x, values in whole.items()}
            n = len(whole["q"])
            expected = Attention(exact["q"], exact["k"], exact["v"], visible("causal", n, n))
            with h5py.File(self.scratch / f"out-{name}.h5", "r") as file:
                self.assertLessEqual(np.abs(file["out"][()] - expected.out[12:]).max(), FORWARD * np.abs(expected.out).max())
            with h5py.File(path, "r") as file:
                np.testing.assert_array_equal(file["k"][()], exact["k"])
            self.succeeds("verify", self.scratch / f"out-{name}.h5")
            renamed = path.rename(self.scratch / "renamed.h5")
            self.refuses(5, path.name, command=["verify", self.scratch / f"out-{name}.h5"])
            self.succeeds("verify", self.scratch / f"out-{name}.h5", "--cache", renamed)
            renamed.rename(path)
            page = self.succeeds("inspect", path).stdout
            self.assertRegex(page, rf"k +\[{n}, 2, 8\] f32 +-?[0-9.]+")
        away = self.scratch / "away"
        away.mkdir()
        shutil.copy(cache, away / "trunk.h5")
        before = (away / "trunk.h5").read_bytes()
        self.refuses(5, "trunk.h5.rows", "missing", "the directory beside it", command=[
            "attend", paths["one"], "--append", away / "trunk.h5", "--output", self.scratch / "o.h5"])
        self.assertEqual((away / "trunk.h5").read_bytes(), before)
        part = next((self.scratch / "trunk.h5.rows").glob("*.h5"))
        self.refuses(2, "--output", "must not be an input", command=[
            "attend", paths["one"], "--append", cache, "--output", part, "--overwrite"])

    def test_of_two_calls_at_once_none_is_lost_unseen(self):
        """Two loops that append to one cache: it has the rows of the calls that ended well, and the others left nothing."""
        calls, cache = 8, self.scratch / "both.h5"
        random = np.random.default_rng(SEED)
        parts = {(loop, i): random_tensors(random, 7, 7, 4, 2, 8, 8) for loop in range(2) for i in range(calls)}
        codes, said = {}, []

        def append(loop):
            for i in range(calls):
                path = write(self.scratch / f"both-{loop}-{i}.h5", "f32", **parts[loop, i])
                done = annulus("attend", path, "--append", cache, "--output", self.scratch / f"both-out-{loop}-{i}.h5")
                codes[loop, i] = done.returncode
                said.append(done.stderr)

        loops = [threading.Thread(target=append, args=(loop,)) for loop in range(2)]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()
        self.assertLessEqual(set(codes.values()), {0, 5}, said)
        self.assertNotIn("cannot shrink", "".join(said))
        done = [call for call, code in codes.items() if code == 0]
        self.assertEqual({call for call in codes if (self.scratch / "both-out-{}-{}.h5".format(*call)).exists()}, set(done))
        with h5py.File(cache, "r") as file:
            rows = file["k"][()].reshape(-1, 7, 2, 8)
        expected = [rounded(parts[call]["k"], "f32") for call in done]
        self.assertEqual(len(rows), len(expected))
        self.assertEqual(sorted(part.tobytes() for part in rows), sorted(part.astype(rows.dtype).tobytes() for part in expected))

    def test_numbers_that_are_none_and_rows_that_are_missing(self):
        """A cache of several parts, each read in several pieces; of two tokens that are bad the first is named."""
        tokens, command = 3000, ["--mask", "causal+window:9,0", "--overwrite", "--output", self.scratch / "long-out.h5"]
        for dtype in ["f32", "bf16"]:
            random, cache = np.random.default_rng(SEED), self.scratch / f"long-{dtype}.h5"
            prompt = write(self.scratch / "prompt.h5", dtype, **random_tensors(random, tokens, tokens, 8, 8, 64, 64))
            for _ in range(2):
                self.succeeds("attend", prompt, "--append", cache, *command)
            one = write(self.scratch / "one.h5", dtype, **random_tensors(random, 1, 1, 8, 8, 64, 64))
            parts = sorted(self.scratch.glob(f"long-{dtype}.h5.rows/*.h5"))
            self.assertEqual(len(parts), 2)
            for part, first in [(parts[0], 0), (parts[1], tokens)]:
                with h5py.File(part, "r+") as file:
                    kept = file["v"][1100:1200]
                    file["v"][1111, 5, 63] = np.nan
                    file["v"][1110, 6, 7] = np.nan
                for ranks, more in [(0, ["--threads", 2]), (0, ["--ranks", 2, "--threads", 2]), *([(2, [])] if MPIRUN else [])]:
                    with self.subTest(dtype=dtype, part=part.name, ranks=ranks, more=more):
                        self.refuses(5, f"dataset v of {cache} followed by that of {one} must hold numbers: token {first + 1110}, "
                                     "head 6, channel 7 is NaN", command=["attend", one, "--append", cache, *command, *more], ranks=ranks)
                with h5py.File(part, "r+") as file:
                    file["v"][1100:1200] = kept
            self.succeeds("attend", one, "--append", cache, *command)
            with open(parts[1], "r+b") as file:
                file.truncate(parts[1].stat().st_size - 1)
            self.refuses(5, parts[1].name, command=["attend", one, "--append", cache, *command])

    def test_names_with_percent_signs(self):
        part = random_tensors(np.random.default_rng(SEED), 5, 5, 4, 2, 8, 8)
        path, exact = write(self.scratch / "part.h5", "f32", **part), rounded(part["k"], "f32")
        for name in ["100%.h5", "a%%.h5", "%b.h5"]:
            for count in [1, 2]:
                self.succeeds("attend", path, "--append", self.scratch / name, "--output", self.scratch / "o.h5", "--overwrite")
                with h5py.File(self.scratch / name, "r") as file:
                    np.testing.assert_array_equal(file["k"][()], np.concatenate([exact] * count))

    def test_the_input_and_files_with_more_in_them_stay(self):
        path = write(self.scratch / "qkv.h5", "f32", **random_tensors(np.random.default_rng(SEED), 5, 5, 4, 2, 8, 8))
        other = write(self.scratch / "qkv2.h5", "f32", **random_tensors(np.random.default_rng(SEED), 5, 5, 4, 2, 8, 8))
        link = self.scratch / "link.h5"
        link.symlink_to(path)
        before = path.read_bytes()
        for cache in [path, link]:
            self.refuses(2, "--append", "must not be an input", command=[
                "attend", path, "--append", cache, "--output", self.scratch / "none.h5"])
        self.refuses(5, "qkv.h5", "no cache", "'q'", command=[
            "attend", other, "--append", path, "--output", self.scratch / "none.h5"])
        self.assertEqual(path.read_bytes(), before)
        self.assertFalse((self.scratch / "none.h5").exists())

    def test_processes_share_a_cache(self):
        self.needs_mpirun()
        self.grow("f32", "causal", ["--strategy", "tree"], ranks=3)

    def test_what_does_not_fit_the_cache_is_refused_and_the_cache_stays(self):
        random = np.random.default_rng(SEED)
        first = write(self.scratch / "first.h5", "f32", **random_tensors(random, 9, 9, 4, 2, 8, 8))
        cache, output = self.scratch / "kept.h5", self.scratch / "out.h5"
        command = ["attend", first, "--append", cache, "--output", output, "--overwrite"]
        self.succeeds(*command)
        before = cache.read_bytes()
        heads = write(self.scratch / "heads.h5", "f32", **random_tensors(random, 9, 9, 4, 4, 8, 8))
        self.refuses(5, "dataset k", "kept.h5", command=["attend", heads, *command[2:]])
        self.refuses(5, "kept.h5", "bf16", "f32", command=[*command, "--dtype", "bf16"])
        self.refuses(2, "--append", "--backward", command=[*command, "--backward"])
        self.refuses(2, "--append", "output", command=["attend", first, "--append", output, "--output", output, "--overwrite"])
        self.refuses(2, "--output", "must not be an input", command=["attend", first, "--append", cache, "--output", first,
                                                                     "--overwrite"])
        other = write(self.scratch / "other.h5", "f32", w=np.zeros((3, 2, 8)))
        self.refuses(5, "other.h5", "dataset k", command=["attend", first, "--append", other, "--output", output, "--overwrite"])
        names = set(self.scratch.glob("kept.h5*"))
        broken = write(self.scratch / "nan.h5", "f32", **{**random_tensors(random, 9, 9, 4, 2, 8, 8), "v": np.full((9, 2, 8), np.nan)})
        self.refuses(5, "NaN", command=["attend", broken, *command[2:]])
        self.assertEqual(cache.read_bytes(), before)
        self.assertEqual(set(self.scratch.glob("kept.h5*")), names)
        self.succeeds(*command)
        with h5py.File(cache, "r") as file:
            self.assertEqual(len(file["k"]), 18)
            self.assertEqual(len(file["parts/rows"]), 1)  # what the refused calls had claimed was given back


if __name__ == "__main__":
    unittest.main()
