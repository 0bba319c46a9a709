# The program from outside: one test per tests/cli/*_test.py, each a unittest file on the helper program.py.
set(mpirun "")
if(ANNULUS_MPI)
  find_package(MPI COMPONENTS C QUIET)
  set(mpirun ${MPIEXEC_EXECUTABLE})
endif()
add_library(refuse_memory MODULE cli/refuse_memory.cpp)  # for shared_test.py
file(GLOB cli_tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cli/*_test.py)
foreach(test ${cli_tests})
  cmake_path(GET test STEM name)
  if(TARGET annulus_program AND ANNULUS_TEST_PYTHON)
    add_test(NAME cli.${name} COMMAND ${ANNULUS_TEST_PYTHON} -B ${test})
    set_tests_properties(cli.${name} PROPERTIES LABELS cli TIMEOUT 600 SKIP_REGULAR_EXPRESSION "^skipped: "
      ENVIRONMENT "ANNULUS_PROGRAM=$<TARGET_FILE:annulus_program>;ANNULUS_MPIRUN=${mpirun};ANNULUS_REFUSE_MEMORY=$<TARGET_FILE:refuse_memory>")
  else()
    add_test(NAME cli.${name} COMMAND ${CMAKE_COMMAND} -E echo "skipped: the program or Python is not here")
    set_tests_properties(cli.${name} PROPERTIES LABELS cli SKIP_REGULAR_EXPRESSION "^skipped: ")
  endif()
endforeach()
