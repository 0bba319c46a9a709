# cmake -DCXX=compiler -DROOT=dir "-DSOURCES=a.cpp;b.cpp" -P compile_all.cmake
#
# Every source passes another processor's compiler, warnings being errors: no instruction and no header of one family has found its
# way into what all build. Nothing is linked or run.
set(failed 0)
foreach(source IN LISTS SOURCES)
  if(NOT IS_ABSOLUTE ${source})
    set(source ${ROOT}/src/${source})
  endif()
  execute_process(COMMAND ${CXX} -std=c++20 -fsyntax-only -Wall -Wextra -Werror -I${ROOT}/include -I${ROOT}/src ${source}
                  RESULT_VARIABLE result)
  if(result)
    message("${source} does not compile")
    set(failed 1)
  endif()
endforeach()
list(LENGTH SOURCES count)
if(failed OR count EQUAL 0)
  message(FATAL_ERROR "of ${count} sources some do not compile with ${CXX}")
endif()
