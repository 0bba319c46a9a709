# Recordings, and what sounds alike in them; needs libsndfile, libsoxr and kissfft, and writes its own sound files.
annulus_tests(audio threads 60 annulus_audio annulus_model)
if(TARGET test_audio)
  find_package(PkgConfig REQUIRED)
  pkg_check_modules(SNDFILE REQUIRED IMPORTED_TARGET sndfile)  # imported targets end with the folder that looked for them
  pkg_check_modules(SOXR REQUIRED IMPORTED_TARGET soxr)
  target_link_libraries(test_audio PRIVATE PkgConfig::SNDFILE PkgConfig::SOXR)
endif()
