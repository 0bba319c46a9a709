# The same program under mpirun at several rank counts; a hang ends by mpirun's own time-out, inside CTest's.
if(NOT TARGET annulus_mpi)
  add_test(NAME mpi.needs_mpi COMMAND ${CMAKE_COMMAND} -E echo "MPI is not built here")
  set_tests_properties(mpi.needs_mpi PROPERTIES LABELS mpi SKIP_REGULAR_EXPRESSION "is not built here")
  return()
endif()
add_executable(test_mpi mpi/main.cpp mpi/mpi_test.cpp)
target_include_directories(test_mpi PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(test_mpi PRIVATE annulus_flags annulus_core annulus_mpi GTest::gtest)
find_program(ANNULUS_MPIRUN mpirun REQUIRED)
foreach(transport mpi shared)
  foreach(ranks 1 2 3 4)
    set(name mpi.${ranks}_ranks_${transport})
    add_test(NAME ${name}
             COMMAND ${ANNULUS_MPIRUN} --timeout 100 --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n ${ranks}
                     $<TARGET_FILE:test_mpi> ${transport})
    set_tests_properties(${name} PROPERTIES LABELS mpi TIMEOUT 120 PROCESSORS 2
      ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1")
  endforeach()
endforeach()
