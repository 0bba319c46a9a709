"""`annulus run` over recordings that the tests make: a phrase that is played twice is found at its times, and bad sound
files end with one sentence."""
import os
import shutil
import struct
import subprocess
import tempfile
import unittest
import wave

try:
    import h5py
    import numpy
except ImportError:
    h5py = numpy = None

from program import ProgramTest

PLACES = ["first_begin_s", "first_end_s", "second_begin_s", "second_end_s"]
GRANTED_SECONDS = 0.2  # two tokens of 50 ms, and as much again for the sound that the shortest window sees beside a phrase
PHRASE = [5.0, 7.6, 19.97, 22.57]  # of planted()


def melody(random, seconds, rate):
    """Tones of random pitch and length with two overtones, and pauses: what a whistled message might be."""
    parts, left = [], int(seconds * rate)
    while left > 0:
        pitch, length = 150 * 2 ** (4 * random.random()), 0.08 + 0.2 * random.random()
        time_s = numpy.arange(int(rate * length)) / rate
        angle = 2 * numpy.pi * pitch * time_s
        form = numpy.sin(angle) + 0.5 * numpy.sin(2.1 * angle) + 0.2 * numpy.sin(3.3 * angle)
        tone = 0.3 * numpy.sin(numpy.pi * time_s / length) * form
        pause = numpy.zeros(int(rate * 0.1) if random.random() < 0.15 else 0)
        parts += [tone[:left], pause[: max(0, left - len(tone))]]
        left -= len(tone) + len(pause)
    return numpy.concatenate(parts)


def planted(rate=16000, seed=1):
    """27 seconds of melody and noise in which one phrase is played at PHRASE, the second time half as loud."""
    random = numpy.random.default_rng(seed)
    phrase = melody(random, 2.6, rate)
    samples = numpy.concatenate([melody(random, 5, rate), phrase, melody(random, 12.37, rate), 0.5 * phrase,
                                 melody(random, 4, rate)])
    return samples + 0.002 * random.standard_normal(len(samples))


def sixteen_bits(samples):
    return numpy.round(numpy.clip(samples, -1, 1) * 32767).astype("<i2")


def write_wav(path, samples, rate=16000, channels=1):
    with wave.open(path, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(numpy.repeat(sixteen_bits(samples), channels).tobytes())
    return path


def checksum(data, bits, polynomial):
    """The CRCs of FLAC: most significant bit first, from zero."""
    table = []
    for byte in range(256):
        crc = byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1) ^ (polynomial if crc >> (bits - 1) else 0)
            crc &= (1 << bits) - 1
        table.append(crc)
    crc = 0
    for byte in data:
        crc = ((crc << 8) & ((1 << bits) - 1)) ^ table[(crc >> (bits - 8)) ^ byte]
    return crc


def write_flac(path, samples, rate=16000):
    """Mono, 16 bits, every frame verbatim: the simplest stream that RFC 9639 allows."""
    block, numbers = 4096, sixteen_bits(samples)
    info = struct.pack(">HH", block, block) + bytes(6) + ((rate << 44) | (15 << 36) | len(numbers)).to_bytes(8, "big")
    stream = b"fLaC" + bytes([0x80, 0, 0, 34]) + info + bytes(16)
    for number, begin in enumerate(range(0, len(numbers), block)):
        part = numbers[begin : begin + block]
        head = bytes([0xFF, 0xF8, 0x70, 0x08]) + chr(number).encode() + struct.pack(">H", len(part) - 1)
        head += bytes([checksum(head, 8, 0x07)])
        frame = head + bytes([0x02]) + part.astype(">i2").tobytes()
        stream += frame + struct.pack(">H", checksum(frame, 16, 0x8005))
    with open(path, "wb") as file:
        file.write(stream)
    return path


@unittest.skipIf(h5py is None, "this Python has no numpy and h5py")
class Recording(ProgramTest):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def at(self, name):
        return os.path.join(self.folder, name)

    def run_over(self, path, *options, **how):
        """The finished process, and the result's path."""
        result = self.at("result.h5")
        return self.succeeds("run", path, "--output", result, "--overwrite", *options, **how), result

    def expect_phrase(self, path, *options, expected=PHRASE, **how):
        """The phrase is the one passage; returns what every row and passage of the result says."""
        done, result = self.run_over(path, *options, **how)
        with h5py.File(result) as file:
            for name, seconds in zip(PLACES, expected):
                times = list(file["passages/" + name])
                self.assertEqual(len(times), 1, done.stdout)
                self.assertAlmostEqual(times[0], seconds, delta=GRANTED_SECONDS, msg=name)
            (line,) = file["passages/text"].asstr()
            self.assertIn(" <-> ", line)
            self.assertIn("occur twice, longest first: 1\n", done.stdout)
            self.assertIn(line.split("-")[0], done.stdout)
            return {name: file[name][()] for name in
                    ["layers/000/out", "layers/000/attention/lse", "frames/log_mel", "tokens/time_s",
                     *("passages/" + place for place in PLACES)]}

    def test_a_phrase_is_found_at_any_number_of_ranks(self):
        path = write_wav(self.at("a.wav"), planted(), 16000)
        alone = self.expect_phrase(path)
        numpy.testing.assert_allclose(alone["tokens/time_s"], 0.05 * numpy.arange(len(alone["tokens/time_s"])))
        for options, how in [(["--ranks", 2], {}), (["--ranks", 4], {}),
                             (["--ranks", 3, "--strategy", "ring", "--partition", "striped"], {}), ([], {"ranks": 2})]:
            with self.subTest(options=options, **how):
                if how:
                    self.needs_mpirun()
                shared = self.expect_phrase(path, *options, **how)
                for name, values in alone.items():
                    # log_mel: parts are the whole. The rest: the mean picture is summed in another order, which moves
                    # cosines by 1e-6, and probabilities by 60 times that.
                    tolerance = 0 if name not in ("layers/000/out", "layers/000/attention/lse") else 2e-4
                    numpy.testing.assert_allclose(shared[name], values, rtol=0, atol=tolerance, err_msg=name)

    def test_any_rate_and_channels_and_flac(self):
        for rate, channels in [(8000, 1), (22050, 2), (44100, 2), (192000, 1)]:
            with self.subTest(rate=rate, channels=channels):
                self.expect_phrase(write_wav(self.at("b.wav"), planted(rate), rate, channels), "--ranks", 2)
        with self.subTest("flac"):
            self.expect_phrase(write_flac(self.at("b.flac"), planted()), "--ranks", 2)

    def test_masks_and_types(self):
        path = write_wav(self.at("c.wav"), planted())
        for options in [["--mask", "full"], ["--mask", "causal"], ["--mask", "window:400,0"], ["--dtype", "bf16"]]:
            with self.subTest(options=options):
                self.expect_phrase(path, "--ranks", 2, *options)
                self.assertIn("verdict: ok", self.succeeds("verify", self.at("result.h5")).stdout)
        self.succeeds("run", os.path.basename(path), "--output", self.at("result.h5"), "--overwrite", cwd=self.folder)
        self.succeeds("verify", self.at("result.h5"))
        done, _ = self.run_over(path, "--mask", "window:100,0")
        self.assertIn("longest first: 0\n", done.stdout, "the phrase comes again 15 s later, and 5 s are seen")

    def test_speech_that_is_repeated_is_found(self):
        if shutil.which("espeak-ng") is None:
            self.skipTest("espeak-ng is not installed")
        sounds, rate = [], 0
        for text in ["Good morning everyone, it is a pleasure to see so many of you here today.",
                     "Please mind the gap between the train and the platform.",
                     "Some people prefer coffee, others would rather drink a cup of green tea with sugar.",
                     "Nobody knows exactly how far it is from here to the nearest lighthouse."]:
            subprocess.run(["espeak-ng", "-w", self.at("say.wav"), text], check=True, capture_output=True, timeout=20)
            with wave.open(self.at("say.wav")) as file:
                rate = file.getframerate()
                samples = numpy.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
            loud = numpy.flatnonzero(numpy.abs(samples) > 0.01)  # without the pauses, which are alike everywhere
            sounds.append(samples[loud[0] : loud[-1] + 1])
        before, phrase, between, after = sounds
        ends = numpy.cumsum([len(s) for s in [before, phrase, between, phrase]]) / rate
        path = write_wav(self.at("d.wav"), numpy.concatenate([before, phrase, between, 0.7 * phrase, after]), rate)
        self.expect_phrase(path, "--ranks", 2, expected=[*ends[:2], *ends[2:]])

    def test_what_holds_no_phrase_ends_well(self):
        noise = 0.1 * numpy.random.default_rng(2).standard_normal(160000)
        hum = 0.3 * numpy.sin(numpy.arange(160000) * 0.17)
        for name, samples in [("silence", numpy.zeros(160000)), ("noise", noise), ("hum", hum),
                              ("shorter than a window", noise[:1600]), ("shorter than a frame", noise[:100]),
                              ("nothing", noise[:0])]:
            for ranks in [1, 4]:
                with self.subTest(name, ranks=ranks):
                    done, result = self.run_over(write_wav(self.at("e.wav"), samples), "--ranks", ranks)
                    self.assertIn("longest first: 0\n", done.stdout)
                    with h5py.File(result) as file:
                        self.assertEqual(file["frames/log_mel"].shape, (len(samples) // 160, 80))
                        self.assertEqual(len(file["tokens/time_s"]), -(-(len(samples) // 160) // 5))
                        self.assertEqual(len(file["passages/text"]), 0)

    def test_bad_sound_files_are_refused_in_one_sentence(self):
        wav, flac = write_wav(self.at("f.wav"), planted()), write_flac(self.at("f.flac"), planted())
        with open(wav, "rb") as file:
            wav_bytes = file.read()
        with open(flac, "rb") as file:
            flac_bytes = file.read()
        for name, content in [("empty.wav", b""), ("empty.flac", b""), ("header.wav", wav_bytes[:30]),
                              ("garbage.ogg", numpy.random.default_rng(3).bytes(5000)), ("cut.flac", flac_bytes[:300000]),
                              ("text.wav", b"This is no sound.\n" * 20)]:
            with open(self.at(name), "wb") as file:
                file.write(content)
            with self.subTest(name):
                self.refuses(5, name, command=["run", self.at(name), "--ranks", 2, "--output", self.at("no.h5")])
                self.assertFalse(os.path.exists(self.at("no.h5")))
        self.refuses(5, "nowhere.flac", command=["run", self.at("nowhere.flac"), "--output", self.at("no.h5")])
        self.refuses(2, "2 files", command=["run", wav, flac, "--output", self.at("no.h5")])
        self.needs_mpirun()
        self.refuses(5, "cut.flac", command=["run", self.at("cut.flac"), "--output", self.at("no.h5")], ranks=2)

    def test_a_wav_file_that_was_cut_off_is_refused(self):
        path = write_wav(self.at("g.wav"), planted())
        whole = os.path.getsize(path)
        os.truncate(path, whole - 2)
        self.refuses(5, "g.wav", command=["run", path, "--ranks", 2, "--output", self.at("no.h5")])
        self.assertFalse(os.path.exists(self.at("no.h5")))

    def test_other_files_that_were_cut_off_or_never_finished_are_refused(self):
        samples = numpy.clip(planted() * 32767, -32768, 32767)
        big, little = samples.astype(">i2").tobytes(), samples.astype("<i2").tobytes()
        form = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
        guid = lambda name, rest: name + bytes.fromhex(rest)
        riff, other = "2e91cf11a5d628db04c10000", "f3acd3118cd100c04f8edb8a"
        au = b".snd" + struct.pack(">IIIII", 24, len(big), 3, 16000, 1) + big
        rf64 = (b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<IQQQI", 28, 72 + len(little), len(little), len(samples), 0) +
                b"fmt " + struct.pack("<I", 16) + form + b"data\xff\xff\xff\xff" + little)
        w64 = (guid(b"riff", riff) + struct.pack("<Q", 104 + len(little)) + guid(b"wave", other) + guid(b"fmt ", other) +
               struct.pack("<Q", 40) + form + guid(b"data", other) + struct.pack("<Q", 24 + len(little)) + little)
        for name, content in [("i.au", au), ("i.rf64", rf64), ("i.w64", w64)]:
            with self.subTest(name):
                with open(self.at(name), "wb") as file:
                    file.write(content)
                self.run_over(self.at(name), "--mask", "window:9,0")
                os.truncate(self.at(name), len(content) - 1000)
                self.refuses(5, name, "cut off", command=["run", self.at(name), "--output", self.at("no.h5")])
        path = write_wav(self.at("j.wav"), planted())
        with open(path, "r+b") as file:
            file.seek(40)
            file.write(bytes(4))
        self.refuses(5, "j.wav", "no samples", command=["run", path, "--output", self.at("no.h5")])

    def test_a_pipe_is_no_recording(self):
        os.mkfifo(self.at("pipe.wav"))
        self.refuses(5, "pipe.wav", "not a regular file", command=["run", self.at("pipe.wav"), "--output", self.at("no.h5")])

    def test_a_wav_file_from_a_pipe_has_no_length_in_its_header(self):
        path = write_wav(self.at("p.wav"), planted())
        for size in [b"\xff\xff\xff\xff", b"\xf0\xff\xff\x7f"]:
            with open(path, "r+b") as file:
                file.seek(4)
                file.write(size)
                file.seek(40)
                file.write(size)
            self.expect_phrase(path)

    def test_the_model_is_chosen_by_name_or_first_bytes(self):
        named = write_wav(self.at("h.wav"), planted())
        os.rename(named, self.at("sound"))
        self.expect_phrase(self.at("sound"))
        self.refuses(5, "UTF-8", command=["run", self.at("sound"), "--model", "induction", "--output", self.at("no.h5")])


if __name__ == "__main__":
    unittest.main()
