# One translation unit per tier of instructions, each with its own flags; which one runs is decided at run time.
# Headers of this room are not public.
target_include_directories(annulus_core PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})

# Products and sums may be contracted into fused multiply-adds; nothing else is relaxed.
set(tier_flags -ffp-contract=fast)
foreach(tier portable avx2 avx2_narrow avx512 avx512_narrow avx512_bf16 avx512_bf16_narrow amx_bf16 amx_forward)
  set_source_files_properties(kernel/cpu/${tier}.cpp PROPERTIES COMPILE_OPTIONS "${tier_flags}")
endforeach()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
  set_source_files_properties(kernel/cpu/avx2.cpp kernel/cpu/avx2_narrow.cpp PROPERTIES
    COMPILE_OPTIONS "${tier_flags};-mavx2;-mfma;-mf16c")
  set(avx512_flags -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512)
  set_source_files_properties(kernel/cpu/avx512.cpp kernel/cpu/avx512_narrow.cpp PROPERTIES
    COMPILE_OPTIONS "${tier_flags};${avx512_flags}")
  set_source_files_properties(kernel/cpu/avx512_bf16.cpp kernel/cpu/avx512_bf16_narrow.cpp PROPERTIES
    COMPILE_OPTIONS "${tier_flags};${avx512_flags};-mavx512bf16")
  set(amx_flags ${avx512_flags} -mamx-tile -mamx-bf16 -DANNULUS_AMX)
  # Sanitizers make these files compile ten times as long, for nothing where they cannot run: their twin is checked.
  if(ANNULUS_SANITIZE AND EXISTS /proc/cpuinfo)
    file(STRINGS /proc/cpuinfo with_tiles REGEX "amx_bf16" LIMIT_COUNT 1)
    if(NOT with_tiles)
      list(APPEND amx_flags -fno-sanitize=all)
    endif()
  endif()
  set_source_files_properties(kernel/cpu/amx_bf16.cpp kernel/cpu/amx_forward.cpp PROPERTIES
    COMPILE_OPTIONS "${tier_flags};${amx_flags}")
endif()

# No tier may leak code into the rest of the program. Deferred: tests are switched on after this directory.
if(ANNULUS_TESTS)
  cmake_language(DEFER DIRECTORY ${PROJECT_SOURCE_DIR} CALL add_test NAME kernel.tiers_define_only_their_tables COMMAND
    ${CMAKE_COMMAND} -DLIBRARY=$<TARGET_FILE:annulus_core> -DNM=${CMAKE_NM}
    -P ${PROJECT_SOURCE_DIR}/tests/kernel/tier_symbols.cmake)
  cmake_language(DEFER DIRECTORY ${PROJECT_SOURCE_DIR} CALL set_tests_properties kernel.tiers_define_only_their_tables
    PROPERTIES LABELS pure)
endif()
