"""run on FASTA: records, positions and passages against an exact k-mer match written here; compressed files; what is refused."""
import gzip
import random
import unittest

from program import MPIRUN, needs

needs("numpy", "h5py")

import h5py
import numpy as np

from run_test import Matches, RunTest

SEED = 20261129
CONTEXT = 16  # of the longest head of bases
LEAST = 32    # bases of a passage, unless asked for otherwise


def bases(source, count, letters="ACGT"):
    return "".join(source.choice(letters) for _ in range(count))


def related(source):
    """Records by name that share stretches: a whole one, ends with ends, one of 31 bases, which is too short, and some twice."""
    shared = [bases(source, length) for length in [400, 90, 33, 31, 60]]
    one = bases(source, 50) + shared[0] + bases(source, 70) + shared[1]
    two = shared[1] + bases(source, 80) + shared[2] + bases(source, 40) + shared[0][100:250] + bases(source, 30)
    three = bases(source, 20) + shared[2] + bases(source, 33) + shared[3] + "N" * 18 + shared[4]
    four = shared[3] + "N" * 18 + bases(source, 20) + shared[4] + bases(source, 25) + shared[4]
    return {"chr1": one, "chr2": two, "scaffold.3": three, "chrM": four}


class FastaTest(RunTest):
    def write(self, name, records, width=60, end="\n", last=True):
        lines = []
        for title, sequence in records.items():
            lines += [f">{title} a description > ACGT", *(sequence[at:at + width] for at in range(0, len(sequence), width))]
        text = end.join(lines) + (end if last else "")
        path = self.scratch / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        return path, self.places(text)

    def places(self, text):
        """(letter, first byte, byte behind) of each base of each record of a text whose lines begin as they should."""
        documents, at = [], 0
        for line in text.split("\n"):
            if line.startswith(">"):
                documents.append([])
            else:
                documents[-1:] = [[*documents[-1], *((c.upper(), at + n, at + n + 1) for n, c in enumerate(line) if c.strip())]] \
                    if documents else []
            at += len(line) + 1
        return documents

    def check_tokens(self, result, documents):
        flat = [token for document in documents for token in document]
        found = [(result["tokens/vocabulary"][i].decode(), int(b), int(e)) for i, b, e in
                 zip(result["tokens/ids"], result["tokens/byte_begin"], result["tokens/byte_end"])]
        self.assertEqual(found, flat)
        lengths = [len(document) for document in documents]
        self.assertEqual(result["documents/offset"].tolist(), np.cumsum([0, *lengths]).tolist())
        self.assertEqual(result["tokens/document"].tolist(), np.repeat(np.arange(len(lengths)), lengths).tolist())
        self.assertEqual(result["attributes"]["token_kind"], "bases")

    def expected(self, documents, least=LEAST, apart=False):
        flat = [token[0] for document in documents for token in document]
        found = Matches(documents, least, apart, CONTEXT).passages
        return {p for p in found if len(set(flat[p[0]:p[1]])) > 1}  # runs of one letter say nothing

    def check_found(self, result, documents, titles, least=LEAST, apart=False):
        passages, starts = self.passages(result), np.cumsum([0, *map(len, documents)])
        expected = self.expected(documents, least, apart)
        self.assertEqual(set(passages), expected)
        self.assertEqual(len(passages), len(expected))
        self.assertGreater(len(expected), 2)
        side = lambda begin, end: (lambda d: f"{titles[d]}, bases {begin - starts[d] + 1:,}-{end - starts[d]:,}")(
            np.searchsorted(starts, begin, "right") - 1)
        for (a, b, c, d), line in zip(passages, result["passages/text"]):
            self.assertEqual(line.decode(), f"{side(a, b)} <-> {side(c, d)}, {b - a:,} bases")


class Records(FastaTest):
    def test_repeats_are_found_where_they_stand_by_any_number_of_ranks(self):
        records = related(random.Random(SEED))
        path, documents = self.write("genome.fa", records)
        one = self.result(path)
        self.check_tokens(one, documents)
        self.check_found(one, documents, list(records))
        self.check_predictions(one)
        self.check_what_follows(one, documents)
        self.assertEqual([name.decode() for name in one["documents/name"]], list(records))
        self.assertEqual({name.decode() for name in one["documents/path"]}, {str(path.resolve())})
        self.assertEqual(one["predictions/context"].tolist(), [2, 4, 8, 16])
        self.assertEqual(list(one["attributes"]["inputs"]), [str(path.resolve())])
        self.assertIn("(bases) in 4 documents", self.printed)
        self.assertIn("of at least 32 tokens", self.printed)
        self.succeeds("verify", self.scratch / "run.h5")
        self.succeeds("inspect", self.scratch / "run.h5")
        runs = [(["--ranks", 2], 0), (["--ranks", 4, "--strategy", "ulysses"], 0)]
        runs += [([], 2), ([], 4)] if MPIRUN else []
        for more, ranks in runs:
            with self.subTest(options=more, processes=ranks):
                other = self.result(path, *more, ranks=ranks)
                self.assertEqual(self.passages(other), self.passages(one))
                self.same_predictions(one, other)

    def check_what_follows(self, result, documents):
        """Where 16 bases occurred once before, the longest head says what followed."""
        flat = [token[0] for document in documents for token in document]
        begins, earlier, sure = np.repeat(result["documents/offset"][:-1], list(map(len, documents))), {}, 0
        for i in range(len(flat)):
            if i + 1 - CONTEXT < begins[i]:
                continue
            places = earlier.setdefault("".join(flat[i + 1 - CONTEXT:i + 1]), [])
            if len(places) == 1:
                self.assertEqual(result["predictions/ids"][i, 3], result["tokens/ids"][places[0] + 1], i)
                if "N" not in flat[i + 1 - CONTEXT:i + 1]:  # runs are nearly alike wherever they are cut
                    self.assertGreater(result["predictions/probability"][i, 3], 0.9)
                sure += 1
            places.append(i)
        self.assertGreater(sure, 300)

    def test_several_files_are_named(self):
        records = related(random.Random(SEED + 1))
        names = list(records)
        first, some = self.write("a.fasta", {name: records[name] for name in names[:2]}, 71, last=False)
        second, others = self.write("b.FNA", {name: records[name] for name in names[2:]}, 1)
        result = self.result(first, second, first, "--ranks", 2)
        titles = [f"{path.resolve()}, {name}" for path, part in [(first, names[:2]), (second, names[2:])] for name in part]
        self.check_tokens(result, some + others)
        self.check_found(result, some + others, titles)
        self.assertEqual([path.decode() for path in result["documents/path"]],
                         [str(path.resolve()) for path in [first, first, second, second]])
        self.assertEqual(len(result["attributes"]["input_hashes"]), 2)
        self.succeeds("verify", self.scratch / "run.h5")

    def test_records_apart_find_only_themselves(self):
        source = random.Random(SEED + 2)
        records = related(source)
        records["own"] = (lambda part: part + bases(source, 30) + part + bases(source, 9) + part)(bases(source, 45))
        records["own2"] = records["own"]
        path, documents = self.write("apart.fa", records)
        result = self.result(path, "--mask", "documents", "--ranks", 3)
        self.assertEqual(result["attributes"]["mask"], "causal+documents")
        self.check_found(result, documents, list(records), apart=True)
        self.succeeds("verify", self.scratch / "run.h5")

    def test_proteins_and_16_bits(self):
        source = random.Random(SEED + 3)
        part = bases(source, 50, "ACDEFGHIKLMNPQRSTVWY")
        other = bases(source, 40, "ACDEFGHIKLMNPQRSTVWY")
        records = {"sp|P1": "M" + part + other + "*", "sp|P2": other + "XX" + part, "sp|P3": part[:25] + "-" + part[26:] + other}
        path, documents = self.write("proteins.faa", records)
        for dtype in ["f32", "bf16", "f16"]:
            with self.subTest(dtype=dtype):
                result = self.result(path, "--dtype", dtype, "--passage-tokens", 20)
                self.check_found(result, documents, list(records), least=20)

    def test_contexts_can_be_chosen(self):
        records = related(random.Random(SEED + 4))
        path, documents = self.write("contexts.fa", records)
        result = self.result(path, "--contexts", "1,12,20", "--ranks", 2)
        self.assertEqual(result["predictions/context"].tolist(), [1, 12, 20])
        self.assertEqual(result["attributes"]["contexts"].tolist(), [1, 12, 20])
        self.assertEqual(result["layers/000/out"].shape[1], 3 * 64)
        self.assertIn("3 heads x 160 channels", self.printed)
        self.check_found(result, documents, list(records))
        self.succeeds("verify", self.scratch / "run.h5")
        text = self.scratch / "words.txt"
        text.write_text("one two three four five six " * 4)
        result = self.result(text, "--contexts", 6)
        self.assertEqual(result["predictions/accuracy"].shape, (2,))
        self.succeeds("verify", self.scratch / "run.h5")
        for wrong, word in [("0,2", "1 to 64"), ("65", "65"), ("1-9", "9"), ("2,x", "x"), ("1-1000000000", "1 to 8")]:
            with self.subTest(contexts=wrong):
                self.refuses(2, "--contexts", word, command=["run", path, "--contexts", wrong, "--output", self.scratch / "no.h5"])

    def test_the_page_spells_sequences_without_gaps(self):
        path, documents = self.write("page.fa", related(random.Random(SEED + 5)))
        self.result(path)
        page = self.scratch / "page.html"
        self.succeeds("report", self.scratch / "run.h5", "--output", page, "--overwrite")
        text = page.read_text()
        self.assertTrue('"gap":""' in text)
        self.assertTrue("chr1, bases 151-300 " in text)
        begin = self.passages(self.result(path))[0][0]
        flat = "".join(token[0] for document in documents for token in document)
        self.assertTrue(flat[begin:begin + 40] + " ..." in text)


class Kinds(FastaTest):
    def test_names_choose_and_tokens_overrules(self):
        path, _ = self.write("tiny.fa", {"r": "ACGTACGT"})
        text = self.scratch / "tiny.txt"
        text.write_bytes(path.read_bytes())
        for name, options, kind in [(path, [], "bases"), (text, [], "words"), (text, ["--tokens", "bases"], "bases"),
                                    (path, ["--tokens", "words"], "words"), (path, ["--tokens", "bytes"], "bytes")]:
            with self.subTest(name=name.name, options=options):
                result = self.result(name, *options)
                self.assertEqual(result["attributes"]["token_kind"], kind)
                self.assertEqual("documents/name" in result, kind == "bases")
        self.refuses(2, "tiny.fa", "tiny.txt", "--tokens", command=["run", path, text, "--output", self.scratch / "no.h5"])
        self.assertEqual(self.result(path, text, "--tokens", "bases")["documents/offset"].tolist(), [0, 8, 16])

    def test_odd_files_are_read(self):
        cases = {"empty": ("", []), "headers": (">a\n>b", [0, 0]), "one": (">a\nc", [1]), "nameless": (">\nAC\n>\n", [2, 0]),
                 "lower": (">a\nacgt\nNNNN", [8]), "twins": (">a\nAC\n>a\nGT\n", [2, 2]), "crlf": (">a\r\nAC\r\nGT\r\n", [4])}
        for name, (text, lengths) in cases.items():
            for ranks in [1, 3]:
                with self.subTest(file=name, ranks=ranks):
                    path = self.scratch / f"{name}.fa"
                    path.write_bytes(text.encode())
                    result = self.result(path, "--ranks", ranks)
                    self.assertEqual(result["documents/offset"].tolist(), np.cumsum([0, *lengths]).tolist())
                    self.assertEqual(result["documents/name"].shape, (len(lengths),))
                    self.succeeds("verify", self.scratch / "run.h5")
                    self.succeeds("inspect", self.scratch / "run.h5")

    def test_runs_of_one_letter_are_no_passages(self):
        source = random.Random(SEED + 6)
        run = "N" * 90
        path, documents = self.write("unknown.fa", {"a": run + bases(source, 40) + run, "b": bases(source, 20) + run})
        self.assertEqual(self.passages(self.result(path)), [])

    def test_what_is_no_fasta_is_refused(self):
        cases = {"digits": (">a\nAC1GT\n", "'1' at byte 5"), "before": ("ACGT\n>a\n", "'A' before one, at byte 0"),
                 "reads": ("@read\nACGT\n+\nIIII\n", "'@' before one"), "zero": (">a\nAC\0", "\\x00 at byte 5"),
                 "accent": (">a\nAC\u00e9", "\\xc3 at byte 5")}
        for name, (text, words) in cases.items():
            for ranks in [0, *([2] if MPIRUN else [])]:
                with self.subTest(file=name, ranks=ranks):
                    path = self.scratch / f"{name}.fa"
                    path.write_bytes(text.encode())
                    self.refuses(5, f"{name}.fa", words, command=["run", path, "--output", self.scratch / "bad.h5"], ranks=ranks)
                    self.assertFalse(list(self.scratch.glob("bad.h5*")))


class Packed(FastaTest):
    """Compressed by gzip, in one member or, as bgzip does it, in many."""

    def bgzip(self, data, block=1000):
        def member(part):
            whole = gzip.compress(part)
            size = len(whole) + 8 - 1  # with this field
            return whole[:3] + bytes([whole[3] | 4]) + whole[4:10] + b"\6\0BC\2\0" + size.to_bytes(2, "little") + whole[10:]
        return b"".join(member(data[at:at + block]) for at in range(0, len(data), block)) + member(b"")

    def same(self, one, other):
        self.assertEqual(set(one), set(other))
        for name in set(one) - {"attributes", "documents/path", "passages/text"}:
            with self.subTest(dataset=name):
                np.testing.assert_array_equal(one[name], other[name])

    def test_packed_files_give_what_plain_ones_give(self):
        plain, documents = self.write("plain.fa", related(random.Random(SEED + 7)))
        one = self.result(plain)
        self.check_found(one, documents, [name.decode() for name in one["documents/name"]])
        data = plain.read_bytes()
        for name, packed in [("one.fa.gz", gzip.compress(data)), ("many.fa.bgz", self.bgzip(data)), ("no-name.fa", self.bgzip(data))]:
            with self.subTest(file=name):
                path = self.scratch / name
                path.write_bytes(packed)
                other = self.result(path)
                self.same(one, other)
                self.assertEqual(list(other["passages/text"]), list(one["passages/text"]))
                self.assertEqual(self.passages(self.result(path, "--ranks", 2)), self.passages(one))
                self.succeeds("verify", self.scratch / "run.h5")

    def test_packed_texts_are_words(self):
        plain, packed = self.scratch / "plain.txt", self.scratch / "text.txt.gz"
        plain.write_text("to be or not to be, that is the question: " * 5)
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        self.same(self.result(plain), self.result(packed))
        self.succeeds("verify", self.scratch / "run.h5")

    def test_damaged_ones_are_refused(self):
        whole = gzip.compress(b">a\n" + b"ACGT" * 1000)
        cases = {"cut.fa.gz": (whole[:-9], "cut short"), "sum.fa.gz": (whole[:-8] + bytes(8), "damaged"),
                 "behind.fa.gz": (whole + b"and more", "damaged"), "start.fa.gz": (b"\x1f\x8b\x07" + bytes(20), "damaged"),
                 "end.fa.gz": (self.bgzip(b">a\nACGT\n")[:-36], "cut short"),
                 "inside.fa.gz": (gzip.compress(b">a\nAC9"), "packed in")}
        for name, (data, words) in cases.items():
            for ranks in [0, *([2] if MPIRUN else [])]:
                with self.subTest(file=name, ranks=ranks):
                    path = self.scratch / name
                    path.write_bytes(data)
                    self.refuses(5, name, words, command=["run", path, "--output", self.scratch / "bad.h5"], ranks=ranks)
                    self.assertFalse(list(self.scratch.glob("bad.h5*")))


if __name__ == "__main__":
    unittest.main()
