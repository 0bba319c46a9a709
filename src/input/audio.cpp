#include "annulus/input/audio.hpp"

#include <sndfile.h>
#include <soxr.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string_view>
#include <utility>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"

namespace annulus {
namespace {

constexpr Index block_frames = Index{1} << 16;

// Source frames that a read takes beyond both ends: the filter spans a few hundred frames of the lower rate.
constexpr Index halo_frames(Index rate) { return rate / 4 + 1024; }

// 16000 / rate in lowest terms.
struct Ratio {
  Index up, down;
  explicit Ratio(Index rate)
      : up(sample_rate / std::gcd(sample_rate, rate)), down(rate / std::gcd(sample_rate, rate)) {}
};

Index number_at(std::string_view bytes, std::size_t begin, std::size_t count, bool little) {
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < count; ++i)
    number = number * 256 + static_cast<unsigned char>(bytes[begin + (little ? count - 1 - i : i)]);
  return static_cast<Index>(std::min<std::uint64_t>(number, far));
}

// What the header says of the whole file's bytes; 0 where it says nothing. Programs that write into a pipe put a size near
// 2^31 or 2^32 there, or none.
Index length_by_header(std::string_view head) {
  constexpr Index piped = 0x7FFF0000;
  const std::string_view magic = head.substr(0, 4);
  const auto size_at = [&](std::size_t begin, bool little) {
    const Index size = number_at(head, begin, 4, little);
    return size < piped ? size : 0;
  };
  if (magic == "RIFF") return size_at(4, true) + 8;
  if (magic == "RIFX" || magic == "FORM") return size_at(4, false) + 8;
  if (magic == ".snd" && size_at(8, false) > 0) return size_at(4, false) + size_at(8, false);
  if (magic == "riff") return number_at(head, 16, 8, true);  // w64
  if (magic == "RF64" && head.substr(12, 4) == "ds64") return number_at(head, 20, 8, true) + 8;
  return 0;
}

// A wav file of which a program never said how much sound it has: libsndfile takes that for none.
bool says_no_samples(std::ifstream& file, Index present) {
  std::array<char, 8> chunk{};
  const std::string_view head(chunk.data(), chunk.size());
  for (Index at = 12; at + 8 < present;) {
    file.clear();
    if (!file.seekg(at) || !file.read(chunk.data(), chunk.size())) return false;
    const Index size = number_at(head, 4, 4, true);
    if (head.starts_with("data")) return size == 0;
    at += 8 + size + size % 2;
  }
  return false;
}

// libsndfile does not hold a header against a shorter file.
void check_length(const std::string& path, std::ifstream& file) {
  std::array<char, 32> bytes{};
  file.read(bytes.data(), bytes.size());
  const std::string_view head(bytes.data(), bytes.size());
  const auto present = static_cast<Index>(std::filesystem::file_size(path));
  const Index length = length_by_header(head);
  require<Failure::file>(length <= present + 1,  // + 1: some leave out a last padding byte
                         "the recording ", path, " is cut off: by its header it has ", grouped(length),
                         " bytes, but only ", grouped(present), " are there");
  require<Failure::file>(!head.starts_with("RIFF") || !says_no_samples(file, present), "the recording ", path,
                         " has no samples by its header, but bytes behind it: whoever wrote it did not finish");
}

struct SoxrDeleter {
  void operator()(soxr* resampler) const { soxr_delete(resampler); }
};

// A stream of mono samples from one rate to 16 kHz; output 0 falls on input 0.
class Resampler {
 public:
  Resampler(Index rate, const std::string& path) : path_(path) {
    soxr_error_t failure = nullptr;
    // float64 inside: parts then equal the whole to the last bit of f32 almost everywhere, on any number of ranks.
    const soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, SOXR_DOUBLE_PRECISION);
    soxr_.reset(soxr_create(static_cast<double>(rate), sample_rate, 1, &failure, nullptr, &quality, nullptr));
    check(failure);
  }
  // Appends what comes out for these samples; no samples at all end the stream.
  void feed(std::span<const float> in, std::vector<float>& out) {
    const bool ends = in.empty();
    for (;;) {
      std::size_t used = 0, made = 0;
      check(soxr_process(soxr_.get(), ends ? nullptr : in.data(), in.size(), &used, buffer_.data(), buffer_.size(),
                         &made));
      out.insert(out.end(), buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(made));
      in = in.subspan(used);
      if (in.empty() && made < buffer_.size()) return;
    }
  }

 private:
  void check(soxr_error_t failure) const {
    require<Failure::file>(failure == nullptr, "cannot resample ", path_, ": ", failure == nullptr ? "" : failure);
  }
  const std::string& path_;
  std::unique_ptr<soxr, SoxrDeleter> soxr_;
  std::vector<float> buffer_ = std::vector<float>(static_cast<std::size_t>(block_frames));
};

}  // namespace

struct Recording::File {
  SNDFILE* handle = nullptr;
  explicit File(SNDFILE* opened) : handle(opened) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { sf_close(handle); }
};

Recording::Recording(const std::string& path) : path_(path) {
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  require<Failure::file>(!std::filesystem::is_directory(status),
                         "a recording is needed, but this is a directory: ", path);
  require<Failure::file>(!std::filesystem::exists(status) || std::filesystem::is_regular_file(status),
                         "a recording is needed, but this is not a regular file: ", path);
  std::ifstream file(path, std::ios::binary);
  require<Failure::file>(file.is_open(), "cannot read ", path, ": ", std::strerror(errno));
  check_length(path, file);
  SF_INFO info = {};
  SNDFILE* opened = sf_open(path.c_str(), SFM_READ, &info);
  require<Failure::file>(opened != nullptr, "cannot read ", path, " as a recording: ", sf_strerror(nullptr),
                         " (it can be wav, flac, ogg, opus, aiff, au, caf, w64, rf64, or mp3 with libsndfile 1.1)");
  file_ = std::make_unique<File>(opened);
  source_rate_ = info.samplerate, source_channels_ = info.channels, source_frames_ = info.frames;
  require<Failure::file>(
      source_rate_ > 0 && source_channels_ > 0 && source_frames_ >= 0 && source_frames_ < far / sample_rate,
      "a recording needs a rate, channels and a length: ", path, " has ", source_rate_, " Hz, ", source_channels_,
      " channels, ", source_frames_, " frames");
  require<Failure::file>(info.seekable != 0,
                         "a recording must be readable from the middle, but this one is not: ", path);
}

Recording::Recording(Recording&&) noexcept = default;
Recording& Recording::operator=(Recording&&) noexcept = default;
Recording::~Recording() = default;

Index Recording::samples() const {
  const Ratio ratio(source_rate_);
  return (2 * source_frames_ * ratio.up + ratio.down) / (2 * ratio.down);  // as soxr rounds
}

std::vector<float> Recording::read(Range samples) {
  require(0 <= samples.begin && samples.begin <= samples.end && samples.end <= this->samples(), "samples ",
          samples.begin, " to ", samples.end, " are not in ", path_, ", which has ", this->samples());
  if (samples.empty()) return {};
  return source_rate_ == sample_rate ? read_source(samples) : resample(samples);
}

// Mono source frames. The range lies in the file.
std::vector<float> Recording::read_source(Range frames) {
  require<Failure::file>(sf_seek(file_->handle, frames.begin, SEEK_SET) == frames.begin, "cannot go to frame ",
                         frames.begin, " of ", path_, ": ", sf_strerror(file_->handle));
  std::vector<float> mono(static_cast<std::size_t>(frames.count()));
  const Index piece = std::max<Index>(1, block_frames / source_channels_);
  std::vector<float> block(static_cast<std::size_t>(piece * source_channels_));
  for (Index done = 0; done < frames.count();) {
    const Index wanted = std::min(piece, frames.count() - done),
                got = sf_readf_float(file_->handle, block.data(), wanted);
    require<Failure::file>(got > 0, "the recording ", path_, " ends early, at frame ", frames.begin + done, " of ",
                           source_frames_, ": ", sf_strerror(file_->handle));
    for (Index f = 0; f < got; ++f) {
      const float* frame = block.data() + f * source_channels_;
      const double mean = std::accumulate(frame, frame + source_channels_, 0.0) / static_cast<double>(source_channels_);
      require<Failure::file>(std::isfinite(mean), "the recording ", path_,
                             " holds a number that is not finite at frame ", frames.begin + done + f);
      mono[static_cast<std::size_t>(done + f)] = static_cast<float>(mean);
    }
    done += got;
  }
  return mono;
}

std::vector<float> Recording::resample(Range samples) {
  const Ratio ratio(source_rate_);
  const Index halo = halo_frames(source_rate_);
  // The last period that begins at least a halo before the first sample wanted, and so the first output.
  const Index period = std::max<Index>(0, floor_div(samples.begin * ratio.down / ratio.up - halo, ratio.down));
  const Range source = {period * ratio.down, std::min(source_frames_, samples.end * ratio.down / ratio.up + 1 + halo)};
  const Range kept = {samples.begin - period * ratio.up, samples.end - period * ratio.up};

  Resampler resampler(source_rate_, path_);
  std::vector<float> result, made;
  result.reserve(static_cast<std::size_t>(kept.count()));
  Index at = 0;  // output position of made[0]
  const auto keep = [&] {
    const Range part = overlap({at, at + static_cast<Index>(made.size())}, kept);
    if (!part.empty()) result.insert(result.end(), made.begin() + (part.begin - at), made.begin() + (part.end - at));
    at += static_cast<Index>(made.size());
    made.clear();
  };
  for (Index begin = source.begin; begin < source.end; begin += block_frames) {
    resampler.feed(read_source({begin, std::min(source.end, begin + block_frames)}), made);
    keep();
  }
  resampler.feed({}, made);
  keep();
  result.resize(static_cast<std::size_t>(kept.count()));  // should rounding leave the very last sample out: silence
  return result;
}

}  // namespace annulus
