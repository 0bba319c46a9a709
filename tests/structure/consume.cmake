# Installs a build tree into a scratch prefix, then configures, builds and runs tests/structure/consumer against it.
#   cmake -DBUILD=<build tree> -DSCRATCH=<folder to use> -DGENERATOR=... -DCXX=... -DFLAGS=... -P consume.cmake
function(step what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT code EQUAL 0)
    message(NOTICE "${text}")
    message(FATAL_ERROR "${what} failed (${code})")
  endif()
  string(STRIP "${text}" text)
  string(REGEX REPLACE ".*\n" "" last "${text}")
  message(STATUS "${what}: ${last}")
endfunction()

function(consume what components)
  step("configure, ${what}" ${CMAKE_COMMAND} -G ${GENERATOR} -S ${CMAKE_CURRENT_LIST_DIR}/consumer -B ${SCRATCH}/build
       -DCMAKE_PREFIX_PATH=${SCRATCH}/prefix -DCMAKE_CXX_COMPILER=${CXX} "-DCMAKE_CXX_FLAGS=${FLAGS}"
       -DCOMPONENTS=${components} ${ARGN})
  step("build" ${CMAKE_COMMAND} --build ${SCRATCH}/build)
  step("run" ${SCRATCH}/build/consumer)
  file(REMOVE_RECURSE ${SCRATCH}/build)
endfunction()

file(REMOVE_RECURSE ${SCRATCH})
step("install" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${SCRATCH}/prefix)
consume("all of it" "")
set(without)
foreach(package MPI HDF5 PkgConfig CUDAToolkit)
  list(APPEND without -DCMAKE_DISABLE_FIND_PACKAGE_${package}=ON)
endforeach()
consume("the core, which needs none of ${without}" core ${without})
file(REMOVE_RECURSE ${SCRATCH})
