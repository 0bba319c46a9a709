#pragma once
#include <gtest/gtest.h>
#include <sndfile.h>

#include <span>
#include <string>
#include <vector>

#include "annulus/base/types.hpp"

namespace annulus {

/// Writes interleaved samples as a sound file; format as libsndfile's SF_FORMAT_*.
inline std::string write_sound(const std::string& path, std::span<const float> samples, int rate, int channels = 1,
                               int format = SF_FORMAT_WAV | SF_FORMAT_FLOAT) {
  SF_INFO info = {};
  info.samplerate = rate, info.channels = channels, info.format = format;
  SNDFILE* file = sf_open(path.c_str(), SFM_WRITE, &info);
  EXPECT_NE(file, nullptr) << sf_strerror(nullptr);
  constexpr std::size_t piece = 1 << 14;  // the Vorbis encoder keeps a large block on the stack
  for (std::size_t n = 0; n < samples.size(); n += piece) {
    const auto part = samples.subspan(n, std::min(piece, samples.size() - n));
    EXPECT_EQ(sf_write_float(file, part.data(), static_cast<sf_count_t>(part.size())),
              static_cast<sf_count_t>(part.size()));
  }
  sf_close(file);
  return path;
}

}  // namespace annulus
