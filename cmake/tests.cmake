# tests/unit/*.c and tests/fault/*.c: one cmocka program each, test_<stem>.
# fuzz/*.c: a libFuzzer program each with HR_FUZZ; otherwise the same function replays the files of
# fuzz/corpus/<stem>/ as a test.
# tests/*.c is support code that all of them share.
pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)

file(GLOB support_sources CONFIGURE_DEPENDS tests/*.c)
# A test that takes longer hangs. With a sanitizer all is slower, with others at work even more so.
set(HR_TEST_TIMEOUT 300)
if(HR_SANITIZE OR HR_COVERAGE)
    set(HR_TEST_TIMEOUT 1500)
endif()

add_library(hr_test_options INTERFACE)
target_include_directories(hr_test_options INTERFACE tests src)
target_compile_definitions(hr_test_options INTERFACE
    HR_SOURCE_DIR="${CMAKE_SOURCE_DIR}" HR_BINARY_DIR="${CMAKE_BINARY_DIR}")
target_link_libraries(hr_test_options INTERFACE hr_options ${HR_LIBRARIES} dep::libm)
if(support_sources)
    add_library(hr_test_support STATIC ${support_sources})
    target_link_libraries(hr_test_support PUBLIC hr_test_options)
    target_link_libraries(hr_test_support PUBLIC PkgConfig::CMOCKA)
endif()

# hr_program(<target> <folder under build/> <sources...>)
function(hr_program target folder)
    add_executable(${target} ${ARGN})
    target_link_libraries(${target} PRIVATE hr_test_options)
    set_target_properties(${target} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/${folder}
        BUILD_RPATH ${HR_ORT_LIBDIR})
endfunction()

function(hr_link_support target)
    if(TARGET hr_test_support)
        target_link_libraries(${target} PRIVATE hr_test_support)
    endif()
endfunction()

function(hr_tests folder label)
    file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.c)
    foreach(source IN LISTS sources)
        get_filename_component(stem ${source} NAME_WE)
        string(REGEX REPLACE "^test_" "" stem ${stem})
        hr_program(test_${stem} tests ${source})
        hr_link_support(test_${stem})
        target_link_libraries(test_${stem} PRIVATE PkgConfig::CMOCKA)
        add_test(NAME ${label}.${stem} COMMAND test_${stem}
            WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
        set_tests_properties(${label}.${stem} PROPERTIES LABELS ${label} TIMEOUT ${HR_TEST_TIMEOUT})
    endforeach()
endfunction()

if(CMOCKA_FOUND)
    hr_tests(tests/unit unit)
    hr_tests(tests/fault fault)
else()
    message(STATUS "cmocka not found: no unit tests")
endif()

file(GLOB fuzz_sources CONFIGURE_DEPENDS fuzz/*.c)
foreach(source IN LISTS fuzz_sources)
    get_filename_component(stem ${source} NAME_WE)
    string(REGEX REPLACE "^fuzz_" "" stem ${stem})
    if(HR_FUZZ)
        hr_program(fuzz_${stem} fuzz ${source})
        hr_link_support(fuzz_${stem})
        target_link_options(fuzz_${stem} PRIVATE -fsanitize=fuzzer)
    else()
        hr_program(fuzz_${stem} fuzz ${source} cmake/fuzz_replay.c)
        hr_link_support(fuzz_${stem})
        add_test(NAME fuzz.${stem} COMMAND fuzz_${stem} ${CMAKE_SOURCE_DIR}/fuzz/corpus/${stem})
        set_tests_properties(fuzz.${stem} PROPERTIES LABELS fuzz TIMEOUT ${HR_TEST_TIMEOUT})
    endif()
endforeach()

# The simulator, on seeds that once found something, and on some more. Fresh ones: tools/check.
if(TARGET headrace)
    add_test(NAME sim.seeds
        COMMAND headrace sim --faults --keep-going --seeds ${CMAKE_SOURCE_DIR}/tests/sim/seeds)
    add_test(NAME sim.calm COMMAND headrace sim --keep-going --seeds 1..10)
    set_tests_properties(sim.seeds sim.calm PROPERTIES LABELS sim TIMEOUT 600)
endif()

# bench/*.c: programs, built with the rest so that they don't rot, never run as tests.
file(GLOB bench_sources CONFIGURE_DEPENDS bench/*.c)
foreach(source IN LISTS bench_sources)
    get_filename_component(stem ${source} NAME_WE)
    string(REGEX REPLACE "^bench_" "" stem ${stem})
    hr_program(bench_${stem} bench ${source})
endforeach()

# Preloaded by the end-to-end tests, so none of our flags: weather, the n-th call that fails, and
# what a power cut undoes.
file(GLOB shim_sources CONFIGURE_DEPENDS tests/e2e/shim/*.c)
foreach(source IN LISTS shim_sources)
    get_filename_component(stem ${source} NAME_WE)
    add_library(e2e_${stem} MODULE ${source})
    set_target_properties(e2e_${stem} PROPERTIES OUTPUT_NAME ${stem} PREFIX ""
        LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    target_compile_options(e2e_${stem} PRIVATE -Wall -Wextra -Wshadow -Wconversion)
    target_link_libraries(e2e_${stem} PRIVATE dep::libdl)
endforeach()
