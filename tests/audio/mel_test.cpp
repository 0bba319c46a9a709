#include "annulus/input/mel.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <numbers>
#include <random>

#include "annulus/base/error.hpp"
#include "audio/sound.hpp"
#include "input/temporary.hpp"

namespace annulus {
namespace {

std::vector<float> sound(Index samples, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> result;
  for (Index n = 0; n < samples; ++n) {
    const double t = static_cast<double>(n) / 16000, loud = n % 7000 < 1500 ? 0 : 0.4;
    result.push_back(static_cast<float>(loud * std::sin(2 * std::numbers::pi * (300 + 500 * t) * t) +
                                        1e-3 * (static_cast<double>(random()) / 0x1p32 - 0.5)));
  }
  return result;
}

// The definition word for word: a direct Fourier transform in float64, on a padded copy, before the maximum.
std::vector<double> reference(const std::vector<float>& samples) {
  const auto n = static_cast<Index>(samples.size());
  const std::vector<double> filters = mel_filters();
  std::vector<double> padded, result;
  for (Index i = 200; i > 0; --i) padded.push_back(samples[static_cast<std::size_t>(i)]);
  padded.insert(padded.end(), samples.begin(), samples.end());
  for (Index i = 1; i <= 200; ++i) padded.push_back(samples[static_cast<std::size_t>(n - 1 - i)]);
  for (Index frame = 0; frame < n / 160; ++frame) {
    std::vector<double> power;
    for (int f = 0; f <= 200; ++f) {
      std::complex<double> sum = 0;
      for (int i = 0; i < 400; ++i) {
        const double hann = 0.5 * (1 - std::cos(2 * std::numbers::pi * i / 400));
        sum += hann * padded[static_cast<std::size_t>(frame * 160 + i)] *
               std::polar(1.0, -2 * std::numbers::pi * ((f * i) % 400) / 400);
      }
      power.push_back(std::norm(sum));
    }
    for (std::size_t band = 0; band < 80; ++band) {
      double sum = 0;
      for (std::size_t f = 0; f <= 200; ++f) sum += filters[band * 201 + f] * power[f];
      result.push_back(std::log10(std::max(sum, 1e-10)));
    }
  }
  return result;
}

TEST(Mel, FramesAreWhatADirectFourierTransformGives) {
  const TemporaryFolder folder;
  for (const Index n : {Index{16000}, Index{16159}, Index{321}, Index{201}}) {
    const std::vector<float> samples = sound(n, 1);
    Recording recording(write_sound(folder.at("a.wav"), samples, 16000));
    ASSERT_EQ(mel_frames(recording.samples()), n / 160);
    std::vector<float> frames(static_cast<std::size_t>(n / 160 * mel_bands));
    log_mel(recording, {0, n / 160}, frames);
    const std::vector<double> expected = reference(samples);
    ASSERT_EQ(frames.size(), expected.size());
    // float64 throughout, stored as f32: half a unit in the last place of numbers below 16 is 5e-7.
    for (std::size_t i = 0; i < frames.size(); ++i)
      ASSERT_NEAR(frames[i], expected[i], 6e-7) << "frame " << i / 80 << " band " << i % 80;
  }
}

TEST(Mel, FiltersAreLibrosas) {
  const std::vector<double> filters = mel_filters();
  ASSERT_EQ(filters.size(), 80U * 201U);
  // Whisper's mel_filters.npz holds 0.02486259 as the first weight that is not zero: band 0 at 40 Hz.
  EXPECT_EQ(filters[0], 0);
  EXPECT_NEAR(filters[1], 0.02486259, 5e-9);
  EXPECT_EQ(filters[2], 0);
  // Slaney's norm: the area under a triangle is 1. Sampled every 40 Hz it is so for triangles of many samples.
  for (std::size_t band = 60; band < 80; ++band) {
    double area = 0;
    for (std::size_t f = 0; f <= 200; ++f) area += 40 * filters[band * 201 + f];
    EXPECT_NEAR(area, 1, 0.02);
  }
}

TEST(Mel, PartsAreTheWhole) {
  const TemporaryFolder folder;
  std::mt19937_64 random(7);
  SCOPED_TRACE("seed 7");
  for (const int rate : {16000, 44100}) {
    Recording recording(write_sound(folder.at("a.wav"), sound(3 * rate, 2), rate));
    const Index count = mel_frames(recording.samples());
    ASSERT_EQ(count, 300);
    std::vector<float> whole(static_cast<std::size_t>(count * mel_bands));
    log_mel(recording, {0, count}, whole);
    for (int trial = 0; trial < 30; ++trial) {
      const auto begin = static_cast<Index>(random() % 301),
                 end = begin + static_cast<Index>(random() % static_cast<std::uint64_t>(301 - begin));
      std::vector<float> part(static_cast<std::size_t>((end - begin) * mel_bands));
      log_mel(recording, {begin, end}, part);
      // At 16 kHz the same samples. Resampled ones may differ by 1e-7 where f32 rounds, which is 3e-4 of this sound's
      // noise.
      for (std::size_t i = 0; i < part.size(); ++i)
        ASSERT_NEAR(part[i], whole[static_cast<std::size_t>(begin * mel_bands) + i], rate == 16000 ? 0 : 1e-3) << begin;
    }
  }
}

TEST(Mel, TheLastStepUsesTheLoudestOfAll) {
  std::vector<float> frames = {-10, -1, 2, -6.5F};
  EXPECT_EQ(largest(frames), 2);
  EXPECT_EQ(largest({}), -INFINITY);
  finish_mel(frames, largest(frames));
  EXPECT_EQ(frames, (std::vector<float>{-0.5F, 0.75F, 1.5F, -0.5F}));
}

TEST(Mel, ShortAndSilentRecordingsHaveFramesToo) {
  const TemporaryFolder folder;
  for (const Index n : {Index{0}, Index{1}, Index{159}, Index{160}, Index{200}, Index{500}}) {
    Recording recording(write_sound(folder.at("a.wav"), std::vector<float>(static_cast<std::size_t>(n), 0.0F), 16000));
    const Index count = mel_frames(recording.samples());
    std::vector<float> frames(static_cast<std::size_t>(count * mel_bands));
    log_mel(recording, {0, count}, frames);
    EXPECT_TRUE(std::ranges::all_of(frames, [](float x) { return x == -10.0F; })) << "log10(1e-10)";
    EXPECT_THROW(log_mel(recording, {0, count + 1}, frames), Error);
    std::vector<float> seven(7);
    EXPECT_THROW(log_mel(recording, {0, count}, seven), Error);
  }
}

}  // namespace
}  // namespace annulus
