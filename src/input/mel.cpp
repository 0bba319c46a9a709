#include "annulus/input/mel.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <kissfft/kissfft.hh>
#include <limits>
#include <numbers>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

constexpr Index bins = mel_window / 2 + 1;
constexpr Index block_of_frames = 4096;  // 41 seconds: 2.6 MB of samples

// Slaney's mel scale: linear to 1 kHz, then logarithmic, 27 mels per factor 6.4.
double hertz(double mel) {
  constexpr double linear_hertz = 200.0 / 3, knee = 15;
  return mel < knee ? mel * linear_hertz : 1000 * std::exp((mel - knee) * std::log(6.4) / 27);
}

// numpy's "reflect": ... 2 1 [0 1 2 ... n-1] n-2 n-3 ...; ends that are longer than the signal bounce again.
Index reflected(Index i, Index n) {
  if (n == 1) return 0;
  const Index period = 2 * (n - 1), rest = ((i % period) + period) % period;
  return rest < n ? rest : period - rest;
}

// The part of a filter that is not zero.
struct Filter {
  Index begin = bins, end = 0;
  std::vector<double> weights;
};

// One frame from 400 samples to 80 log10 powers, in float64.
class Spectrum {
 public:
  Spectrum() : fft_(mel_window / 2, false), filters_(mel_bands) {
    for (Index n = 0; n < mel_window; ++n)
      window_[static_cast<std::size_t>(n)] =
          0.5 - 0.5 * std::cos(2 * std::numbers::pi * static_cast<double>(n) / mel_window);
    const std::vector<double> dense = mel_filters();
    for (Index band = 0; band < mel_bands; ++band) {
      Filter& filter = filters_[static_cast<std::size_t>(band)];
      const double* row = dense.data() + band * bins;
      for (Index f = 0; f < bins; ++f)
        if (row[f] != 0) filter.begin = std::min(filter.begin, f), filter.end = f + 1;
      filter.weights.assign(row + filter.begin, row + filter.end);
    }
  }
  std::array<double, mel_window>& samples() { return samples_; }

  void write(std::span<float> bands) {
    for (std::size_t n = 0; n < samples_.size(); ++n) samples_[n] *= window_[n];
    fft_.transform_real(samples_.data(), transformed_.data());
    power_.front() =
        transformed_[0].real() * transformed_[0].real();  // kissfft packs the two real ends into one number
    power_.back() = transformed_[0].imag() * transformed_[0].imag();
    for (std::size_t f = 1; f + 1 < power_.size(); ++f) power_[f] = std::norm(transformed_[f]);
    for (std::size_t band = 0; band < filters_.size(); ++band) {
      const Filter& filter = filters_[band];
      double sum = 0;
      for (std::size_t f = 0; f < filter.weights.size(); ++f)
        sum += filter.weights[f] * power_[static_cast<std::size_t>(filter.begin) + f];
      bands[band] = static_cast<float>(std::log10(std::max(sum, 1e-10)));
    }
  }

 private:
  kissfft<double> fft_;
  std::vector<Filter> filters_;
  std::array<double, mel_window> window_, samples_;
  std::array<std::complex<double>, mel_window / 2> transformed_;
  std::array<double, bins> power_;
};

}  // namespace

std::vector<double> mel_filters() {
  const double highest = 15 + 27 * std::log(8.0) / std::log(6.4);  // 8 kHz in mels
  std::array<double, mel_bands + 2> edge;
  for (std::size_t n = 0; n < edge.size(); ++n) edge[n] = hertz(highest * static_cast<double>(n) / (mel_bands + 1));
  std::vector<double> filters(static_cast<std::size_t>(mel_bands * bins));
  for (std::size_t band = 0; band < mel_bands; ++band)
    for (std::size_t f = 0; f < bins; ++f) {
      const double frequency = static_cast<double>(f) * sample_rate / mel_window;
      const double rising = (frequency - edge[band]) / (edge[band + 1] - edge[band]);
      const double falling = (edge[band + 2] - frequency) / (edge[band + 2] - edge[band + 1]);
      filters[band * bins + f] = std::max(0.0, std::min(rising, falling)) * 2 / (edge[band + 2] - edge[band]);
    }
  return filters;
}

void log_mel(Recording& recording, Range frames, std::span<float> out) {
  const Index samples = recording.samples();
  require(0 <= frames.begin && frames.begin <= frames.end && frames.end <= mel_frames(samples), "frames ", frames.begin,
          " to ", frames.end, " are not in ", recording.path(), ", which has ", mel_frames(samples));
  require(static_cast<Index>(out.size()) == frames.count() * mel_bands, "log-mel frames need ",
          frames.count() * mel_bands, " numbers, not ", out.size());
  Spectrum spectrum;
  for (Index block = frames.begin; block < frames.end; block += block_of_frames) {
    const Index last = std::min(frames.end, block + block_of_frames);
    // Every reflected sample of these frames lies within a window of the ends, and so in this part.
    const Range part = overlap(Range{block * mel_hop - mel_window, last * mel_hop + mel_window}, Range{0, samples});
    const std::vector<float> sound = recording.read(part);
    for (Index frame = block; frame < last; ++frame) {
      for (Index n = 0; n < mel_window; ++n) {
        const Index at = reflected(frame * mel_hop - mel_window / 2 + n, samples);
        spectrum.samples()[static_cast<std::size_t>(n)] = sound[static_cast<std::size_t>(at - part.begin)];
      }
      spectrum.write(out.subspan(static_cast<std::size_t>((frame - frames.begin) * mel_bands), mel_bands));
    }
  }
}

float largest(std::span<const float> frames) {
  return frames.empty() ? -std::numeric_limits<float>::infinity() : *std::ranges::max_element(frames);
}

void finish_mel(std::span<float> frames, float global_max) {
  for (float& x : frames) x = (std::max(x, global_max - 8.0F) + 4.0F) / 4.0F;
}

}  // namespace annulus
