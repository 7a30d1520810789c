# Tests mirror the tree: tests/<folder>/*_test.cc become one binary test_<folder>, every case one
# ctest entry; the target unit_tests builds all of them. tests/lint/*_test.py test the developer
# scripts. tests/mpi/*_test.cc become test_mpi, run whole at 1, 2 and 4 ranks. tests/e2e/*_test.py
# drive the built command. tests/fuzz/*_fuzz.cc become libFuzzer programs in fuzz/ of the build
# (preset asan-ubsan), run by tools/fuzz.sh; the target fuzz_targets builds all of them.
# tests/gpu holds what checks a GPU, which nvcc builds.
# The suites that use a device run a second time with ORRERY_TEST_DEVICE=debug, whose memory no
# host code may touch (core/closed_memory.h): their names begin with debug., and ctest's -L, which
# takes a regular expression, finds their labels by unit or mpi as well as by debug.
# Labels: unit, unit-debug, unit-emulated, mpi, mpi-debug, e2e, gpu, slow.
include(GoogleTest)
find_package(Python3 REQUIRED COMPONENTS Interpreter)

add_library(orrery_test_support INTERFACE)
target_link_libraries(orrery_test_support INTERFACE GTest::gmock orrery_flags)
target_compile_definitions(orrery_test_support INTERFACE ORRERY_SOURCE_DIR="${CMAKE_SOURCE_DIR}")

# ThreadSanitizer is for the tests that start threads, themselves or through a header of ours that
# does, and for those that run ops in teams of several whose members share more than the end of a
# loop.
set(thread_words "std::(thread|jthread|async)[^_a-z]")
set(team_tests tests/kernels/attention_backward_test.cc tests/learners/ordered_reducer_test.cc)
file(GLOB headers CONFIGURE_DEPENDS core/*.h comm/*.h rollout/*.h actors/*.h learners/*.h launch/*.h experiments/*.h)
foreach(header ${headers})
  file(STRINGS ${header} starts_threads REGEX "${thread_words}" LIMIT_COUNT 1)
  if(starts_threads)
    file(RELATIVE_PATH header ${CMAKE_SOURCE_DIR} ${header})
    string(APPEND thread_words "|#include \"${header}\"")
  endif()
endforeach()

set(device_suites models rollout learners comm experiments)
set(dot16_suites models rollout learners)  # which run once more where bf16 is tensor cores'

add_custom_target(unit_tests)
foreach(folder core kernels comm text config models storage rollout actors learners launch experiments tools)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS tests/${folder}/*_test.cc)
  if(ORRERY_SANITIZE MATCHES "thread")
    set(all_sources ${sources})
    set(sources)
    foreach(source ${all_sources})
      file(STRINGS ${source} starts_threads REGEX "${thread_words}" LIMIT_COUNT 1)
      file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR} ${source})
      if(starts_threads OR name IN_LIST team_tests)
        list(APPEND sources ${source})
      endif()
    endforeach()
  endif()
  if(sources)
    add_executable(test_${folder} ${sources})
    if(ORRERY_SANITIZE AND NOT folder STREQUAL "kernels")  # whose oracles are loops over numbers
      target_compile_options(test_${folder} PRIVATE -O0)   # half the time of -O1; the code under test has -O1
    endif()
    target_link_libraries(test_${folder} PRIVATE orrery_${folder} orrery_test_support GTest::gtest_main)
    gtest_discover_tests(test_${folder} TEST_PREFIX ${folder}.
                         PROPERTIES LABELS unit
                         DISCOVERY_TIMEOUT 60 DISCOVERY_MODE PRE_TEST)
    if(folder IN_LIST device_suites AND NOT ORRERY_SANITIZE)
      gtest_discover_tests(test_${folder} TEST_PREFIX debug.${folder}. TEST_LIST test_${folder}_debug
                           PROPERTIES LABELS unit-debug ENVIRONMENT ORRERY_TEST_DEVICE=debug
                           DISCOVERY_TIMEOUT 60 DISCOVERY_MODE PRE_TEST)
    endif()
    if(folder IN_LIST dot16_suites AND NOT ORRERY_SANITIZE)
      add_test(NAME dot16.${folder} COMMAND test_${folder})
      set_tests_properties(dot16.${folder} PROPERTIES LABELS unit TIMEOUT 900 ENVIRONMENT ORRERY_TEST_DEVICE=cpu-dot16)
    endif()
    add_dependencies(unit_tests test_${folder})
  endif()
endforeach()

file(GLOB lint_sources CONFIGURE_DEPENDS tests/lint/*_test.py)
foreach(script ${lint_sources})
  get_filename_component(stem ${script} NAME_WE)
  add_test(NAME lint.${stem} COMMAND ${Python3_EXECUTABLE} ${script})
  set_tests_properties(lint.${stem} PROPERTIES LABELS unit TIMEOUT 60)
endforeach()

# PROCESSORS: on a small machine `ctest -j` runs MPI jobs and end-to-end runs alone.
file(GLOB mpi_sources CONFIGURE_DEPENDS tests/mpi/*_test.cc)
if(mpi_sources)
  add_executable(test_mpi ${mpi_sources} tests/mpi/main.cc)
  target_link_libraries(test_mpi PRIVATE orrery_experiments orrery_test_support GTest::gtest)
  foreach(ranks 1 2 4)
    set(command ${MPIEXEC_EXECUTABLE} --allow-run-as-root --oversubscribe --bind-to none -n ${ranks} $<TARGET_FILE:test_mpi>)
    set(environment "OMPI_MCA_btl_vader_single_copy_mechanism=none")
    add_test(NAME mpi.${ranks}_ranks COMMAND ${command})
    set_tests_properties(mpi.${ranks}_ranks PROPERTIES LABELS mpi TIMEOUT 300 PROCESSORS 4
                         ENVIRONMENT "${environment}")
    if(NOT ORRERY_SANITIZE)
      add_test(NAME debug.mpi.${ranks}_ranks COMMAND ${command})
      set_tests_properties(debug.mpi.${ranks}_ranks PROPERTIES LABELS mpi-debug TIMEOUT 300 PROCESSORS 4
                           ENVIRONMENT "${environment};ORRERY_TEST_DEVICE=debug")
    endif()
  endforeach()
endif()

# Libraries that tests open at run time; each test program knows its own by a path.
function(orrery_test_library name source definition)
  add_library(${name} MODULE ${source})
  target_link_libraries(${name} PRIVATE orrery_flags)
  if(ORRERY_SANITIZE)  # as of a library of others, no more is known of a function than its name
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS -fno-sanitize=function)
  endif()
  foreach(test ${ARGN})
    if(TARGET ${test})
      target_compile_definitions(${test} PRIVATE ${definition}="$<TARGET_FILE:${name}>")
      add_dependencies(${test} ${name})
    endif()
  endforeach()
endfunction()
orrery_test_library(small_library tests/core/small_library.cc ORRERY_SMALL_LIBRARY test_core)
orrery_test_library(fake_nccl tests/mpi/fake_nccl/fake_nccl.cc ORRERY_FAKE_NCCL test_comm test_mpi)
target_link_libraries(fake_nccl PRIVATE MPI::MPI_CXX)

file(GLOB e2e_sources CONFIGURE_DEPENDS tests/e2e/*_test.py)
# The longest ones, which tools/check.sh runs with --slow only.
set(slow_e2e diverge_test)
# Those of a minute and more begin first, so that none of them is left alone at the end.
set(long_e2e stop_now_test emulated_cuda_test emulated_bf16_test tutorial_test bundle_test launch_test resume_test
    external_test kill_test)
if(TARGET orrery)
  if(NOT TARGET orrery-emulated)
    list(FILTER e2e_sources EXCLUDE REGEX "/emulated_(cuda|bf16)_test\\.py$")
  endif()
  foreach(script ${e2e_sources})
    get_filename_component(stem ${script} NAME_WE)
    add_test(NAME e2e.${stem} COMMAND ${Python3_EXECUTABLE} ${script} -v)
    set(labels e2e)
    if(stem IN_LIST slow_e2e)
      list(APPEND labels slow)
    endif()
    set(cost 10)
    if(stem IN_LIST long_e2e)
      set(cost 100)
    endif()
    set_tests_properties(e2e.${stem} PROPERTIES LABELS "${labels}" TIMEOUT 900 PROCESSORS 2 COST ${cost}
      SKIP_REGULAR_EXPRESSION "^SKIP ALL"
      ENVIRONMENT "ORRERY_BIN=$<TARGET_FILE:orrery>;ORRERY_SOURCE_DIR=${CMAKE_SOURCE_DIR}")
  endforeach()
endif()

# Exit code 77 and a reason where the cross compiler, qemu or Highway for arm64 is absent.
add_test(NAME slow.aarch64 COMMAND ${CMAKE_SOURCE_DIR}/tools/aarch64_tests.sh)
set_tests_properties(slow.aarch64 PROPERTIES LABELS slow TIMEOUT 3000 PROCESSORS 4 SKIP_RETURN_CODE 77)

# Builds with nvcc alone where that is, and runs where a device of compute capability 9.0 is.
add_test(NAME gpu.selftest COMMAND ${CMAKE_SOURCE_DIR}/tests/gpu/run_selftest.sh ${CMAKE_BINARY_DIR}/gpu)
set_tests_properties(gpu.selftest PROPERTIES LABELS gpu TIMEOUT 600 SKIP_RETURN_CODE 77)
# The ops of the CUDA backend against the CPU's.
add_test(NAME gpu.ops COMMAND ${CMAKE_SOURCE_DIR}/tests/gpu/run_ops_check.sh ${CMAKE_BINARY_DIR}/gpu_ops)
set_tests_properties(gpu.ops PROPERTIES LABELS gpu TIMEOUT 3000 SKIP_RETURN_CODE 77)

# The CUDA backend in the emulator: what it finds, the ops against the CPU's, and the suites of the
# folders that work on a device.
if(TARGET orrery-emulated)
  orrery_emulated_objects(emulator_faults tests/gpu/emulator/faults.cu tests/gpu/emulator/fragments.cu)
  add_executable(test_emulator tests/gpu/emulator/faults_test.cc tests/gpu/emulator/tensor_core_test.cc
                 tests/gpu/emulator/uploads_test.cc)
  target_include_directories(test_emulator PRIVATE tests/gpu/emulator)
  target_link_libraries(test_emulator PRIVATE orrery_kernels orrery_test_support GTest::gtest_main)
  orrery_link_emulated(test_emulator $<TARGET_OBJECTS:emulator_faults>)
  gtest_discover_tests(test_emulator TEST_PREFIX emulator. PROPERTIES LABELS unit
                       DISCOVERY_TIMEOUT 60 DISCOVERY_MODE PRE_TEST)

  add_executable(ops_check_emulated tests/gpu/ops/ops_check.cc)
  target_include_directories(ops_check_emulated PRIVATE tests/gpu/emulator ${CMAKE_SOURCE_DIR})
  target_compile_definitions(ops_check_emulated PRIVATE ORRERY_CUDA ORRERY_EMULATED)
  target_link_libraries(ops_check_emulated PRIVATE orrery_kernels)
  target_compile_options(ops_check_emulated PRIVATE -Wall -Wextra -Wshadow -Wno-missing-field-initializers -ffp-contract=off)
  orrery_link_emulated(ops_check_emulated)
  foreach(stage products rows flat vocabulary kv attention_forward attention_forward_bf16 attention_backward attention_backward_bf16
          sampling token_losses
          large_products large_bf16_products large_rows large_vocabulary large_attention
          large_bf16_attention large_sampling)
    add_test(NAME emulated.ops.${stage} COMMAND ops_check_emulated ${stage})
    set_tests_properties(emulated.ops.${stage} PROPERTIES LABELS unit-emulated TIMEOUT 900)
  endforeach()

  foreach(folder models rollout learners)
    add_executable(test_${folder}_emulated $<TARGET_OBJECTS:test_${folder}>)
    target_link_libraries(test_${folder}_emulated PRIVATE orrery_${folder} orrery_test_support GTest::gtest_main)
    orrery_link_emulated(test_${folder}_emulated)
    set_target_properties(test_${folder}_emulated PROPERTIES LINKER_LANGUAGE CXX)
    add_dependencies(unit_tests test_${folder}_emulated)
    set(label slow)  # minutes
    if(folder STREQUAL "models")
      set(label unit-emulated)
    endif()
    add_test(NAME emulated.${folder} COMMAND test_${folder}_emulated)
    set_tests_properties(emulated.${folder} PROPERTIES LABELS ${label} TIMEOUT 3000
                         ENVIRONMENT ORRERY_TEST_DEVICE=cuda)
  endforeach()
  add_dependencies(unit_tests test_emulator ops_check_emulated)
endif()

if(ORRERY_FUZZ)
  add_custom_target(fuzz_targets)
  file(GLOB fuzz_sources CONFIGURE_DEPENDS tests/fuzz/*_fuzz.cc)
  foreach(source ${fuzz_sources})
    get_filename_component(stem ${source} NAME_WE)
    add_executable(${stem} EXCLUDE_FROM_ALL ${source})
    target_link_libraries(${stem} PRIVATE orrery_experiments orrery_flags)
    target_compile_options(${stem} PRIVATE -fsanitize=fuzzer-no-link)
    target_link_options(${stem} PRIVATE -fsanitize=fuzzer)
    set_target_properties(${stem} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
    add_dependencies(fuzz_targets ${stem})
  endforeach()
endif()
