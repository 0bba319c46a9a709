#include "annulus/store/content_hash.hpp"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <cerrno>
#include <memory>
#include <vector>

#include "posix.hpp"

namespace annulus {

std::string content_hash(const std::string& path, const std::stop_token& stop) {
  const store::Descriptor file = store::open_file(path, O_RDONLY);
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(), XXH3_freeState);
  require<Failure::fit>(state != nullptr, path, ": there is no memory for a hash state");
  XXH3_128bits_reset(state.get());
  std::vector<char> piece(std::size_t{4} << 20);
  for (;;) {
    require<Failure::stopped>(!stop.stop_requested(), path, ": nobody waits for its hash any more");
    const ssize_t count = ::read(file.get(), piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    require<Failure::file>(count >= 0, path, ": the file cannot be read: ", store::reason_of(errno));
    if (count == 0) break;
    XXH3_128bits_update(state.get(), piece.data(), static_cast<std::size_t>(count));
  }
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
  std::string text;
  for (const unsigned char byte : canonical.digest) {
    constexpr std::string_view digits = "0123456789abcdef";
    text += digits[byte >> 4U];
    text += digits[byte & 15U];
  }
  return text;
}

}  // namespace annulus
