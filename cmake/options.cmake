# Language, warnings, hardening, sanitizers, coverage. Every target of ours links hr_options.
include(CheckCCompilerFlag)
include(CheckPIESupported)
find_package(Threads REQUIRED)

option(HR_WERROR "Warnings are errors" ON)
option(HR_HARDEN "The hardening flags of the OpenSSF guide" ON)
option(HR_COVERAGE "Count executed lines (gcov)" OFF)
option(HR_FUZZ "Build fuzz/*.c with libFuzzer (needs clang)" OFF)
set(HR_SANITIZE "" CACHE STRING "Sanitizers: empty, 'address,undefined' or 'thread'")

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
check_pie_supported()

if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
# Checks stay on in release builds, so NDEBUG is never defined; -g costs nothing at run time.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-Og -g3")

add_library(hr_options INTERFACE)
# Defined empty, so that a file that says "#define _GNU_SOURCE" itself is no redefinition.
target_compile_definitions(hr_options INTERFACE _GNU_SOURCE= HR_VERSION="${HR_VERSION}")
target_compile_options(hr_options INTERFACE
    -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes -Wvla -Wformat=2
    # The same binary from any folder, and short paths in messages.
    -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)
if(HR_WERROR)
    target_compile_options(hr_options INTERFACE -Werror)
endif()

if(HR_SANITIZE)
    target_compile_options(hr_options INTERFACE
        -fsanitize=${HR_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    # The sanitizers' dlopen is called from their own library, which only sees our run path when
    # it is the old kind (RPATH, not RUNPATH).
    target_link_options(hr_options INTERFACE
        -fsanitize=${HR_SANITIZE} -Wl,--disable-new-dtags)
elseif(HR_HARDEN AND NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
    set(flags -fstack-protector-strong -fstack-clash-protection)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
        list(APPEND flags -fcf-protection=full)
    elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
        list(APPEND flags -mbranch-protection=standard)
    endif()
    foreach(flag IN LISTS flags)
        string(MAKE_C_IDENTIFIER "HR_HAVE${flag}" have)
        check_c_compiler_flag(${flag} ${have})
        if(${have})
            target_compile_options(hr_options INTERFACE ${flag})
        endif()
    endforeach()
    # Some distributions predefine the level; undefine first.
    target_compile_options(hr_options INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
    target_link_options(hr_options INTERFACE
        -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed)
endif()

if(HR_COVERAGE)
    target_compile_options(hr_options INTERFACE --coverage -fprofile-update=atomic)
    target_link_options(hr_options INTERFACE --coverage)
endif()
if(HR_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR "HR_FUZZ needs clang: tools/setup.sh --dev, then make fuzz")
    endif()
    target_compile_options(hr_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
