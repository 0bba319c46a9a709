#pragma once
#include <stop_token>
#include <string>

namespace annulus {

/// The XXH3 128-bit hash of a file's bytes as 32 hexadecimal digits, as `xxhsum -H2` prints it. Reads the file once, in
/// 4 MiB pieces. Tells files apart; proves nothing against someone who wants a collision.
/// Throws Error (file) when the file cannot be read, Error (stopped) soon after a stop is requested.
std::string content_hash(const std::string& path, const std::stop_token& stop = {});

}  // namespace annulus
