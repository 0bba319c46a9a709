#include "model/checkpoint/rotary.hpp"

#include <algorithm>
#include <numbers>

namespace annulus {
namespace {

using Frequencies = std::vector<double>;

Frequencies plain(double base, Index channels) {
  Frequencies frequencies;
  for (Index c = 0; c < channels; c += 2)
    frequencies.push_back(std::pow(base, -static_cast<double>(c) / static_cast<double>(channels)));
  return frequencies;
}

// The context a model was trained for first.
double trained_first(const Config& config, const Config& s, const RotarySubject& subject) {
  constexpr const char* key = "original_max_position_embeddings";
  return static_cast<double>(config.count(key, s.count(key, subject.positions)));
}

// A section whose factor is null, or has none, means that from the first context to the present one.
double factor_of(const Config& s, const RotarySubject& subject, double trained) {
  const double factor = s.number("factor", static_cast<double>(subject.positions) / trained);
  if (!(factor > 0)) s.refuse("factor", "must be above 0");
  return factor;
}

// Zero counts as absent.
double number_or(const Config& s, const char* key, double fallback) {
  const double number = s.number(key, 0);
  return number == 0 ? fallback : number;
}

// "By parts" (Llama 3.1): long waves are slowed by the factor, short ones are left, those between are mixed.
void scale_by_wavelength(Frequencies& frequencies, const Config& s, double trained, double factor) {
  const double low = s.number("low_freq_factor", 1), high = s.number("high_freq_factor", 4);
  if (!(low < high)) s.refuse("high_freq_factor", "must be above low_freq_factor, ", low);
  for (double& f : frequencies) {
    const double waves = trained * f / (2 * std::numbers::pi);  // in the context it was trained for
    const double kept = std::clamp((waves - low) / (high - low), 0.0, 1.0);
    f = (1 - kept) * f / factor + kept * f;
  }
}

// YaRN (Peng et al., arXiv:2309.00071): waves that turn more than beta_fast times in the trained context are left, those that
// turn less than beta_slow times are slowed by the factor; in between a ramp over channels.
double scale_by_yarn(Frequencies& frequencies, const Config& s, double trained, double factor,
                     const RotarySubject& subject) {
  const double base = s.number("rope_theta", subject.base), channels = static_cast<double>(subject.channels);
  const auto channel_of = [&](double turns) {
    return channels * std::log(trained / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
  };
  double low = channel_of(number_or(s, "beta_fast", 32)), high = channel_of(number_or(s, "beta_slow", 1));
  if (s.flag("truncate", true)) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, channels - 1);
  if (low == high) high += 0.001;
  for (std::size_t c = 0; c < frequencies.size(); ++c) {
    const double slowed = std::clamp((static_cast<double>(c) - low) / (high - low), 0.0, 1.0);
    frequencies[c] = slowed * frequencies[c] / factor + (1 - slowed) * frequencies[c];
  }
  const auto magnitude = [&](double m) { return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1; };
  if (s.has("attention_factor")) return s.number("attention_factor");
  if (const double own = number_or(s, "mscale", 0), all = number_or(s, "mscale_all_dim", 0); own != 0 && all != 0)
    return magnitude(own) / magnitude(all);
  return magnitude(1);
}

// LongRoPE (Ding et al., arXiv:2402.13753): a factor for each wave, of two lists by whether the document is longer than what was
// trained for first.
double scale_by_lists(Frequencies& frequencies, const Config& s, double trained, double factor, Index tokens) {
  const char* name = static_cast<double>(tokens) > trained ? "long_factor" : "short_factor";
  const std::vector<double> list = s.numbers(name);
  if (list.size() != frequencies.size()) s.refuse(name, "must have ", frequencies.size(), " numbers");
  for (std::size_t c = 0; c < list.size(); ++c) {
    if (!(list[c] > 0)) s.refuse(name, "must have numbers above zero");
    frequencies[c] /= list[c];
  }
  if (s.has("attention_factor")) return s.number("attention_factor");
  return factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(trained));
}

}  // namespace

Rotary make_rotary(const Config& config, const Config* scaling, const RotarySubject& subject) {
  const double base = scaling != nullptr ? scaling->number("rope_theta", subject.base) : subject.base;
  if (!(base > 1)) config.refuse("rope_theta", "must be above 1");
  Rotary rotary{plain(base, subject.channels)};
  if (scaling == nullptr) return rotary;
  const std::string kind = scaling->text(scaling->has("rope_type") ? "rope_type" : "type", "default");
  if (kind == "default") return rotary;
  const double trained = trained_first(config, *scaling, subject);
  if (kind == "longrope" || kind == "su" || scaling->has("long_factor")) {  // which early phi3 files call su or yarn
    const double factor = factor_of(*scaling, subject, trained);
    rotary.amplitude = scale_by_lists(rotary.frequencies, *scaling, trained, factor, subject.tokens);
    return rotary;
  }
  if (kind != "linear" && kind != "dynamic" && kind != "llama3" && kind != "yarn")
    scaling->refuse(scaling->has("rope_type") ? "rope_type" : "type",
                    "must be default, linear, dynamic, llama3, yarn or longrope");
  const double factor = kind == "yarn" ? factor_of(*scaling, subject, trained) : scaling->number("factor");
  if (!(factor >= 1)) scaling->refuse("factor", "must be at least 1");
  if (kind == "linear") {
    for (double& f : rotary.frequencies) f /= factor;
  } else if (kind == "dynamic") {  // the base grows with what is longer than trained for
    const double positions = static_cast<double>(subject.positions), channels = static_cast<double>(subject.channels);
    const double tokens = std::max(positions, static_cast<double>(subject.tokens));
    rotary.frequencies =
        plain(base * std::pow(factor * tokens / positions - (factor - 1), channels / (channels - 2)), subject.channels);
  } else if (kind == "llama3") {
    scale_by_wavelength(rotary.frequencies, *scaling, trained, factor);
  } else {
    rotary.amplitude = scale_by_yarn(rotary.frequencies, *scaling, trained, factor, subject);
  }
  return rotary;
}

}  // namespace annulus
