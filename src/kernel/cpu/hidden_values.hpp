#pragma once
#include "kernel/cpu/strip.hpp"

// Weights of keys that a lane does not see are 0, and their values are multiplied all the same. Values that are infinite, or
// not numbers, would reach a lane so; strips in which that can happen take their values lane by lane.

namespace annulus::cpu {
namespace {

/// What is known of a packed chunk of values.
struct ChunkValues {
  Index steps;  ///< that it has
  enum { unknown, finite, infinite } state;
};

/// Is a value of the chunk not finite? panels: as accumulate takes them. Reads up to a vector behind every panel's last step.
template <class Words>
bool infinite_in(const float* panels, Index values, Index steps) {
  // all bits of an exponent, and one more, carry into the sign
  constexpr unsigned numbers = Words::in_word == 2 ? 0x7fff7fffU : 0x7fffffffU,
                     last = Words::in_word == 2 ? 0x00800080U : 0x00800000U;
  UintVec carried{};
  for (Index c = 0; c < values; c += unit, panels += panel_pitch)
    for (Index at = 0; at < words_of<Words>(steps) * unit; at += width)
      carried |= (reinterpret_cast<UintVec>(load_loose(panels + at)) & numbers) + last;
  if (Words::in_word == 2) carried |= carried << 16U;
  return any(reinterpret_cast<IntVec>(carried));
}

/// May a strip of the chunk touch values that are not finite and that some lane does not see?
template <class Words>
ANNULUS_INLINE bool hides_infinite(ChunkValues& of, const float* panels, Index values, const Strip& strip) {
  if (strip.unhidden(Words::in_word)) return false;
  if (of.state == ChunkValues::unknown)
    of.state = infinite_in<Words>(panels, values, of.steps) ? ChunkValues::infinite : ChunkValues::finite;
  return of.state == ChunkValues::infinite;
}

/// out += V^T P^T of what the lanes see. p: [step][lane], f32
template <class Words>
[[gnu::noinline]] void add_seen_values(const float* panels, const float* p, Index values, const Strip& strip,
                                       float* out) {
  for (Index step = strip.begin; step < strip.end; ++step)
    for (Index c = 0; c < values; ++c) {
      unsigned word;
      __builtin_memcpy(&word, panels + c / unit * panel_pitch + step / Words::in_word * unit + c % unit, sizeof word);
      if (Words::in_word == 2) word = step % 2 == 0 ? word << 16U : word & 0xffff0000U;
      const Vec value = splat(__builtin_bit_cast(float, word));
      for (int n = 0; n < vectors; ++n) {
        float* const cell = out + c * lanes + n * width;
        const Vec x = value * load(p + step * lanes + n * width);
        store(cell, load(cell) + (strip.whole(step) ? x : keep(sees(strip, step, n), x)));
      }
    }
}

}  // namespace
}  // namespace annulus::cpu
