# What others wrote, as targets dep::*. tools/setup.sh installs all of it: from the system's
# packages, and into .deps/ what the system lacks. Headers count as system headers, so that our
# warnings are about our code.
set(HR_DEPS ${CMAKE_SOURCE_DIR}/.deps)
find_package(PkgConfig REQUIRED)

function(hr_missing what)
    message(FATAL_ERROR "${what} not found. Run tools/setup.sh (make does it for you).")
endfunction()

# hr_system(<target> <pkg-config modules...>)
function(hr_system target)
    pkg_check_modules(${target} IMPORTED_TARGET ${ARGN})
    if(NOT ${target}_FOUND)
        hr_missing("${ARGN}")
    endif()
    add_library(dep::${target} INTERFACE IMPORTED GLOBAL)
    target_link_libraries(dep::${target} INTERFACE PkgConfig::${target})
endfunction()

# hr_private(<target> <header> <pkg-config module>): the library of .deps/ when set-up put one
# there, the system's own otherwise. Shared ones are listed in HR_BUNDLED: they install with us.
set(HR_BUNDLED "")
function(hr_private target header module)
    foreach(kind IN ITEMS a so)
        set(library ${HR_DEPS}/lib/lib${target}.${kind})
        if(EXISTS ${library} AND EXISTS ${HR_DEPS}/include/${header})
            add_library(dep::${target} UNKNOWN IMPORTED GLOBAL)
            set_target_properties(dep::${target} PROPERTIES
                IMPORTED_LOCATION ${library}
                INTERFACE_INCLUDE_DIRECTORIES ${HR_DEPS}/include)
            if(kind STREQUAL so)
                file(GLOB files ${library}.*)
                set(HR_BUNDLED ${HR_BUNDLED} ${files} PARENT_SCOPE)
            endif()
            return()
        endif()
    endforeach()
    hr_system(${target} ${module})
endfunction()

hr_system(crypto libcrypto)
hr_system(uv libuv)
hr_system(curl libcurl)
hr_system(png libpng)
hr_system(sqlite sqlite3)
hr_private(yyjson yyjson.h yyjson)
hr_private(llhttp llhttp.h libllhttp)

# libcyaml and the libyaml under it, which some code calls itself.
hr_system(yaml libcyaml yaml-0.1)

# Header-only: its users define XXH_INLINE_ALL.
find_path(HR_XXHASH_INCLUDE xxhash.h)
if(NOT HR_XXHASH_INCLUDE)
    hr_missing("xxhash.h")
endif()
add_library(dep::xxhash INTERFACE IMPORTED GLOBAL)

# ONNX Runtime is opened at run time; the build needs its C header alone. HR_ORT_LIBDIR is where
# set-up put the library; it goes into the run path of what we build, never of what we install.
find_path(HR_ORT_INCLUDE onnxruntime_c_api.h
    PATHS ${HR_DEPS}/include/onnxruntime /usr/include/onnxruntime NO_DEFAULT_PATH)
if(NOT HR_ORT_INCLUDE)
    hr_missing("onnxruntime_c_api.h")
endif()
set(HR_ORT_LIBDIR ${HR_DEPS}/onnxruntime/lib)
add_library(dep::onnxruntime INTERFACE IMPORTED GLOBAL)
target_include_directories(dep::onnxruntime INTERFACE ${HR_ORT_INCLUDE})

add_library(dep::libm INTERFACE IMPORTED GLOBAL)
target_link_libraries(dep::libm INTERFACE m)
add_library(dep::libdl INTERFACE IMPORTED GLOBAL)
target_link_libraries(dep::libdl INTERFACE ${CMAKE_DL_LIBS})
