#pragma once
// HDF5 itself, for tests that make files no Draft would make. Debian keeps the serial library's header aside, and the
// store library does not hand its include path on.
#if __has_include(<hdf5.h>)
#include <hdf5.h>
#else
#include <hdf5/serial/hdf5.h>
#endif
