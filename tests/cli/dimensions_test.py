"""Every dimension of a result has a scale, which datasets share as netCDF wants it, so that xarray knows them by name."""
import importlib.util
import unittest
import wave

from program import needs

needs("numpy", "h5py")

import h5py
import numpy as np

from attending import SEED, AttendTest, case
from dimensions import datasets, is_bare, is_scale

XARRAY = all(importlib.util.find_spec(module) for module in ["xarray", "h5netcdf"])


class DimensionsTest(AttendTest):
    def result(self, name, *command):
        output = self.scratch / name
        self.succeeds(*command, "--output", output, "--overwrite")
        return output

    def attended(self, *options, name="out.h5", value_channels=6):
        path = self.scratch / "in.h5"
        case(np.random.default_rng(SEED + 40), path, "bf16", 19, 19, (4, 2), 8, value_channels, dout=True)
        return self.result(name, "attend", path, "--trace", "full", "--map-blocks", 5, *options)

    def text(self):
        for name, words in [("a.txt", "one two three four five six seven eight nine ten"), ("b.txt", "one two three ten")]:
            (self.scratch / name).write_text(words)
        return self.result("text.h5", "run", self.scratch / "a.txt", self.scratch / "b.txt")

    def genome(self):
        (self.scratch / "genome.fa").write_text(">one\n" + "ACGTTGCA" * 5 + "\n>two\nTTGACA\n")
        return self.result("genome.h5", "run", self.scratch / "genome.fa")

    def recording(self):
        with wave.open(str(self.scratch / "tone.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((8000 * np.sin(np.arange(64000) / 9)).astype("<i2").tobytes())
        return self.result("sound.h5", "run", self.scratch / "tone.wav")


class Scales(DimensionsTest):
    def each_dimension_has_one(self, path):
        """And those of one name that a dataset could share are the same."""
        with h5py.File(path) as file:
            for name in datasets(file):
                dataset = file[name]
                if is_scale(dataset):
                    self.assertEqual((dataset.ndim, dataset.dims[0].label), (1, name.rpartition("/")[2]))
                    continue
                for axis in dataset.dims:
                    self.assertEqual(len(axis), 1, name)
                    scale = axis[0].name
                    group = scale.rpartition("/")[0]
                    self.assertEqual(scale, f"{group}/{axis.label}", name)
                    self.assertEqual(axis[0].shape, (dataset.shape[list(dataset.dims).index(axis)],), name)
                    self.assertTrue(dataset.name.startswith(group + "/"), f"{name} sees {scale}")
                    nearest = dataset.parent.name.rstrip("/")
                    while nearest != group:  # no other of this name in between
                        self.assertFalse(is_scale_here(file, f"{nearest}/{axis.label}"), (name, scale, nearest))
                        nearest = nearest.rpartition("/")[0]

    def test_of_attend(self):
        for options in [(), ("--backward",), ("--backward", "--ranks", 3)]:
            path = self.attended(*options)
            with self.subTest(options=options):
                self.each_dimension_has_one(path)
                with h5py.File(path) as file:
                    names = lambda name: [axis[0].name for axis in file[name].dims]
                    self.assertEqual(names("out"), ["/token", "/head", "/value_channel"])
                    self.assertEqual(names("trace/received_mass"), ["/key", "/head"])
                    self.assertEqual(names("trace/block_mass"), ["/head", "/trace/query_block", "/trace/key_block"])
                    self.assertEqual(file["trace/query_block"][()].tolist(), [0, 4, 8, 12, 16])
                    for name in ["token", "key", "head", "value_channel", "trace/k"]:
                        self.assertTrue(is_bare(file[name]), name)
                        self.assertIsNone(file[name].id.get_offset(), "it takes no space")
                    if options:
                        self.assertEqual(names("dk"), ["/key", "/kv_head", "/channel"])
                        self.assertEqual(names("dv"), ["/key", "/kv_head", "/value_channel"])

    def test_of_run(self):
        for path, coordinates in [(self.text(), "document byte_begin"), (self.genome(), "document byte_begin"),
                                  (self.recording(), "time_s")]:
            with self.subTest(path=path.name):
                self.each_dimension_has_one(path)
                with h5py.File(path) as file:
                    self.assertTrue(is_bare(file["token"]))
                    for group in ["tokens", "layers/000", "layers/000/attention"]:
                        self.assertEqual(file[group].attrs["coordinates"], coordinates)
                        for name in coordinates.split():
                            self.assertEqual(file[group][name], file["tokens"][name])
                            self.assertEqual(file[group][name].dims[0][0].name, "/token")

    def test_of_a_cache_and_of_its_parts(self):
        path, cache = self.scratch / "in.h5", self.scratch / "cache.h5"
        case(np.random.default_rng(SEED + 41), path, "f32", 19, 19, (4, 2), 8, 6)
        for _ in range(2):
            self.result("out.h5", "attend", path, "--append", cache)
        for name in ["cache.h5", "cache.h5.rows/000.h5"]:
            with h5py.File(self.scratch / name) as file:
                self.assertEqual([axis[0].name for axis in file["k"].dims], ["/key", "/kv_head", "/channel"])
                self.assertEqual([axis[0].name for axis in file["v"].dims], ["/key", "/kv_head", "/value_channel"])

    def test_they_are_no_noise_to_inspect_and_verify(self):
        path = self.text()
        page = self.succeeds("inspect", path).stdout
        shown = [line.split()[0] for line in page.splitlines() if line.startswith("  ") and "[" in line]
        with h5py.File(path) as file:
            self.assertEqual({name for name in shown if name in file}, datasets(file))
        self.assertIn("(is /tokens/byte_begin)", page)
        left = next(line for line in self.succeeds("verify", path).stdout.splitlines() if "not checked:" in line)
        self.assertEqual(left.split(": ")[1], "documents, passages, predictions, tokens")
        self.assertNotIn("not checked", self.succeeds("verify", self.attended("--backward")).stdout)

    def test_files_without_them_are_read_as_before(self):
        path = self.attended("--backward")
        before = self.succeeds("verify", path).stdout
        with h5py.File(path, "a") as file:
            for name in datasets(file):
                if not is_scale(file[name]):
                    for axis in file[name].dims:
                        axis.detach_scale(axis[0])
            for name in ["token", "key", "head", "kv_head", "channel", "value_channel", "trace/k", "trace/query_block", "trace/key_block"]:
                del file[name]
        self.assertEqual(self.succeeds("verify", path).stdout, before)
        self.succeeds("inspect", path)


@unittest.skipUnless(XARRAY, "xarray and h5netcdf are not here")
class Xarray(DimensionsTest):
    def opens(self, path, group, coordinates, **dims):
        import xarray
        with xarray.open_dataset(path, engine="h5netcdf", group=group) as data:
            self.assertEqual(dict(data.sizes), dims, group)
            self.assertEqual(sorted(data.coords), coordinates, group)
            return data.load()

    def test_opens_results_of_attend(self):
        path = self.attended("--backward")
        root = self.opens(path, "/", [], token=19, key=19, head=4, kv_head=2, channel=8, value_channel=6)
        self.assertEqual(root.out.dims, ("token", "head", "value_channel"))
        trace = self.opens(path, "trace", ["key_block", "query_block"], token=19, key=19, head=4, k=8, query_block=5, key_block=5)
        self.assertEqual(trace.entropy.dims, ("token", "head"))
        self.assertEqual(trace.block_mass.sel(query_block=8).dims, ("head", "key_block"))
        with h5py.File(path) as file:
            np.testing.assert_array_equal(root.dk, file["dk"])
            np.testing.assert_array_equal(trace.topk_index, file["trace/topk_index"])

    def test_opens_results_of_run_with_where_the_tokens_stand(self):
        path = self.text()
        self.opens(path, "tokens", ["byte_begin", "document"], token=14, id=10)
        self.opens(path, "documents", [], document=2, boundary=3)
        self.opens(path, "predictions", ["byte_begin", "context", "document"], token=14, head=4, head_then_unigram=5)
        self.opens(path, "layers/000", ["byte_begin", "document"], token=14, channel=256)
        self.opens(path, "passages", [], passage=0)
        with h5py.File(self.recording()) as file:
            tokens = file["tokens/time_s"].shape[0]
        import xarray
        with xarray.open_dataset(self.scratch / "sound.h5", engine="h5netcdf", group="layers/000/attention") as data:
            self.assertEqual(data.entropy.swap_dims(token="time_s").sel(time_s=slice(1, 1.21)).shape, (5, 4))
            self.assertEqual(data.sizes["token"], tokens)


def is_scale_here(file, name):
    return name in file and isinstance(file[name], h5py.Dataset) and is_scale(file[name])


if __name__ == "__main__":
    unittest.main()
