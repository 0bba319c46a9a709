#include "annulus/store/layout.hpp"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

constexpr std::string_view mark = "annulus layout 1";

class Packer {
 public:
  void number(Index value) { raw(&value, sizeof value); }
  void text(std::string_view value) {
    number(static_cast<Index>(value.size()));
    raw(value.data(), value.size());
  }
  void raw(const void* bytes, std::size_t count) {
    const auto* begin = static_cast<const std::byte*>(bytes);
    bytes_.insert(bytes_.end(), begin, begin + count);
  }
  std::vector<std::byte> take() { return std::move(bytes_); }
  std::uint64_t checksum() const { return XXH3_64bits(bytes_.data(), bytes_.size()); }

 private:
  std::vector<std::byte> bytes_;
};

class Unpacker {
 public:
  explicit Unpacker(std::span<const std::byte> bytes) : left_(bytes) {}
  Index number() {
    Index value = 0;
    std::memcpy(&value, raw(sizeof value), sizeof value);
    return value;
  }
  /// How many things follow, each of at least `least` bytes.
  std::size_t count(std::size_t least) {
    const Index value = number();
    check(value >= 0 && static_cast<std::size_t>(value) <= left_.size() / least);
    return static_cast<std::size_t>(value);
  }
  std::string text() {
    const std::size_t bytes = count(1);
    return {reinterpret_cast<const char*>(raw(bytes)), bytes};
  }
  void finish() const { check(left_.empty()); }

 private:
  static void check(bool holds) {
    require<Failure::communication>(holds, "the bytes received are not the layout of a file");
  }
  const std::byte* raw(std::size_t count) {
    check(count <= left_.size());
    const std::byte* begin = left_.data();
    left_ = left_.subspan(count);
    return begin;
  }
  std::span<const std::byte> left_;
};

}  // namespace

Index Layout::Dataset::row_bytes() const {
  Index bytes = bytes_of(shape.element);
  for (std::size_t i = 1; i < shape.dims.size(); ++i) bytes *= shape.dims[i];
  return bytes;
}

const Layout::Dataset& Layout::find(const std::string& name) const {
  const auto at =
      std::find_if(datasets.begin(), datasets.end(), [&](const Dataset& dataset) { return dataset.name == name; });
  require(at != datasets.end(), path, ": the file was laid out without a dataset '", name, "'");
  return *at;
}

std::vector<std::byte> serialise(const Layout& layout) {
  Packer packer;
  packer.raw(mark.data(), mark.size());
  packer.text(layout.path);
  packer.number(static_cast<Index>(layout.datasets.size()));
  for (const auto& dataset : layout.datasets) {
    packer.text(dataset.name);
    packer.number(dataset.offset);
    packer.number(static_cast<Index>(dataset.shape.element));
    packer.number(static_cast<Index>(dataset.shape.dims.size()));
    for (const Index dim : dataset.shape.dims) packer.number(dim);
  }
  const std::uint64_t checksum = packer.checksum();
  packer.raw(&checksum, sizeof checksum);
  return packer.take();
}

Layout parse_layout(std::span<const std::byte> bytes) {
  std::uint64_t checksum = 0;
  const bool whole =
      bytes.size() >= mark.size() + sizeof checksum && std::memcmp(bytes.data(), mark.data(), mark.size()) == 0;
  require<Failure::communication>(whole, "the bytes received are not the layout of a file: ", bytes.size(), " bytes");
  const auto body = bytes.first(bytes.size() - sizeof checksum);
  std::memcpy(&checksum, body.data() + body.size(), sizeof checksum);
  require<Failure::communication>(checksum == XXH3_64bits(body.data(), body.size()),
                                  "the layout of a file was damaged on its way: its checksum differs");
  Unpacker unpacker(body.subspan(mark.size()));
  Layout layout;
  layout.path = unpacker.text();
  layout.datasets.resize(unpacker.count(32));
  for (auto& dataset : layout.datasets) {
    dataset.name = unpacker.text();
    dataset.offset = unpacker.number();
    dataset.shape.element = static_cast<Element>(unpacker.number());
    dataset.shape.dims.resize(unpacker.count(8));
    for (Index& dim : dataset.shape.dims) dim = unpacker.number();
  }
  unpacker.finish();
  return layout;
}

}  // namespace annulus
