# The command line, its files and small parts, without the program around them.
find_package(Boost COMPONENTS program_options)
if(Boost_FOUND)
  annulus_tests(app pure 30 annulus_core)
  target_sources(test_app PRIVATE ${PROJECT_SOURCE_DIR}/src/app/common_start.cpp
                                  ${PROJECT_SOURCE_DIR}/src/app/config.cpp ${PROJECT_SOURCE_DIR}/src/app/help.cpp
                                  ${PROJECT_SOURCE_DIR}/src/app/ini.cpp ${PROJECT_SOURCE_DIR}/src/app/progress.cpp)
  target_link_libraries(test_app PRIVATE Boost::program_options)
else()
  add_test(NAME app.needs_boost COMMAND ${CMAKE_COMMAND} -E echo "Boost.Program_options is not here")
  set_tests_properties(app.needs_boost PROPERTIES LABELS pure SKIP_REGULAR_EXPRESSION "is not here")
endif()
