# CUDA kernel bodies on the CPU: the emulator, its own tests and those of the kernels, which need neither nvcc nor a GPU.
# Not among in_process_tests: under sanitizers they take minutes, and by hand they still can (test_cuda_emulator).
if(ANNULUS_SANITIZE MATCHES thread)  # it does not follow fibers
  add_test(NAME cuda_emulator.needs_no_thread_sanitizer COMMAND ${CMAKE_COMMAND} -E echo "skipped: built for the thread sanitizer")
  set_tests_properties(cuda_emulator.needs_no_thread_sanitizer PROPERTIES LABELS emulated SKIP_REGULAR_EXPRESSION "^skipped: ")
  return()
endif()
include(CheckCXXSourceRuns)
file(GLOB sources CONFIGURE_DEPENDS kernel/cuda_emulator/*.cpp kernel/cuda/*_test.cpp)
add_executable(test_cuda_emulator ${sources})
target_include_directories(test_cuda_emulator PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/src)
target_compile_options(test_cuda_emulator PRIVATE -Wno-unknown-pragmas)
# As nvcc does, a product and a sum become one rounded operation wherever they may.
target_compile_options(test_cuda_emulator PRIVATE -ffp-contract=fast)
set(CMAKE_REQUIRED_FLAGS -mfma)
check_cxx_source_runs("int main() { return __builtin_cpu_supports(\"fma\") ? 0 : 1; }" ANNULUS_RUNS_FMA)
unset(CMAKE_REQUIRED_FLAGS)
if(ANNULUS_RUNS_FMA)
  target_compile_options(test_cuda_emulator PRIVATE -mfma)
endif()
target_link_libraries(test_cuda_emulator PRIVATE annulus_flags annulus_core GTest::gmock_main)
gtest_discover_tests(test_cuda_emulator TEST_PREFIX cuda_emulator. PROPERTIES LABELS emulated TIMEOUT 300 DISCOVERY_TIMEOUT 60)
