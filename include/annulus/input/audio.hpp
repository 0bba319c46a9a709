#pragma once
#include <memory>
#include <string>
#include <vector>

#include "annulus/geometry/range.hpp"

namespace annulus {

/// Samples per second of everything behind this header, as Whisper wants it.
inline constexpr Index sample_rate = 16000;

/// A sound file as one channel of 16 kHz samples: wav, flac, ogg and whatever else libsndfile reads, any rate and
/// number of channels (mixed by their mean), resampled by libsoxr (linear phase, 20 bits). Nothing is read before it is
/// asked for. Move-only; one thread at a time.
class Recording {
 public:
  /// Throws Error (file) that names the file when it is missing, no sound file, shorter than its header says, or cannot
  /// be read from the middle.
  explicit Recording(const std::string& path);
  Recording(Recording&&) noexcept;
  Recording& operator=(Recording&&) noexcept;
  ~Recording();

  const std::string& path() const { return path_; }
  /// Length at 16 kHz: source frames * 16000 / source rate, rounded.
  Index samples() const;
  double seconds() const { return static_cast<double>(samples()) / sample_rate; }
  Index source_rate() const { return source_rate_; }
  Index source_channels() const { return source_channels_; }
  Index source_frames() const { return source_frames_; }

  /// Samples [begin, end) at 16 kHz, full scale = 1. Reads only the source frames it needs and, on both sides, a halo
  /// of 1/4 second and 1,024 frames (and up to one period of the two rates), yet gives the samples that resampling the
  /// whole file would give, to the last bit or two of f32: with 16000 / rate = L / M in lowest terms, output n L falls
  /// on input n M exactly, so a part that starts there has the phases of the whole; and the halo is longer than the
  /// filter. Memory: the result and 1 MiB. Throws Error (usage) when the range leaves [0, samples()); Error (file) when
  /// the file ends early or holds a number that is not finite.
  std::vector<float> read(Range samples);

 private:
  struct File;
  std::vector<float> read_source(Range frames);
  std::vector<float> resample(Range samples);

  std::string path_;
  std::unique_ptr<File> file_;
  Index source_rate_ = 0, source_channels_ = 0, source_frames_ = 0;
};

}  // namespace annulus
