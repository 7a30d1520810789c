# Tests mirror the tree: tests/<folder>/*_test.cc become one binary test_<folder>, every case one ctest entry.
# tests/mpi/*_test.cc become test_mpi, run whole at 1, 2 and 4 ranks. tests/e2e/*_test.py drive the built command.
# Labels: unit, mpi, e2e, slow (gpu from the first device code on).
include(GoogleTest)
find_package(Python3 REQUIRED COMPONENTS Interpreter)

add_library(orrery_test_support INTERFACE)
target_link_libraries(orrery_test_support INTERFACE GTest::gmock orrery_flags)
target_compile_definitions(orrery_test_support INTERFACE ORRERY_SOURCE_DIR="${CMAKE_SOURCE_DIR}")

foreach(folder core kernels comm models rollout actors learners experiments)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS tests/${folder}/*_test.cc)
  if(sources)
    add_executable(test_${folder} ${sources})
    target_link_libraries(test_${folder} PRIVATE orrery_${folder} orrery_test_support GTest::gtest_main)
    gtest_discover_tests(test_${folder} TEST_PREFIX ${folder}. PROPERTIES LABELS unit DISCOVERY_TIMEOUT 60
                         DISCOVERY_MODE PRE_TEST)
  endif()
endforeach()

file(GLOB mpi_sources CONFIGURE_DEPENDS tests/mpi/*_test.cc)
if(mpi_sources)
  add_executable(test_mpi ${mpi_sources} tests/mpi/main.cc)
  target_link_libraries(test_mpi PRIVATE orrery_experiments orrery_test_support GTest::gtest)
  foreach(ranks 1 2 4)
    add_test(NAME mpi.${ranks}_ranks
             COMMAND ${MPIEXEC_EXECUTABLE} --allow-run-as-root --oversubscribe --bind-to none -n ${ranks}
                     $<TARGET_FILE:test_mpi>)
    set_tests_properties(mpi.${ranks}_ranks PROPERTIES LABELS mpi TIMEOUT 300 ENVIRONMENT "OMP_NUM_THREADS=1")
  endforeach()
endif()

file(GLOB e2e_sources CONFIGURE_DEPENDS tests/e2e/*_test.py)
if(TARGET orrery)
  foreach(script ${e2e_sources})
    get_filename_component(stem ${script} NAME_WE)
    add_test(NAME e2e.${stem} COMMAND ${Python3_EXECUTABLE} ${script} -v)
    set_tests_properties(e2e.${stem} PROPERTIES LABELS e2e TIMEOUT 900
      SKIP_REGULAR_EXPRESSION "^SKIP ALL"
      ENVIRONMENT "ORRERY_BIN=$<TARGET_FILE:orrery>;ORRERY_SOURCE_DIR=${CMAKE_SOURCE_DIR}")
  endforeach()
endif()
