#pragma once
#include <span>
#include <vector>

#include "annulus/input/audio.hpp"

namespace annulus {

/// Whisper's log-mel frames as published (Radford et al. 2022, whisper/audio.py): 16 kHz, Hann window (periodic) of 400
/// samples every 160, centred with reflected ends, power spectrum, 80 mel filters with Slaney's scale and norm
/// (librosa's default), log10 of at least 1e-10, no less than 8 below the loudest of the whole recording, then (x + 4)
/// / 4. Computed in float64.
inline constexpr Index mel_bands = 80, mel_hop = 160, mel_window = 400;
inline constexpr double mel_frame_seconds = static_cast<double>(mel_hop) / sample_rate;

/// Frames of a recording: samples / 160, rounded down (the frame centred on or after the end is dropped).
constexpr Index mel_frames(Index samples) { return samples / mel_hop; }

/// The filters, [80 bands, 201 frequencies of 40 Hz], equal to librosa.filters.mel(sr=16000, n_fft=400, n_mels=80).
std::vector<double> mel_filters();

/// Frames [begin, end) before the maximum over the recording is known: log10(max(power, 1e-10)). out: [frames, 80].
/// Frame f is centred on sample 160 f. Reads the samples of the frames and a halo, a block at a time.
/// Throws Error (usage) when the range leaves the recording or `out` does not fit; Error (file) as Recording::read.
void log_mel(Recording& recording, Range frames, std::span<float> out);

/// The largest number; -infinity for none. The app reduces it over the ranks.
float largest(std::span<const float> frames);

/// The rest of the definition, in place: (max(x, global_max - 8) + 4) / 4.
void finish_mel(std::span<float> frames, float global_max);

}  // namespace annulus
