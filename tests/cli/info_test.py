"""info, inspect and every --help: what they promise."""
import gzip
import json
import os
import pathlib
import re
import shutil
import shlex
import subprocess
import unittest
import wave

from program import PROGRAM, ProgramTest, environment, needs

needs("numpy", "h5py")

import h5py
import numpy as np

import tiny_transformers
from dimensions import datasets
from tensors import random_tensors, write

SEED = 1234


class Info(ProgramTest):
    def test_info_says_what_is_here(self):
        twin = self.scratch / "info.json"
        page = self.succeeds("info", "--json", twin).stdout
        info = json.loads(twin.read_text())
        self.assertEqual(info["version"], self.succeeds("--version").stdout.split()[1])
        names = [kernel["name"] for kernel in info["kernels"]]
        self.assertIn("reference", names)
        self.assertTrue(any(kernel["refusal"] == "" for kernel in info["kernels"]))
        for name in names:
            self.assertIn(name, page)
        self.assertEqual(info["cores"], len(os.sched_getaffinity(0)))
        for name in ["hdf5", "boost", "compiler", "build_type"]:
            self.assertIn(info[name], page)
            self.assertTrue(info[name])

    def test_kernels_are_judged_by_every_type(self):
        """A kernel for bf16 runs here although it refuses f32; what is missing for one that does not has a name the system knows."""
        twin = self.scratch / "info.json"
        page = self.succeeds("info", "--json", twin).stdout
        info = json.loads(twin.read_text())
        known = re.search(r"(?m)^flags\s*:(.*)$", pathlib.Path("/proc/cpuinfo").read_text())
        offered = {name for name, here in info["instruction_sets"].items() if here}
        if known:
            self.assertLessEqual(offered, set(known[1].split()))
            self.assertEqual({name for name in info["instruction_sets"] if name.startswith("avx")} & set(known[1].split()),
                             {name for name in offered if name.startswith("avx")})
        for kernel in info["kernels"]:
            line = next(line for line in page.splitlines() if line.split()[:1] == [kernel["name"]])
            self.assertEqual(kernel["refusal"] == "", kernel["dtypes"] != [], kernel)
            self.assertNotIn("it is for", kernel["refusal"], "some type always fits")
            if kernel["dtypes"] == ["bf16"]:
                self.assertTrue(line.endswith("runs (bf16 inputs)"), line)
            elif kernel["dtypes"] == ["f32", "bf16", "f16"]:
                self.assertTrue(line.endswith("runs"), line)
            else:
                self.assertEqual(line.endswith("cannot run"), kernel["dtypes"] == [], line)
            if kernel["refusal"]:
                lines = page[page.index("\n  kernels "):].splitlines()
                self.assertEqual(sum(kernel["refusal"] in text for text in lines), 1, "said once")
                why = next(number for number, text in enumerate(lines) if kernel["refusal"] in text)
                self.assertIn(kernel["name"], lines[why - 1].replace(",", "").split())
            if "not offered" in kernel["refusal"]:
                missing = kernel["refusal"].split(" missing")[0].split(", ")
                self.assertLessEqual(set(missing), set(info["instruction_sets"]) - offered)

    def test_under_mpirun_one_rank_speaks(self):
        self.needs_mpirun()
        page = self.succeeds("info", ranks=3).stdout
        self.assertEqual(len(re.findall(r"(?m)^  processor ", page)), 1)
        self.assertIn("3 here", page)


class Inspect(ProgramTest):
    def test_numbers_are_those_of_the_file(self):
        random = np.random.default_rng(SEED)
        path = write(self.scratch / "in.h5", "bf16", **random_tensors(random, 37, 37, 4, 2, 8, 8))
        output, twin = self.scratch / "out.h5", self.scratch / "inspect.json"
        self.succeeds("attend", path, "--output", output, "--trace", "full", "--ranks", 2)
        page = self.succeeds("inspect", output, "--json", twin).stdout
        seen = json.loads(twin.read_text())
        with h5py.File(output, "r") as file:
            self.assertEqual(set(seen["attributes"]), set(file.attrs))
            self.assertEqual(seen["attributes"]["mask"], "causal")
            self.assertEqual({dataset["path"].strip("/") for dataset in seen["datasets"]}, datasets(file))
            for dataset in seen["datasets"]:
                values = file[dataset["path"]]
                self.assertEqual(tuple(dataset["shape"]), values.shape)
                self.assertEqual(dataset["units"], values.attrs["units"])
                self.assertIn(dataset["path"], page)
                if dataset["summary"] is not None:
                    numbers = values[()].astype(np.float64)
                    self.assertAlmostEqual(dataset["summary"]["least"], numbers.min(), 6)
                    self.assertAlmostEqual(dataset["summary"]["mean"], numbers.mean(), 6)
                    self.assertAlmostEqual(dataset["summary"]["largest"], numbers.max(), 6)

    def test_what_cannot_be_shown_has_a_line_too(self):
        path, twin = self.scratch / "odd.h5", self.scratch / "odd.json"
        with h5py.File(path, "w") as file:
            file.attrs["author"] = np.bytes_(b"Andr\xe9")
            file["a"] = np.zeros(3, [("x", "f4"), ("y", "i4")])
            file["b"] = np.array([True, False])
            file["c"] = h5py.Empty("f4")
            file["d"] = h5py.SoftLink("/nowhere")
            space = h5py.h5s.create_simple((1, 32768, 32768))
            early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            h5py.h5d.create(file.id, b"huge", h5py.h5t.IEEE_F32LE, space, early)
            file["x"] = np.array([[1, np.inf, -np.inf], [-np.inf, np.nan, 3]])
            h5py.h5g.create(file.id, b"n\xff")
            file[b"n\xff"]["z"] = np.ones((2, 2))
        limited = ["bash", "-c", 'ulimit -v 2000000; exec "$@"', "-", PROGRAM, "inspect", path, "--json", twin]
        done = subprocess.run(limited, capture_output=True, text=True, errors="replace", timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        for name in ["a", "b", "c", "d"]:
            self.assertRegex(done.stdout, rf"(?m)^  {name} +\(.*'{name}' .*\)$")
        self.assertRegex(done.stdout, r"(?m)^  huge +\[1, 32768, 32768\] f32 +$")
        self.assertRegex(done.stdout, r"(?m)^  x +\[2, 3\] f64 +1 +2 +3 +holds NaN, inf, -inf$")
        entries = {entry["path"]: entry for entry in json.loads(twin.read_text())["datasets"]}
        self.assertIn("refusal", entries["a"])
        self.assertEqual([entries["x"]["summary"][key] for key in ["not_a_number", "infinite", "minus_infinite"]], [1, 1, 2])
        self.assertIn("n\ufffd/z", entries)

    def test_files_of_others_can_be_inspected(self):
        path = self.scratch / "others.h5"
        with h5py.File(path, "w") as file:
            file["vector"] = np.arange(5.0)
            file["scalar"] = 3
            file["deep/er/text"] = "words"
            file["four"] = np.zeros((2, 3, 4, 5), np.float32)
            file["nan"] = np.array([[np.nan, 1.0], [2.0, np.inf]])
            file["nothing"] = np.zeros((0, 3))
            file.attrs["an array"] = np.arange(3)
        page = self.succeeds("inspect", path).stdout
        for name in ["vector", "scalar", "deep/er/text", "four", "nothing"]:
            self.assertIn(name, page)
        self.assertRegex(page, r"nan .*holds NaN")


class Examples(ProgramTest):
    """Every example of every --help runs, over small files of those names."""

    def stand_ins(self, folder):
        random = np.random.default_rng(SEED)
        write(folder / "qkv.h5", "f32", **random_tensors(random, 64, 64, 4, 4, 16, 16, dout=True))
        with h5py.File(folder / "qkv.h5") as plain, h5py.File(folder / "layers.h5", "w") as file:
            for name in "qkv":
                file[f"layer0/{name}"] = np.swapaxes(plain[name][()], 0, 1)[None]
        text = "a rose is a rose is a rose, and so on and so on\n" * 8
        (folder / "book.txt").write_text(text)
        (folder / "chapters").mkdir()
        for name in ["one.txt", "two.txt"]:
            (folder / "chapters" / name).write_text(text + name)
        (folder / "genome.fa.gz").write_bytes(gzip.compress(b">one\n" + b"ACGTTGCA" * 9 + b"\n>two\nTTGACA\n"))
        (folder / "results").mkdir()
        for kind in ["strong", "weak"]:
            self.succeeds("bench", kind, "--tokens", 64, "--channels", 16, "--threads", 1, "--repeats", 1, "--json", folder / f"{kind}.json")
        self.succeeds("run", folder / "book.txt", "--output", folder / "results" / "demo.h5", cwd=folder)
        tiny_transformers.make("qwen3", folder / "models" / "Qwen3-0.6B")
        with wave.open(str(folder / "talk.flac"), "wb") as sound:  # what it holds counts, not its name
            sound.setparams((1, 2, 16000, 0, "NONE", ""))
            seconds = np.arange(4 * 16000) / 16000
            sound.writeframes((8000 * np.sin(2 * np.pi * 300 * seconds * (1 + seconds % 2))).astype("<i2").tobytes())

    def test_every_example_runs(self):
        folder = self.scratch
        self.stand_ins(folder)
        pages = {command: self.succeeds(command, "--help").stdout for command in
                 ["run", "attend", "plan", "verify", *(["report"] if shutil.which("gnuplot") else []), "inspect", "info"]}
        trained = "oneDNN" in self.succeeds("info").stdout
        recordings = "libsndfile" in self.succeeds("info").stdout
        env = {**environment(), "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
               "PATH": f"{pathlib.Path(PROGRAM).parent}{os.pathsep}{os.environ['PATH']}"}
        for command, page in pages.items():
            for example in page.split("Examples:\n")[1].split("\n\n")[0].splitlines():
                with self.subTest(example=example.strip()):
                    if "mpirun" in example:
                        self.needs_mpirun()
                    if ".flac" in example and not recordings:
                        self.skipTest("this build has no recordings")
                    if "--model models" in example and not trained:
                        self.skipTest("this build has no trained models")
                    if command in ("run", "attend"):
                        for output in re.findall(r"--output (\S+)", example):
                            (folder / output).unlink(missing_ok=True)
                    done = subprocess.run(["bash", "-c", example], cwd=folder, env=env, capture_output=True, text=True,
                                          stdin=subprocess.DEVNULL, timeout=60)
                    self.assertEqual(done.returncode, 0, f"{example}\n{done.stdout}\n{done.stderr}")
                    for twin in re.findall(r"--json (\S+)", example):
                        json.loads((folder / twin).read_text())
                    self.assertIn(command, shlex.split(example))


if __name__ == "__main__":
    unittest.main()
