# Several hosts on this machine, and a batch system: real launchers, one at a time. Skipped, with the reason, where the
# machine does not permit namespaces or lacks the programs.
foreach(test several_hosts slurm)
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/hosts/${test}_test.py)
    continue()
  endif()
  set(launcher)
  if(test STREQUAL several_hosts)
    set(launcher ${PROJECT_SOURCE_DIR}/launch/hosts --hosts 4 --rate 2gbit --)
  endif()
  if(TARGET annulus_program AND TARGET annulus_mpi AND ANNULUS_TEST_PYTHON)
    add_test(NAME hosts.${test} COMMAND ${launcher} ${ANNULUS_TEST_PYTHON} -B ${CMAKE_CURRENT_SOURCE_DIR}/hosts/${test}_test.py)
    set_tests_properties(hosts.${test} PROPERTIES LABELS hosts TIMEOUT 400 RUN_SERIAL TRUE SKIP_RETURN_CODE 125
      SKIP_REGULAR_EXPRESSION "^skipped: " ENVIRONMENT "ANNULUS_PROGRAM=$<TARGET_FILE:annulus_program>")
  else()
    add_test(NAME hosts.${test} COMMAND ${CMAKE_COMMAND} -E echo "skipped: the program with MPI, or Python, is not here")
    set_tests_properties(hosts.${test} PROPERTIES LABELS hosts SKIP_REGULAR_EXPRESSION "^skipped: ")
  endif()
endforeach()
