"""Outputs and sizes that cannot work, and ranks that are killed, leave nothing behind; sizes that are merely odd work."""
import os
import pathlib
import select
import shutil
import signal
import subprocess
import time
import unittest

from program import MPIRUN, needs, patience, start

needs("numpy", "h5py")

import h5py
import numpy as np

from refusals import Refused


class BadOutputs(Refused):
    def test_an_existing_file_is_kept(self):
        self.output.write_text("precious")
        self.attend(5, "out.h5", "--overwrite", input=self.tensors(), ranks=self.processes())
        self.assertEqual(self.output.read_text(), "precious")
        self.succeeds("attend", self.tensors(), "--output", self.output, "--overwrite")
        with h5py.File(self.output, "r") as file:
            self.assertEqual(file.attrs["status"], "complete")

    def test_a_failed_overwrite_keeps_what_was_there(self):
        self.output.write_text("precious")
        values = np.full((12, 2, 8), np.nan)
        self.attend(5, "NaN", input=self.tensors(v=values), options=["--overwrite"], ranks=self.processes())
        self.assertEqual(self.output.read_text(), "precious")

    def test_an_input_is_never_replaced(self):
        path, words = self.tensors(), self.room / "words.txt"
        words.write_text("some words\n")
        self.one_sentence(2, "--output", "input", command=["attend", path, "--output", path, "--overwrite"], ranks=self.processes())
        self.one_sentence(2, "--output", "input", command=["run", words, "--output", words, "--overwrite"], ranks=self.processes())
        self.assertEqual(words.read_text(), "some words\n")
        self.succeeds("attend", path, "--output", self.output)
        profile = self.room / "profile.ini"
        profile.write_text("name = here\n")
        config = self.room / "few.ini"
        config.write_text("tokens = 64\n")
        before = {p: p.read_bytes() for p in self.room.iterdir()}
        for target, command in [(path, ["inspect", path]), (path, ["plan", path]), (self.output, ["verify", self.output]),
                                (path, ["verify", self.output]), (profile, ["plan", "--hardware", profile]),
                                (config, ["bench", "blocks", "--config", config])]:
            self.one_sentence(2, "--json", "input", command=[*command, "--json", target])
        for command in [["attend", path, "--output", self.output, "--overwrite", "--timeline", self.output],
                        ["plan", "--json", self.output, "--timeline", self.output],
                        ["bench", "blocks", "--json", self.output, "--csv", self.output]]:
            self.one_sentence(2, "must not be the file of", command=command)
        self.assertEqual({p: p.read_bytes() for p in self.room.iterdir()}, before)

    def test_what_is_no_file_is_never_replaced(self):
        path, pipe, device = self.tensors(), self.room / "pipe", self.room / "device"
        os.mkfifo(pipe)
        device.symlink_to("/dev/null")
        for self.output in [pipe, device]:
            self.attend(5, "not a regular file", input=path, options=["--overwrite"], ranks=self.processes())
        self.assertTrue(pipe.is_fifo() and device.is_char_device())
        self.output = "-"
        self.attend(2, "--output", "must name a file", input=path, cwd=self.room)
        self.one_sentence(2, "--json", "must name a file", command=["inspect", path, "--json", "-"], cwd=self.room)

    def test_a_timeline_that_cannot_be_written_is_known_before_anything_is_computed(self):
        nowhere = self.room / "no" / "timeline.json"
        self.attend(5, "--timeline", str(nowhere), input=self.tensors(), options=["--timeline", nowhere], ranks=self.processes())

    def test_directories_that_are_missing_or_in_the_way(self):
        path = self.tensors()
        self.output = self.room / "no" / "such" / "out.h5"
        self.attend(5, str(self.output.parent), input=path, ranks=self.processes())
        self.output = self.room / "directory"
        self.output.mkdir()
        self.attend(5, "directory", input=path, options=["--overwrite"], ranks=self.processes())
        text = self.room / "words.txt"
        text.write_text("some words\n")
        self.one_sentence(5, "such", command=["run", text, "--output", self.room / "no" / "such" / "out.h5"])

    def test_directories_that_cannot_be_written(self):
        path = self.tensors()
        self.output = pathlib.Path("/proc/out.h5")
        self.attend(5, "/proc", input=path, ranks=self.processes())
        if os.geteuid() == 0:
            return  # nothing is forbidden to root
        locked = self.room / "locked"
        locked.mkdir(mode=0o500)
        self.output = locked / "out.h5"
        self.attend(5, "locked", input=path, ranks=self.processes())

    def test_twins_that_cannot_be_written(self):
        nowhere = self.room / "no" / "such.json"
        self.one_sentence_on_stderr(5, "such.json", command=["plan", "--tokens", "64", "--json", nowhere])
        self.one_sentence_on_stderr(5, "such.json", command=["info", "--json", nowhere])
        self.one_sentence_on_stderr(5, "such.json", command=["inspect", self.tensors(), "--json", nowhere])
        for command in [["plan", "--tokens", "64"], ["info"], ["inspect", self.room / "in.h5"]]:
            self.one_sentence_on_stderr(5, "/dev/full", "space", command=[*command, "--json", "/dev/full"])

    def one_sentence_on_stderr(self, code, *words, command):
        done = self.refuses(code, *words, command=command)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_a_full_disk(self):
        disk = self.room / "disk"
        disk.mkdir()
        mounted = shutil.which("mount") and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True).returncode == 0
        if not mounted:
            self.skipTest("a small tmpfs cannot be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", disk])
        self.output = disk / "out.h5"
        path = self.tensors(queries=4000, keys=4000)
        self.attend(4, "disk", input=path, options=["--mask", "causal+window:9,0"], ranks=self.processes())
        words = self.room / "words.txt"
        words.write_text("many different words\n" * 2000)
        self.one_sentence(4, "disk", command=["run", words, "--output", self.output, "--mask", "causal+window:9,0"])
        words.write_text(" ".join(f"{i:03}" * 300 for i in range(300)))  # a vocabulary larger than the disk
        self.one_sentence(4, "disk", command=["run", words, "--output", self.output, "--trace", "summary"])


class Sizes(Refused):
    def attends(self, path, *options, ranks=0):
        self.succeeds("attend", path, "--output", self.output, "--overwrite", *options, ranks=ranks, seconds=10)
        return h5py.File(self.output, "r")

    def test_nothing_at_all_works(self):
        for queries, keys in [(0, 0), (0, 5), (5, 0)]:
            path = self.tensors(queries=queries, keys=keys)
            for count in [0, 1, 3] if MPIRUN else [0]:
                for options in [[], ["--ranks", 4]] if count == 0 else [[]]:
                    with self.subTest(queries=queries, keys=keys, ranks=count, options=options):
                        with self.attends(path, "--trace", "full", "--backward", *options, ranks=count) as file:
                            self.assertEqual(file["out"].shape, (queries, 4, 8))
                            self.assertEqual(file["dk"].shape, (keys, 2, 8))
                            self.assertTrue((file["out"][()] == 0).all())
                            self.assertTrue((file["lse"][()] == -np.inf).all())
                            self.assertEqual(file["trace/topk_index"].shape, (queries, 4, 8))

    def test_one_token_sees_itself(self):
        path = self.tensors(queries=1, keys=1)
        with h5py.File(path, "r") as file:
            v = file["v"][()]
        for count in [0, 1, 3] if MPIRUN else [0]:
            with self.attends(path, ranks=count) as file:
                np.testing.assert_array_equal(file["out"][()], np.repeat(v, 2, 1))

    def test_more_ranks_than_tokens_work(self):
        path = self.tensors(queries=3, keys=3)
        with self.attends(path, "--trace", "full", "--backward") as file:
            one = file["out"][()]
        for options, ranks in [(["--ranks", 8], 0), (["--ranks", 17], 0), ([], 4 if MPIRUN else 0)]:
            for partition in ["contiguous", "zigzag", "striped", "balanced"]:
                with self.subTest(options=options, ranks=ranks, partition=partition):
                    with self.attends(path, "--trace", "full", "--backward", "--partition", partition, *options, ranks=ranks) as file:
                        np.testing.assert_allclose(file["out"][()], one, atol=1e-6)

    def test_plans_of_absurd_sizes(self):
        for option in ["--tokens", "--keys", "--query-heads", "--channels", "--ranks", "--document-tokens"]:
            for value in ["1" + "0" * 30, "-1", "1e6", "0x10", "12abc", ""]:
                self.one_sentence(2, option, command=["plan", option, value])
        self.one_sentence(2, "--tokens", command=["plan", "--tokens", "1000000Ti"])
        self.one_sentence(2, "--ranks", command=["plan", "--ranks", "1000000"])
        for tokens in ["1Ti", "100000Ti"]:
            self.one_sentence(2, "2^31", command=["plan", "--tokens", tokens])

    def test_plans_that_are_large_end_soon(self):
        for arguments in [["--tokens", "1Gi", "--ranks", "8"], ["--tokens", "2Gi", "--mask", "full"], ["--tokens", "0"],
                          ["--tokens", "1", "--ranks", "64"], ["--tokens", "1M", "--query-heads", "1M"]]:
            done = self.succeeds("plan", *arguments, seconds=10)
            self.assertNotRegex(done.stdout, r"[ (]-\d", "sizes do not overflow")

    def test_documents_by_the_billion_are_refused(self):
        self.one_sentence(2, "--document-tokens", command=["plan", "--tokens", "1Ti", "--mask", "documents", "--document-tokens", "1"])

    def sparse(self, tokens):
        """A small file that says it has so many tokens: contiguous datasets of zeros that take no place on the disk."""
        path = self.room / "sparse.h5"
        with h5py.File(path, "w") as file:
            for name in "qkv":
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_layout(h5py.h5d.CONTIGUOUS)
                plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((tokens, 8, 64)), plist)
        return path

    def test_what_does_not_fit_is_refused_before_it_is_tried(self):
        path = self.sparse(2**27)  # 256 GiB per dataset
        if path.stat().st_blocks * 512 > 2**20:
            self.skipTest("this file system has no sparse files")
        self.attend(4, "fit", "free", input=path, options=["--mask", "window:8,0"], ranks=self.processes())
        self.attend(4, "fit", "free", input=path, options=["--mask", "window:8,0", "--ranks", "4"])

    def test_traces_that_do_not_fit_are_refused_before_they_are_tried(self):
        path = self.tensors(queries=9000, keys=9000, heads=512, kv_heads=1, channels=1)
        self.attend(4, "fit", input=path, options=["--mask", "window:1,0", "--trace", "standard", "--map-blocks", "4096"])


class Killed(Refused):
    def test_a_killed_rank_ends_the_job(self):
        self.needs_mpirun()
        # Long enough to be alive when it is killed: about 10^11 operations.
        path = self.tensors(queries=20000, keys=20000, heads=4, kv_heads=4, channels=64)
        process = start("attend", path, "--output", self.output, "--mask", "full", "--kernel", "reference", ranks=3)
        deadline = time.monotonic() + patience(20)
        while time.monotonic() < deadline and not list(self.room.glob("out.h5.partial-*")):
            self.assertIsNone(process.poll(), "it must not end before it is killed")
            os.sched_yield()
        children = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
        ranks = [int(pid) for of_thread in children for pid in of_thread.read_text().split()]
        self.assertEqual(len(ranks), 3, "three ranks run")
        ends = [os.pidfd_open(pid) for pid in ranks]
        os.kill(ranks[1], signal.SIGKILL)
        process.communicate(timeout=patience(10))
        for end in ends:
            self.assertTrue(select.select([end], [], [], patience(10))[0], "no rank lives on")
            os.close(end)
        self.assertNotEqual(process.returncode, 0)
        self.assertFalse(self.output.exists(), "nothing has the final name")


if __name__ == "__main__":
    unittest.main()
