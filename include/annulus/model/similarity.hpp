#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "annulus/geometry/mask.hpp"
#include "annulus/memory/rows.hpp"
#include "annulus/model/passages.hpp"
#include "annulus/model/prediction.hpp"

namespace annulus {

/// Self-attention that finds what sounds alike and needs no weights. Token t is the sound that begins at frame t *
/// stride; head h looks at windows[h] frames of it. A window is pooled to slices x bands numbers, relative to the
/// recording's mean, each slice relative to its own loudness (so that volume does not matter), and made unit length:
/// with k = q, the score q.k is the cosine between two pictures of sound. Windows without sound, and those that leave
/// the recording, are zeros. The value is the picture itself: the output is the mean picture of what sounds alike.
struct SimilarityModel {
  std::vector<Index> windows = {25, 50, 100, 200};  ///< frames of each head; multiples of stride
  Index stride = 5;                                 ///< frames from one token to the next: 50 ms
  double frame_seconds = 0.01;
  Index mel_bands = 80;  ///< per frame, as they come; a multiple of bands
  Index slices = 8, bands = 16;
  /// Sharp: a cosine that is 0.1 lower weighs exp(-6) = 0.2 %; what is unrelated (0.3 against 0.95) 1e-17.
  double softmax_scale = 60;
  /// Frames are in Whisper's finished units: 1 is 40 dB. A slice this much below the recording's mean loudness is
  /// silent, and a window of which more than half is silent is no sound.
  double silence_below_mean = 0.25;
  /// Deviation from the mean picture that counts as sound: 0.02 is 0.8 dB, root mean square.
  double least_contrast = 0.02;
  /// Cosine from which a link is kept. The same phrase half a stride off the grid scores above 0.95 at 1 s.
  double threshold = 0.9;

  Index heads() const { return static_cast<Index>(windows.size()); }
  Index channels() const { return slices * bands; }
  /// Throws Error (usage) that names the rule.
  void check() const;
  /// Tokens of a recording: one per begun stride.
  Index tokens(Index frames) const { return ceil_div(frames, stride); }
  double token_seconds() const { return static_cast<double>(stride) * frame_seconds; }
  /// Tokens a head's window spans.
  Index window_tokens(Index head) const { return windows[static_cast<std::size_t>(head)] / stride; }
  Index longest_window_tokens() const;
  /// Frames that the windows of these runs touch, at most `frames`: what a rank has to have of the recording.
  Range frames_of(std::span<const Run> runs, Index frames) const;
  /// What came at least the longest window before: k - q <= -longest. Every earlier sound that does not overlap.
  Mask mask(Index tokens) const;
};

/// Sums over frames that can be added across ranks; the mean picture is what windows are compared against.
struct BandSums {
  explicit BandSums(Index bands) : sums(static_cast<std::size_t>(bands + 1)) {}
  std::vector<double> sums;  ///< [bands + 1], the last one counts frames; added element by element over ranks
  /// frames: [n, mel_bands], finished mel.
  void add(std::span<const float> frames);
  /// [mel_bands]; zeros when there were no frames.
  std::vector<float> mean() const;
};

/// Writes frames [begin, end) of finished mel, [count, mel_bands], to `into`.
using FrameReader = std::function<void(Range frames, std::span<float> into)>;

/// Fills the rows of the tokens at `runs`, run after run, on the CPU: q, k, v [rows, heads, channels]; absent views are
/// not wanted. frames: length of the whole recording; the reader is asked, about 40 s at a time, for frames of
/// frames_of(runs). Throws Error (usage) when shapes do not fit the model or a run leaves the recording.
void embed(const SimilarityModel& model, Index frames, const FrameReader& reader, std::span<const float> mean,
           std::span<const Run> runs, const Rows& q, const Rows& k, const Rows& v);

/// Appends the best link of one query of head `head`, if its cosine reaches the threshold. A link spans the window.
void append_similar_link(const SimilarityModel& model, Index head, Index query, const TopKeys& top,
                         std::vector<Link>& links);

/// How links of head `head` become repeated phrases: two tokens may be missing, tempo may wobble by one token, and a
/// passage is longer than the window it was seen through. Merge head by head; windows of a second and more are to be
/// trusted, in less different sounds may be alike by chance.
MergeRules similarity_rules(const SimilarityModel& model, Index head);

/// Seconds as "0:12.35", from an hour on as "1:02:03.40".
std::string time_text(double seconds);
/// "0:12.35-0:14.10 <-> 1:02.40-1:04.15"
std::string describe(const Passage& passage, const SimilarityModel& model);

}  // namespace annulus
