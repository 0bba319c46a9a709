#include "input/text_file.hpp"

#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

constexpr std::size_t chunk_bytes = std::size_t{1} << 20;

// RFC 1952; bgzip's members have an extra field "BC", and one without contents comes last.
constexpr std::string_view gzip_mark = "\x1f\x8b";
bool is_bgzip(std::string_view begin) {
  return begin.size() >= 14 && (begin[3] & 4) != 0 && begin.substr(12, 2) == "BC";
}

}  // namespace

// Unpacks members one after another, which gzread does not do well enough: it takes a damaged member for the end.
class TextFile::Gzip {
 public:
  Gzip(const std::string& path, bool ends_with_mark)
      : path_(path), ends_with_mark_(ends_with_mark), text_(chunk_bytes) {
    constexpr int largest_window = 15, gzip_only = 16;
    const int result = ::inflateInit2(&stream_, largest_window + gzip_only);
    require<Failure::runtime>(result == Z_OK, "zlib ", zlibVersion(), " cannot begin to unpack: code ", result);
  }
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;
  ~Gzip() { ::inflateEnd(&stream_); }

  // read: the file's next bytes, empty at its end.
  template <class Read>
  std::string_view next(const Read& read) {
    stream_.next_out = reinterpret_cast<Bytef*>(text_.data());
    stream_.avail_out = static_cast<uInt>(text_.size());
    while (stream_.avail_out > 0) {
      if (stream_.avail_in == 0 && !refill(read())) break;
      if (between_members_ && members_ > 0 && *stream_.next_in == 0) {  // padding, as tapes have it
        ++stream_.next_in, --stream_.avail_in;
        continue;
      }
      unpack();
    }
    return {text_.data(), text_.size() - stream_.avail_out};
  }

 private:
  bool refill(std::string_view packed) {
    read_ += static_cast<Index>(packed.size());
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));  // zlib only reads it
    stream_.avail_in = static_cast<uInt>(packed.size());
    if (!packed.empty()) return true;
    require<Failure::file>(between_members_ && (!ends_with_mark_ || last_bytes_ == 0), "compressed file ", path_,
                           " is cut short: it ends at byte ", read_, " without the end of its contents");
    return false;
  }

  void unpack() {
    if (std::exchange(between_members_, false)) ::inflateReset(&stream_);
    const int result = ::inflate(&stream_, Z_NO_FLUSH);
    if (result == Z_STREAM_END) {  // lengths and checksums were right
      between_members_ = true;
      ++members_;
      last_bytes_ = static_cast<Index>(stream_.total_out);
      return;
    }
    if (result == Z_MEM_ERROR) throw std::bad_alloc();
    require<Failure::file>(result == Z_OK || result == Z_BUF_ERROR, "compressed file ", path_, " is damaged near byte ",
                           read_ - static_cast<Index>(stream_.avail_in), ": ",
                           stream_.msg != nullptr ? stream_.msg : ::zError(result));
  }

  const std::string& path_;
  bool ends_with_mark_;
  std::vector<char> text_;
  z_stream stream_ = {};
  Index read_ = 0;  // bytes of the file
  bool between_members_ = true;
  Index members_ = 0, last_bytes_ = 0;
};

TextFile::TextFile(std::string path)
    : path_(std::move(path)), contents_(path_), stream_(path_, std::ios::binary), chunk_(chunk_bytes) {
  require<Failure::file>(stream_.is_open(), "cannot read ", path_, ": ", std::strerror(errno));
  first_ = read();
  if (!first_.starts_with(gzip_mark)) return;
  contents_ = sentence("what is packed in ", path_);
  gzip_ = std::make_unique<Gzip>(path_, is_bgzip(first_));
}

TextFile::~TextFile() = default;

std::string_view TextFile::next() {
  return gzip_ ? gzip_->next([this] { return read(); }) : read();
}

std::string_view TextFile::read() {
  if (!first_.empty()) return std::exchange(first_, {});
  stream_.read(chunk_.data(), static_cast<std::streamsize>(chunk_.size()));
  require<Failure::file>(!stream_.bad(), "cannot read ", path_, " beyond byte ", at_, ": ", std::strerror(errno));
  at_ += stream_.gcount();
  return {chunk_.data(), static_cast<std::size_t>(stream_.gcount())};
}

}  // namespace annulus
