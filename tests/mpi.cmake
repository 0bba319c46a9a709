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
add_executable(mpi_endings mpi/endings.cpp)
target_link_libraries(mpi_endings PRIVATE annulus_flags annulus_core annulus_mpi MPI::MPI_C)
# mpi_ending(NAME TRANSPORT CASE): two ranks that are done in 20 seconds, where a rank waits 30 for another.
function(mpi_ending name transport case)
  add_test(NAME mpi.${name}_${transport}
           COMMAND sh -c "\"$0\" \"$@\"; code=$?; echo \"mpirun ended with $code\"; exit $code"
                   ${ANNULUS_MPIRUN} --timeout 20 --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n 2
                   $<TARGET_FILE:mpi_endings> ${case} ${transport})
  set_tests_properties(mpi.${name}_${transport} PROPERTIES LABELS mpi TIMEOUT 60 PROCESSORS 2
    ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1")
endfunction()
foreach(transport mpi shared)
  mpi_ending(runs_already_and_is_left_running ${transport} adopted)
  mpi_ending(ends_the_job_when_an_exception_leaves ${transport} leaves)
  set_tests_properties(mpi.ends_the_job_when_an_exception_leaves_${transport} PROPERTIES
    PASS_REGULAR_EXPRESSION "mpirun ended with 1[\r\n]")  # 110: by its time limit
  mpi_ending(notices_lengths_that_disagree ${transport} short)
  set_tests_properties(mpi.notices_lengths_that_disagree_${transport} PROPERTIES
    PASS_REGULAR_EXPRESSION "has 2000 bytes where 4000 are expected")
  foreach(ranks 1 2 3 4)
    set(name mpi.${ranks}_ranks_${transport})
    add_test(NAME ${name}
             COMMAND ${ANNULUS_MPIRUN} --timeout 100 --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n ${ranks}
                     $<TARGET_FILE:test_mpi> ${transport})
    set_tests_properties(${name} PROPERTIES LABELS mpi TIMEOUT 120 PROCESSORS 2
      ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1")
  endforeach()
endforeach()
