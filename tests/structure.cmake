# The house itself: who includes whom, headers that stand alone, an installed package that works, scripts without traps.

# structure_skip(NAME LABEL REASON): a check that cannot run here, reported as skipped.
function(structure_skip name label reason)
  add_test(NAME structure.${name} COMMAND ${CMAKE_COMMAND} -E echo "skipped: ${reason}")
  set_tests_properties(structure.${name} PROPERTIES LABELS ${label} SKIP_REGULAR_EXPRESSION "^skipped: ")
endfunction()

# --- includes --------------------------------------------------------------------------------------------------------
set(structure_dir ${CMAKE_CURRENT_SOURCE_DIR}/structure)
if(Python3_FOUND)
  add_test(NAME structure.includes_follow_the_floors
           COMMAND Python3::Interpreter ${structure_dir}/includes.py ${PROJECT_SOURCE_DIR})
  add_test(NAME structure.planted_includes_are_caught COMMAND Python3::Interpreter ${structure_dir}/includes.py --self-test)
  set_tests_properties(structure.includes_follow_the_floors structure.planted_includes_are_caught
                       PROPERTIES LABELS pure TIMEOUT 30)
else()
  structure_skip(includes_follow_the_floors pure "Python 3 is not here")
endif()

# --- headers: each is compiled alone, and twice, with the normal build -----------------------------------------------
file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/include/*.hpp)
set(header_sources)
foreach(header ${headers})
  string(REPLACE "/" "_" name ${header})
  set(source ${CMAKE_CURRENT_BINARY_DIR}/headers/${name}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "#include \"${header}\"\n#include \"${header}\"  // NOLINT\n")
  list(APPEND header_sources ${source})
endforeach()
add_library(test_headers OBJECT ${header_sources})
target_include_directories(test_headers PRIVATE ${PROJECT_SOURCE_DIR}/include)
target_link_libraries(test_headers PRIVATE annulus_flags)

# --- a consumer of the installed package -----------------------------------------------------------------------------
set(consumer_flags "")
if(ANNULUS_SANITIZE)
  set(consumer_flags -fsanitize=${ANNULUS_SANITIZE})
endif()
add_test(NAME structure.an_installed_package_can_be_used
         COMMAND ${CMAKE_COMMAND} -DBUILD=${PROJECT_BINARY_DIR} -DSCRATCH=${CMAKE_CURRENT_BINARY_DIR}/consumer
                 -DGENERATOR=${CMAKE_GENERATOR} -DCXX=${CMAKE_CXX_COMPILER} -DFLAGS=${consumer_flags}
                 -P ${structure_dir}/consume.cmake)
set_tests_properties(structure.an_installed_package_can_be_used PROPERTIES LABELS cli TIMEOUT 300)

# --- other processors: the core is compiled for them ---------------------------------------------------------------------
find_program(AARCH64_CXX aarch64-linux-gnu-g++)
if(AARCH64_CXX)
  add_test(NAME structure.the_core_compiles_for_aarch64
           COMMAND ${CMAKE_COMMAND} -DCXX=${AARCH64_CXX} -DROOT=${PROJECT_SOURCE_DIR}
                   "-DSOURCES=$<TARGET_PROPERTY:annulus_core,SOURCES>" -P ${structure_dir}/compile_all.cmake)
  set_tests_properties(structure.the_core_compiles_for_aarch64 PROPERTIES LABELS cli TIMEOUT 600)
else()
  structure_skip(the_core_compiles_for_aarch64 cli "no compiler for aarch64 is here")
endif()

# --- shell scripts ---------------------------------------------------------------------------------------------------
find_program(SHELLCHECK shellcheck)
file(GLOB candidates CONFIGURE_DEPENDS LIST_DIRECTORIES false ${PROJECT_SOURCE_DIR}/launch/* ${PROJECT_SOURCE_DIR}/launch/slurm/*
     ${PROJECT_SOURCE_DIR}/.ci/run)
set(scripts)
foreach(script ${candidates})
  file(STRINGS ${script} first LIMIT_COUNT 1)
  if(first MATCHES "bash")
    list(APPEND scripts ${script})
  endif()
endforeach()
if(NOT scripts)
  structure_skip(scripts_pass_shellcheck pure "there are no scripts")
elseif(SHELLCHECK)
  add_test(NAME structure.scripts_pass_shellcheck COMMAND ${SHELLCHECK} -x ${scripts}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(structure.scripts_pass_shellcheck PROPERTIES LABELS pure TIMEOUT 60)
else()
  structure_skip(scripts_pass_shellcheck pure "shellcheck is not here")
endif()
