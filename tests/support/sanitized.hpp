#pragma once

namespace annulus {

/// True in a build with a sanitizer, where everything takes 3 to 20 times as long: large tests then do fewer cases.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

}  // namespace annulus
