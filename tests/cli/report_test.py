"""annulus report: one page with pictures, from results and benchmarks."""
import json
import os
import re
import shutil
import subprocess
import unittest

from program import MPIRUN, PROGRAM, needs

needs("h5py", "numpy")
import h5py  # noqa: E402
import numpy  # noqa: E402

from pages import PageTest, Reader  # noqa: E402


def replace(file, name, value):
    del file[name]
    file[name] = value


@unittest.skipIf(shutil.which("gnuplot") is None, "gnuplot is not here")
class ReportTest(PageTest):
    def tensors(self, name, queries, keys, heads, kv_heads, channels=8, **attend):
        path, out = self.scratch / f"{name}.h5", self.scratch / f"{name}-out.h5"
        random = numpy.random.default_rng(7)
        with h5py.File(path, "w") as file:
            file["q"] = random.standard_normal((queries, heads, channels), dtype="f4")
            for kind in "kv":
                file[kind] = random.standard_normal((keys, kv_heads, channels), dtype="f4")
        options = [part for option, value in attend.items() for part in (f"--{option}", value)]
        self.succeeds("attend", path, "--output", out, "--overwrite", *options)
        return out

    def test_a_text_shows_passages_statistics_and_where_each_token_looks(self):
        folder, figures = self.scratch / "a 'room' <b>", self.scratch / "figures of" / "it"
        folder.mkdir()
        words = numpy.random.default_rng(3).choice([f"w{i}" for i in range(60)], 900)
        (folder / "one & only.txt").write_text(" ".join([*words, *words[100:200]]))
        result = folder / "text.h5"
        self.succeeds("run", folder / "one & only.txt", "--output", result)
        read, text = self.page(result, "--heads", "1,3", "--figures", figures)
        self.assertIn("one & only.txt, bytes", "".join(read.text))
        self.assertNotIn("room' <b>", text)
        self.assertEqual({path.name for path in figures.iterdir()},
                         {f"{name}.{kind}" for kind in ("svg", "png") for name in
                          ("predictions", "entropy", "max_probability", "mean_distance", "sink_mass", "distances", "maps")})
        self.assertEqual(read.images, 7)
        for path in figures.glob("*.png"):
            self.assertTrue(path.read_bytes().startswith(b"\x89PNG"))
        self.assertIn("head 3", (figures / "entropy.svg").read_text())
        self.assertNotIn("head 0", (figures / "entropy.svg").read_text())
        with h5py.File(result) as file:
            traces = file["layers/000/attention"]
            for head in range(4):
                row = [f"{traces[name][:, head].mean(dtype='f8'):.4g}" for name in ("entropy", "max_probability")]
                self.assertRegex(text, rf">{head}</td><td class=\"n\">{re.escape(row[0])}</td>.*>{re.escape(row[1])}<")
            most = traces["received_mass"][:, 1].argmax()
            spelled = [word.decode() for word in file["tokens/vocabulary"]]
            self.assertIn(f"{traces['received_mass'][most, 1]:.4g} \u201c{spelled[file['tokens/ids'][most]]}\u201d at {most:,}<", text)
            (data,) = read.data
            self.assertEqual(data["heads"], [1, 3])
            self.assertEqual(data["words"], [spelled[i] for i in file["tokens/ids"][data["first"]:data["first"] + 400]])
            self.assertLess(data["first"], 901)
            for i in (0, 57, len(data["words"]) - 1):
                keys, shares = traces["topk_index"][data["first"] + i, 3], traces["topk_probability"][data["first"] + i, 3]
                expected = [[int(key), float(share)] for key, share in zip(keys[:5], shares[:5]) if share > 6e-4]
                for (key, share), (true_key, true_share) in zip(data["looks"][i][1], expected, strict=True):
                    self.assertEqual(key, true_key)
                    self.assertAlmostEqual(share, true_share, delta=6e-5)
                    self.assertEqual(data["around"][str(key)][1], spelled[file["tokens/ids"][key]])
        self.assertEqual(self.page(result, "--at", 5)[0].data[0]["first"], 5)
        self.refused("text.h5, 0 to 999: it is 1000", result, "--at", 1000)
        self.refused("--heads must name heads of the result, 0 to 3: it names 4", result, "--heads", "0-4")

    def test_texts_that_look_like_markup_stay_texts(self):
        path, result = self.scratch / "markup.txt", self.scratch / "markup.h5"
        path.write_bytes(b"</script><script>alert(1)</script>`date` 'x' " * 20)
        self.succeeds("run", path, "--output", result, "--tokens", "bytes", "--passage-tokens", 4)
        read, text = self.page(result)
        self.assertNotIn("<script>alert", text)
        self.assertIn("<", read.data[0]["words"])

    def test_tensors_of_every_shape_have_a_page(self):
        cases = [("plain", 300, 300, 3, 3, {}, 0), ("summary", 40, 40, 2, 1, {"trace": "summary"}, 4),
                 ("cross", 30, 70, 12, 4, {"trace": "full", "mask": "causal"}, 6), ("hidden", 50, 20, 2, 2, {"trace": "full", "mask": "causal"}, 6),
                 ("one", 1, 1, 1, 1, {"trace": "full"}, 6), ("none", 0, 5, 2, 2, {"trace": "full"}, 0)]
        for name, queries, keys, heads, kv_heads, options, images in cases:
            with self.subTest(case=name):
                read, text = self.page(self.tensors(name, queries, keys, heads, kv_heads, **options))
                self.assertEqual(read.images, images)
                self.assertEqual("no attention traces" in "".join(read.text), name == "plain")
                self.assertNotIn("NaN", text)

    def test_traces_without_a_number_are_empty_frames(self):
        result = self.tensors("blank", 20, 20, 2, 2, trace="full")
        with h5py.File(result, "r+") as file:
            file["trace/entropy"][...] = numpy.nan
            file["trace/max_probability"][:, 1] = numpy.inf
            file["trace/block_mass"][...] = 0
        read, _ = self.page(result)
        self.assertEqual(read.images, 6)

    def test_distances_are_those_of_queries_from_everywhere(self):
        words = numpy.random.default_rng(5).choice([f"w{i}" for i in range(500)], 3000)
        path, result = self.scratch / "twice.txt", self.scratch / "twice.h5"
        path.write_text(" ".join([*words, *words]))
        self.succeeds("run", path, "--output", result, "--overwrite")
        self.drawn(result)
        with h5py.File(result) as file:
            keys = file["layers/000/attention/topk_index"][:, 3].astype(float)
            shares = file["layers/000/attention/topk_probability"][:, 3].astype(float)
        keys[keys == 2**32 - 1] = numpy.nan
        distance = numpy.floor(numpy.log2(numpy.arange(6000)[:, None] - keys + 1))
        for x, y in self.points("distances", "head 3"):
            self.assertAlmostEqual(y, numpy.where(distance == x, shares, 0).sum() / 6000, delta=0.02, msg=f"class {x}")

    def test_queries_that_see_nothing_are_left_out(self):
        result = self.tensors("blind", 90, 30, 2, 1, trace="full", mask="causal")
        read = self.drawn(result)
        self.assertIn("of 180 queries of all heads 120 see none", "".join(read.text))
        with h5py.File(result) as file:
            seen = numpy.isfinite(file["trace/lse"][:, 0])
            self.assertIn(f"{file['trace/entropy'][seen, 0].mean(dtype='f8'):.4g}", read.text)
        places = self.points("entropy", "head 0")
        self.assertTrue(numpy.isnan(places[:60, 1]).all() and numpy.isfinite(places[60:, 1]).all())

    def test_maps_of_one_row_are_drawn(self):
        self.page(self.tensors("decoding", 1, 500, 2, 2, trace="full"), "--figures", self.scratch / "row")
        self.assertEqual((self.scratch / "row" / "maps.svg").read_text().count("<image "), 2)

    def test_scaling_begins_with_the_fewest_ranks_whatever_the_strategy(self):
        table = self.scratch / "ulysses.json"
        self.succeeds("bench", "strong", "--ranks", 4, "--threads", 1, "--tokens", 64, "--channels", 8, "--repeats", 1, "--strategy", "ulysses",
                      "--json", table)
        self.drawn(table)
        said = (self.scratch / "script").read_text()
        block = said[said.index("$p0c0 << END_OF_DATA"):].split("END_OF_DATA")[1]
        drawn = [float(line.split()[1]) for line in block.split("\n") if line]
        for value, row in zip(drawn, json.loads(table.read_text())["results"], strict=True):
            self.assertAlmostEqual(value, row["speed_up"], delta=1e-4 * value)

    def test_every_benchmark_has_figures_and_all_its_rows(self):
        small = ["--tokens", "64,128", "--channels", 16, "--threads", 1, "--repeats", 2]
        hardware = os.path.join(os.path.dirname(__file__), "../../configs/hardware/cpu-100gbe.ini")
        files = []
        for kind, more in [("kernel", [*small, "--dtype", "f32"]), ("blocks", small), ("strategies", [*small, "--ranks", 2, "--hardware", hardware]),
                           ("strong", [*small, "--ranks", 4, "--hardware", hardware]), ("weak", [*small, "--ranks", 2]),
                           ("exchange", ["--ranks", 2, "--repeats", 2]), ("overlap", [*small, "--ranks", 2])]:
            files.append(self.scratch / f"{kind}.json")
            self.succeeds("bench", kind, *more, "--json", files[-1])
        read, _ = self.page(*files, "--figures", self.scratch / "bench")
        drawn = {path.stem for path in (self.scratch / "bench").glob("*.svg")}
        self.assertEqual(drawn, {"kernel", "blocks", "strategies", "strategies-2", "speedup", "efficiency", "speedup-2", "efficiency-2",
                                 "prediction", "prediction-2", "exchange", "overlap"})
        self.assertEqual(read.images, len(drawn))
        said = "|".join(read.text)
        for path in files:
            document = json.loads(path.read_text())
            self.assertIn(f"annulus bench {document['benchmark']}", said)
            for row in document["results"]:
                if "median_ms" in row and row["median_ms"] < 1e4:
                    self.assertIn(f"|{row['median_ms']:.4g}|", said)

    def test_plans_show_how_many_ranks_and_which_strategy(self):
        hardware = os.path.join(os.path.dirname(__file__), "../../configs/hardware/h200-ib.ini")
        many, one = self.scratch / "many.json", self.scratch / "one.json"
        self.succeeds("plan", "--tokens", "64Ki", "--ranks", "8,16,64", "--hardware", hardware, "--json", many)
        self.succeeds("plan", "--tokens", "64Ki", "--ranks", "8", "--hardware", hardware, "--json", one)
        read, _ = self.page(many, one, "--figures", self.scratch / "plans")
        self.assertEqual({path.stem for path in (self.scratch / "plans").iterdir()}, {"ranks", "strategies", "work"})
        said = "|".join(read.text)
        self.assertIn(json.loads(many.read_text())["answer"]["sentence"], said)
        for strategy in json.loads(one.read_text())["strategies"]:
            self.assertIn(f"|{strategy['name']}|", said)

    def test_bad_input_is_one_sentence_and_no_page(self):
        other, cut, list_of = self.scratch / "other.json", self.scratch / "cut.h5", self.scratch / "list.json"
        other.write_text('{"results": [1]}')
        list_of.write_text("[1, 2]")
        cut.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20))
        self.refused("no-such.h5", self.scratch / "no-such.h5", code=5)
        self.refused("no-such.json", self.scratch / "no-such.json", code=5)
        self.refused("other.json must be what bench or plan --json writes", other, code=5)
        self.refused("list.json must be a result", list_of, code=5)
        self.refused("cut.h5", cut, code=5)
        wrong = self.scratch / "wrong.json"
        for content in ['{"strategies": [{"legal": "yes"}]}', '{"benchmark": "strong", "results": [{"tokens": "x"}], "verdict": 3, "environment": [1]}',
                        '{"benchmark": "overlap", "results": [{}]}', '{"benchmark": "weak", "results": [{"ranks": 0, "tokens": 1e300}]}']:
            wrong.write_text(content)
            done = subprocess.run([PROGRAM, "report", wrong, "--output", self.scratch / "wrong.html", "--overwrite"], capture_output=True,
                                  text=True, check=False)
            self.assertIn(done.returncode, (0, 5), content + done.stderr)
        deep = self.scratch / "deep.json"
        deep.write_text('{"benchmark": "x", "results": [], "command": ' + "[" * 50000 + "]" * 50000 + "}")
        self.refused("deep.json must be a result", deep, code=5)
        self.refused("it is a directory", self.scratch, code=5)
        pipe = self.scratch / "pipe.json"
        os.mkfifo(pipe)
        self.refused("it is no regular file", pipe, code=5)
        for name, change, words in [("scalar", lambda file: replace(file, "trace/topk_index", 3), "[token, head, k]"),
                                    ("endless", lambda file: file["trace/block_mass"].attrs.__setitem__("block_tokens", numpy.inf), "block_tokens")]:
            hostile = self.tensors(name, 8, 8, 2, 2, trace="full")
            with h5py.File(hostile, "r+") as file:
                change(file)
            self.refused(words, hostile, code=5)
        figures = self.scratch / "mine"
        figures.mkdir()
        (figures / "overlap.png").write_text('{"benchmark": "overlap", "results": [{"tokens": 64, "median_ms": 1}]}')
        self.refused("must not replace an input", figures / "overlap.png", "--figures", figures, "--overwrite", code=2)
        unlike = self.tensors("unlike", 8, 8, 2, 2, trace="summary")
        with h5py.File(unlike, "r+") as file:
            del file["trace/sink_mass"]
            file["trace/sink_mass"] = numpy.zeros((9, 1), "f4")
        self.refused("traces must be of the same tokens and heads", unlike, code=5)
        self.refused("FILE", code=2)
        good = self.tensors("good", 8, 8, 1, 1)
        self.refused("cannot be written", good, code=5, output="no/folder/page.html")
        empty = self.scratch / "no programs"
        empty.mkdir()
        self.refused("gnuplot draws the figures of reports and cannot be started", good, code=1, environment={**os.environ, "PATH": str(empty)})
        page = self.scratch / "kept.html"
        page.write_text("mine")
        done = subprocess.run([PROGRAM, "report", good, "--output", page], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, page.read_text()), (5, "mine"))
        self.assertIn("--overwrite", done.stderr)
        done = subprocess.run([PROGRAM, "report", good, "--output", good, "--overwrite"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2, done.stderr)

    def test_a_page_is_named_after_the_first_file(self):
        result = self.tensors("named", 8, 8, 1, 1)
        self.assertIn("named-out.html", self.succeeds("report", result).stdout)
        Reader((self.scratch / "named-out.html").read_text())
        done = subprocess.run([PROGRAM, "report", result], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 5)
        self.assertIn("--overwrite", done.stderr)

    def test_several_processes_write_one_page(self):
        if not MPIRUN:
            self.skipTest("no mpirun")
        self.assertEqual(self.page(self.tensors("several", 16, 16, 1, 1, trace="summary"), ranks=2)[0].images, 4)


if __name__ == "__main__":
    unittest.main()
