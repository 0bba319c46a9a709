#include "input/text_file.hpp"

#include <cerrno>
#include <cstring>
#include <utility>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

constexpr std::size_t chunk_bytes = std::size_t{1} << 20;

}  // namespace

TextFile::TextFile(std::string path) : path_(std::move(path)), stream_(path_, std::ios::binary), chunk_(chunk_bytes) {
  require<Failure::file>(stream_.is_open(), "cannot read ", path_, ": ", std::strerror(errno));
}

std::string_view TextFile::next() {
  stream_.read(chunk_.data(), static_cast<std::streamsize>(chunk_.size()));
  require<Failure::file>(!stream_.bad(), "cannot read ", path_, " beyond byte ", at_, ": ", std::strerror(errno));
  at_ += stream_.gcount();
  return {chunk_.data(), static_cast<std::size_t>(stream_.gcount())};
}

}  // namespace annulus
