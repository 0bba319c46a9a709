#pragma once
#include "kernel/cpu/strip.hpp"

// Weights of keys that a lane does not see are 0, and their values are multiplied all the same. Values that are infinite, or
// not numbers, would reach a lane so; strips in which that can happen take their values lane by lane.

namespace annulus::cpu {
namespace {

/// Is a number of the word not finite?
template <class Words>
ANNULUS_INLINE bool is_infinite(unsigned word) {
  constexpr unsigned exponent = 0x7f800000U, low_exponent = exponent >> 16U;
  return (word & exponent) == exponent || (Words::in_word == 2 && (word & low_exponent) == low_exponent);
}

/// Is a value not finite among the steps of words [begin, end)? panels: of values, as accumulate takes them
template <class Words>
bool infinite_in(const float* panels, Index values, Index begin, Index end) {
  bool some = false;
  for (Index c = 0; c < values && begin < end; c += unit, panels += panel_pitch)
    for (Index at = begin * unit; at < end * unit; ++at) {
      unsigned word;
      __builtin_memcpy(&word, panels + at, sizeof word);
      some |= is_infinite<Words>(word);
    }
  return some;
}

/// Does a strip touch values that are not finite and that some lane does not see?
template <class Words>
ANNULUS_INLINE bool hides_infinite(const float* panels, Index values, const Strip& strip) {
  if (strip.unhidden(Words::in_word)) return false;
  const auto word = [](Index step) { return step / Words::in_word; };
  return infinite_in<Words>(panels, values, word(strip.begin), words_of<Words>(strip.full_begin)) ||
         infinite_in<Words>(panels, values, word(strip.full_end), words_of<Words>(strip.end));
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
