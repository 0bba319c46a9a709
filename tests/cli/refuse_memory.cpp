// Preloaded into the program by shared_test.py: a system that has no shared memory to give.
#include <cerrno>

extern "C" int memfd_create(const char* /*name*/, unsigned /*flags*/) noexcept {
  errno = ENOMEM;
  return -1;
}
