"""run on documents: tokens, predictions and passages against an exact n-gram match written here."""
import pathlib
import random
import unicodedata
import unittest

from program import MPIRUN, ProgramTest, needs

needs("numpy", "h5py")

import h5py
import numpy as np

SEED = 4242
LICENCES = pathlib.Path("/usr/share/common-licenses")
CONTEXT = 8  # tokens of context of the sharpest head: what shorter stretches share is no link


def words(text):
    """(identity, first byte, byte behind) of each word: runs of letters and digits; an apostrophe inside belongs to them."""
    def kind(c):
        if c in "'\u2019":
            return "apostrophe"
        if "\u3040" <= c <= "\u30ff" or "\u3400" <= c <= "\u9fff":
            return "alone"
        return "word" if c.isalnum() or (ord(c) > 127 and unicodedata.category(c)[0] in "LMN") else "separator"

    found, word, begin, end, at, pending = [], "", 0, 0, 0, False

    def flush():
        nonlocal word, pending
        if word:
            found.append((word, begin, end))
        word, pending = "", False

    for c in text:
        size = len(c.encode())
        what = kind(c)
        if what == "apostrophe" and word and not pending:
            pending = True
        else:
            if what != "word":
                flush()
            if what == "alone":
                found.append((c, at, at + size))
            if what == "word":
                if not word:
                    begin = at
                word += ("'" if pending else "") + (c.lower() if c.isascii() else c)
                pending, end = False, at + size
        at += size
    flush()
    return found


def tokens_of(path, kind="words"):
    data = path.read_bytes()
    return words(data.decode()) if kind == "words" else [(bytes([b]), at, at + 1) for at, b in enumerate(data)]


class Matches:
    """Every maximal stretch of at least `least` tokens that occurs twice, as (first begin, first end, second begin, second
    end) in tokens of the whole sequence; each side within one document; those inside another one on both sides left out."""

    def __init__(self, documents, least, apart=False, context=CONTEXT):
        sequence = [token[0] for document in documents for token in document]
        owner = [number for number, document in enumerate(documents) for _ in document]
        places = {}
        stretches, self.most_earlier = {}, 1  # diagonal: [[begin, end] on the second side]
        for i in range(context - 1, len(sequence)):
            if owner[i] != owner[i - context + 1]:
                continue
            gram = tuple(sequence[i - context + 1:i + 1])
            earlier = [j for j in places.get(gram, []) if not apart or owner[j] == owner[i]]
            self.most_earlier = max(self.most_earlier, len(earlier))
            for j in earlier:
                runs = stretches.setdefault(i - j, [])
                if runs and runs[-1][1] == i and owner[i - 1] == owner[i] and owner[j - 1] == owner[j]:
                    runs[-1][1] = i + 1
                else:
                    runs.append([i - context + 1, i + 1])
            places.setdefault(gram, []).append(i)
        found = {(b - d, e - d, b, e) for d, runs in stretches.items() for b, e in runs if e - b >= least}
        inside = lambda a, b: a != b and b[0] <= a[0] and a[1] <= b[1] and b[2] <= a[2] and a[3] <= b[3]
        self.passages = {a for a in found if not any(inside(a, b) for b in found)}


def generated(directory):
    """Texts that quote one another, where the licences are not here."""
    source = random.Random(SEED)
    words_of = lambda count: [source.choice("abcdefgh") * source.randint(1, 6) for _ in range(count)]
    quote, paths = words_of(300), []
    for number in range(4):
        begin = 60 * number
        text = words_of(400) + quote[begin:begin + 150] + words_of(200) + quote[begin:begin + 40]
        path = directory / f"generated-{number}.txt"
        path.write_text("\n".join(" ".join(text[at:at + 11]) for at in range(0, len(text), 11)))
        paths.append(path)
    return paths


class RunTest(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        named = [LICENCES / name for name in ["BSD", "Artistic", "LGPL-3", "GPL-1", "GPL-2"]]
        whole = all(path.is_file() for path in named)
        cls.small, cls.large = (named[:3], named[3:]) if whole else (generated(cls.scratch)[:3], generated(cls.scratch))

    def result(self, *arguments, ranks=0, name="run.h5"):
        """All datasets of the result by name; attributes of the root under "attributes"."""
        output = self.scratch / name
        self.printed = self.succeeds("run", *arguments, "--output", output, "--overwrite", ranks=ranks, seconds=100).stdout
        found = {}
        with h5py.File(output, "r") as file:
            file.visititems(lambda name, it: found.__setitem__(name, it[()]) if isinstance(it, h5py.Dataset) else None)
            found["attributes"] = dict(file.attrs)
        return found

    def passages(self, result):
        columns = [result[f"passages/{name}"] for name in ["first_begin", "first_end", "second_begin", "second_end"]]
        return [tuple(int(x) for x in row) for row in zip(*columns)]

    def check_passages(self, result, documents, files, least, apart=False):
        expected = Matches(documents, least, apart)
        found = self.passages(result)
        self.assertEqual(len(set(found)), len(found), "every passage once")
        self.assertEqual(set(found) - expected.passages, set(), "every passage reported is a maximal match")
        self.assertEqual(expected.passages - set(found), set(), "every maximal match is reported")
        lengths = [end - begin for begin, end, _, _ in found]
        self.assertEqual(lengths, sorted(lengths, reverse=True), "longest first")
        flat = [(number, *token) for number, document in enumerate(documents) for token in document]
        texts = [path.read_bytes() for path in files]
        for (a, b, c, d), line in zip(found, result["passages/text"]):
            sides = [(flat[begin][0], flat[begin][2], flat[end - 1][3]) for begin, end in [(a, b), (c, d)]]
            said = " <-> ".join(f"{files[number].resolve()}, bytes {begin}-{end}" for number, begin, end in sides)
            kind = result["attributes"]["token_kind"]
            self.assertEqual(line.decode(), f"{said}, {b - a} {kind}")
            pieces = [texts[number][begin:end] for number, begin, end in sides]
            if kind == "bytes":
                self.assertEqual(pieces[0], pieces[1])
            else:
                self.assertEqual(*([word[0] for word in words(piece.decode())] for piece in pieces))
        return expected

    def check_predictions(self, result):
        ids, document = result["tokens/ids"], result["tokens/document"]
        follows = np.flatnonzero(document[:-1] == document[1:])
        right = result["predictions/ids"][follows] == ids[follows + 1][:, None]
        self.assertTrue(np.isnan(np.delete(result["predictions/bits"], follows, 0)).all(), "nothing follows, no bits")
        np.testing.assert_allclose(result["predictions/accuracy"][:-1], right.mean(0), atol=1e-9)
        bits = result["predictions/bits"][follows].mean(0, dtype=np.float64)
        np.testing.assert_allclose(result["predictions/bits_per_token"][:-1], bits, rtol=1e-6)
        counts = np.bincount(ids)
        self.assertAlmostEqual(result["predictions/accuracy"][-1], np.mean(ids[follows + 1] == counts.argmax()))
        self.assertAlmostEqual(result["predictions/bits_per_token"][-1], -np.log2(counts / counts.sum())[ids[follows + 1]].mean(), 6)

    def same_predictions(self, one, other):
        # q.k has an error of sqrt(128) 2^-24 = 7e-7, times the scale 64: 4e-5 of a probability, and of its bits.
        a, b = one["predictions/probability"], other["predictions/probability"]
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(one["predictions/bits"], other["predictions/bits"], rtol=1e-4, atol=1e-4)
        changed = one["predictions/ids"] != other["predictions/ids"]
        self.assertLessEqual(changed.mean(), 0.001, "only ties within rounding may fall differently")


class Words(RunTest):
    def test_tokens_are_words_with_their_places(self):
        path = self.scratch / "odd.txt"
        path.write_text("Don\u2019t stop \u2018here\u2019, it's NA\u00cfVE na\u00efve\u2014r\u00e9sum\u00e9s' "
                        "3.14 \u4e2d\u6587 'quoted' o''clock\n\u00a9 x_y \U0001f600 end", encoding="utf-8")
        result = self.result(path)
        expected = tokens_of(path)
        found = [(result["tokens/vocabulary"][i].decode(), int(b), int(e)) for i, b, e in
                 zip(result["tokens/ids"], result["tokens/byte_begin"], result["tokens/byte_end"])]
        same = [token for token in expected if token[0] != "\U0001f600"]  # a picture is a letter to the program: see text.hpp
        self.assertEqual([token for token in found if token[0] != "\U0001f600"], same)

    def test_passages_are_exactly_the_maximal_matches(self):
        documents = [tokens_of(path) for path in self.large]
        for least in [12, 20]:
            with self.subTest(files=[path.name for path in self.large], least=least):
                top_k = min(1024, max(8, Matches(documents, least).most_earlier))
                result = self.result(*self.large, "--passage-tokens", least, "--top-k", top_k, "--ranks", 2, "--dtype", "f32")
                expected = self.check_passages(result, documents, self.large, least)
                self.assertGreater(len(expected.passages), 3, "the texts quote one another")

    def test_any_number_of_ranks_says_the_same(self):
        documents = [tokens_of(path) for path in self.small]
        top_k = max(8, Matches(documents, 8).most_earlier)
        options = [*self.small, "--passage-tokens", 8, "--top-k", top_k]
        one = self.result(*options)
        self.check_passages(one, documents, self.small, 8)
        self.check_predictions(one)
        runs = [(["--ranks", 2], 0), (["--ranks", 4, "--strategy", "ulysses"], 0), (["--ranks", 3, "--partition", "striped"], 0)]
        runs += [([], 2), ([], 4)] if MPIRUN else []
        for more, ranks in runs:
            with self.subTest(options=more, processes=ranks):
                other = self.result(*options, *more, ranks=ranks)
                self.assertEqual(self.passages(other), self.passages(one))
                self.same_predictions(one, other)

    def test_documents_apart_find_only_themselves(self):
        documents = [tokens_of(path) for path in self.large]
        top_k = min(1024, max(8, Matches(documents, 9, True).most_earlier))
        result = self.result(*self.large, "--mask", "causal+documents", "--passage-tokens", 9, "--top-k", top_k, "--ranks", 2)
        self.check_passages(result, documents, self.large, 9, apart=True)

    def test_no_mask_lets_a_token_see_what_follows(self):
        text = self.scratch / "once.txt"
        text.write_text(" ".join(f"word{number}" for number in range(400)))  # nothing repeats, nothing can be known
        for asked in ["full", "window:50", "window:9,0+sink:4", "documents", "window:9,0+global:7"]:
            with self.subTest(mask=asked):
                taken = f"causal+{asked}"
                result = self.result(text, "--mask", asked)
                self.assertEqual(result["attributes"]["mask"], taken)
                self.assertIn(f"mask {taken} (asked for: {asked})", self.printed)
                self.assertEqual(self.passages(result), [])
                self.assertLess(result["predictions/accuracy"][:-1].max(), 0.1)
                self.succeeds("verify", self.scratch / "run.h5")
        for kept in ["window:50,0", "window:50,-5", "causal+documents"]:
            self.assertEqual(self.result(text, "--mask", kept)["attributes"]["mask"], kept)
        self.refuses(2, "prefix", command=["run", text, "--mask", "causal+prefix:20", "--output", self.scratch / "no.h5"])

    def test_a_summary_has_no_passages(self):
        result = self.result(*self.small, "--trace", "summary", "--ranks", 2)
        groups = {name.split("/")[0] for name in result}
        self.assertEqual(groups, {"attributes", "documents", "layers", "tokens", "token", "key", "head"})
        self.assertNotIn("passages", self.printed)
        self.assertIn("layers/000/attention/entropy", result)
        self.assertNotIn("layers/000/attention/topk_index", result)

    def test_16_bits_find_the_same_passages(self):
        documents = [tokens_of(path) for path in self.small]
        top_k = max(8, Matches(documents, 8).most_earlier)
        for dtype in ["bf16", "f16"]:
            with self.subTest(dtype=dtype):
                result = self.result(*self.small, "--dtype", dtype, "--passage-tokens", 8, "--top-k", top_k, "--ranks", 2)
                self.check_passages(result, documents, self.small, 8)

    def test_a_quotation_is_found_across_everything_that_separates_words(self):
        quote = "the quick brown fox doesn't jump over the lazy dog at night"
        first, second = self.scratch / "first.txt", self.scratch / "second.txt"
        first.write_text(f"before {quote} after")
        second.write_text("> > elsewhere: \u201cThe QUICK,\n# brown-fox DOESN\u2019T  jump\n"
                          " * over the \u2014 lazy dog at night\u201d!", encoding="utf-8")
        documents = [tokens_of(path) for path in [first, second]]
        result = self.result(first, second, "--passage-tokens", 12)
        self.assertEqual(self.passages(result), [(1, 13, 15, 27)])
        self.check_passages(result, documents, [first, second], 12)
        self.assertIn(f"{first.resolve()}, bytes 7-66", self.printed)


class Bytes(RunTest):
    def test_passages_of_bytes_are_exactly_the_maximal_matches(self):
        source = random.Random(SEED)
        first, second = self.scratch / "a.txt", self.scratch / "b.txt"
        text = "".join(source.choice("abcdefghijklmnopqrstuvwxyz \n") for _ in range(900))
        first.write_text(text + "\u00e4\u4e2d\u6587")
        second.write_text(text[100:350] + text[600:640] + "\u4e2d\u6587\u00e4" + text[333:400])
        documents = [tokens_of(path, "bytes") for path in [first, second]]
        result = self.result(first, second, "--tokens", "bytes", "--passage-tokens", 16, "--ranks", 3)
        expected = self.check_passages(result, documents, [first, second], 16)
        self.assertGreaterEqual(len(expected.passages), 3)
        self.check_offsets(result, [first, second])

    def check_offsets(self, result, files):
        sizes = [path.stat().st_size for path in files]
        np.testing.assert_array_equal(result["documents/offset"], np.cumsum([0, *sizes]))
        np.testing.assert_array_equal(result["tokens/byte_begin"], np.concatenate([np.arange(size) for size in sizes]))
        np.testing.assert_array_equal(result["tokens/byte_end"], result["tokens/byte_begin"] + 1)


class Odd(RunTest):
    def test_empty_files_are_documents_without_tokens(self):
        empty, text = self.scratch / "empty.txt", self.scratch / "text.txt"
        empty.touch()
        text.write_text("one two three\n")
        result = self.result(empty, text, "--ranks", 2)
        self.assertEqual(result["documents/offset"].tolist(), [0, 0, 3])
        for ranks in [1, 3]:
            result = self.result(empty, "--ranks", ranks)
            self.assertEqual(result["tokens/ids"].shape, (0,))
            self.assertEqual(result["layers/000/out"].shape[0], 0)
            self.assertEqual(result["attributes"]["status"], "complete")

    def test_files_that_are_no_text(self):
        cases = {"latin.txt": b"caf\xe9 au lait", "cut.txt": "caf\u00e9".encode()[:-1], "zeros.bin": bytes(range(256))}
        for name, data in cases.items():
            path = self.scratch / name
            path.write_bytes(data)
            for how in [{"ranks": 0}, {"ranks": 2}]:
                if how["ranks"]:
                    self.needs_mpirun()
                done = self.refuses(5, "UTF-8", name, command=["run", path, "--output", self.scratch / "bad.h5"], **how)
                self.assertEqual(done.stdout, "")
                self.assertFalse(list(self.scratch.glob("bad.h5*")))

    def test_files_that_are_not_there(self):
        output = self.scratch / "bad.h5"
        self.refuses(5, "nowhere.txt", command=["run", self.scratch / "nowhere.txt", "--output", output])
        self.refuses(5, "directory", command=["run", self.scratch, "--output", output])
        self.refuses(5, "/dev/null", command=["run", "/dev/null", "--output", output])
        self.refuses(2, "FILE", command=["run", "--output", output])
        self.refuses(2, "--output", command=["run", self.small[0]])
        self.assertFalse(list(self.scratch.glob("bad.h5*")))


if __name__ == "__main__":
    unittest.main()
