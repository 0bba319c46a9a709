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

// "By parts" (Llama 3.1): long waves are slowed by the factor, short ones are left, those between are mixed.
void scale_by_wavelength(Frequencies& frequencies, const Config& s, double factor) {
  const double low = s.number("low_freq_factor", 1), high = s.number("high_freq_factor", 4);
  const double trained = static_cast<double>(s.count("original_max_position_embeddings", 8192));
  if (!(low < high)) s.refuse("high_freq_factor", "must be above low_freq_factor, ", low);
  for (double& f : frequencies) {
    const double waves = trained * f / (2 * std::numbers::pi);  // in the context it was trained for
    const double kept = std::clamp((waves - low) / (high - low), 0.0, 1.0);
    f = (1 - kept) * f / factor + kept * f;
  }
}

// YaRN (Peng et al., arXiv:2309.00071): waves that turn more than beta_fast times in the trained context are left, those that
// turn less than beta_slow times are slowed by the factor; in between a ramp over channels.
double scale_by_yarn(Frequencies& frequencies, const Config& s, double factor, const RotarySubject& subject) {
  const double base = s.number("rope_theta", subject.base), channels = static_cast<double>(subject.channels);
  const double trained = static_cast<double>(s.count("original_max_position_embeddings", subject.positions));
  const auto channel_of = [&](double turns) {
    return channels * std::log(trained / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
  };
  double low = channel_of(s.number("beta_fast", 32)), high = channel_of(s.number("beta_slow", 1));
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
  if (s.has("mscale") && s.has("mscale_all_dim"))
    return magnitude(s.number("mscale")) / magnitude(s.number("mscale_all_dim"));
  return magnitude(1);
}

// LongRoPE (Ding et al., arXiv:2402.13753): a factor for each wave, of two lists by whether the document is longer than what was
// trained for first.
double scale_by_lists(Frequencies& frequencies, const Config& config, const Config& s, const RotarySubject& subject) {
  Index trained = s.count("original_max_position_embeddings", subject.positions);
  double factor = s.number("factor", 1);
  if (config.has("original_max_position_embeddings")) {
    trained = config.count("original_max_position_embeddings");
    factor = static_cast<double>(subject.positions) / static_cast<double>(trained);
  }
  const char* name = subject.tokens > trained ? "long_factor" : "short_factor";
  const std::vector<double> list = s.numbers(name);
  if (list.size() != frequencies.size()) s.refuse(name, "must have ", frequencies.size(), " numbers");
  for (std::size_t c = 0; c < list.size(); ++c) {
    if (!(list[c] > 0)) s.refuse(name, "must have numbers above zero");
    frequencies[c] /= list[c];
  }
  if (s.has("attention_factor")) return s.number("attention_factor");
  return factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(trained)));
}

}  // namespace

Rotary make_rotary(const Config& config, const Config* scaling, const RotarySubject& subject) {
  const double base = scaling != nullptr ? scaling->number("rope_theta", subject.base) : subject.base;
  if (!(base > 1)) config.refuse("rope_theta", "must be above 1");
  Rotary rotary{plain(base, subject.channels)};
  if (scaling == nullptr) return rotary;
  const std::string kind = scaling->text(scaling->has("rope_type") ? "rope_type" : "type", "default");
  if (kind == "default") return rotary;
  if (kind == "longrope" || kind == "su") {
    rotary.amplitude = scale_by_lists(rotary.frequencies, config, *scaling, subject);
    return rotary;
  }
  const double factor = scaling->number("factor", 1);
  if (!(factor >= 1)) scaling->refuse("factor", "must be at least 1");
  if (kind == "linear") {
    for (double& f : rotary.frequencies) f /= factor;
  } else if (kind == "dynamic") {  // the base grows with what is longer than trained for
    const double trained = static_cast<double>(subject.positions), channels = static_cast<double>(subject.channels);
    const double tokens = std::max(trained, static_cast<double>(subject.tokens));
    rotary.frequencies =
        plain(base * std::pow(factor * tokens / trained - (factor - 1), channels / (channels - 2)), subject.channels);
  } else if (kind == "llama3") {
    scale_by_wavelength(rotary.frequencies, *scaling, factor);
  } else if (kind == "yarn") {
    rotary.amplitude = scale_by_yarn(rotary.frequencies, *scaling, factor, subject);
  } else {
    scaling->refuse(scaling->has("rope_type") ? "rope_type" : "type",
                    "must be default, linear, dynamic, llama3, yarn or longrope");
  }
  return rotary;
}

}  // namespace annulus
