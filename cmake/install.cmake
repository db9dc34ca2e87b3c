# What "make install" puts under the prefix. The program finds lib/headrace by its run path, so the
# tree may be moved as a whole.
install(TARGETS headrace RUNTIME DESTINATION bin)

# Libraries that the system does not have: ONNX Runtime, and yyjson where it is set-up's.
file(GLOB onnxruntime ${HR_ORT_LIBDIR}/libonnxruntime.so.*)
install(FILES ${onnxruntime} ${HR_BUNDLED} DESTINATION lib/headrace)

set(models share/headrace/models)
if(EXISTS ${CMAKE_SOURCE_DIR}/examples/models)
    install(DIRECTORY examples/models/ DESTINATION ${models}
        PATTERN train EXCLUDE PATTERN __pycache__ EXCLUDE)
endif()
if(EXISTS ${HR_DEPS}/models)
    install(DIRECTORY ${HR_DEPS}/models/ DESTINATION ${models})
endif()

# The program writes its own shell completions.
foreach(shell_path bash:share/bash-completion/completions/headrace
        zsh:share/zsh/site-functions/_headrace fish:share/fish/vendor_completions.d/headrace.fish)
    string(REPLACE ":" ";" parts ${shell_path})
    list(GET parts 0 shell)
    list(GET parts 1 path)
    get_filename_component(name ${path} NAME)
    get_filename_component(folder ${path} DIRECTORY)
    install(CODE "execute_process(COMMAND ${CMAKE_BINARY_DIR}/headrace completion ${shell}
        OUTPUT_FILE ${CMAKE_BINARY_DIR}/completion.${shell} COMMAND_ERROR_IS_FATAL ANY)")
    install(FILES ${CMAKE_BINARY_DIR}/completion.${shell} DESTINATION ${folder} RENAME ${name})
endforeach()

install(FILES LICENSE THIRD_PARTY_NOTICES DESTINATION share/doc/headrace)
if(EXISTS ${HR_DEPS}/licenses)
    install(DIRECTORY ${HR_DEPS}/licenses/ DESTINATION share/doc/headrace/licenses)
endif()
if(EXISTS ${HR_DEPS}/onnxruntime/LICENSE)
    install(FILES ${HR_DEPS}/onnxruntime/LICENSE
        DESTINATION share/doc/headrace/licenses RENAME onnxruntime)
    install(FILES ${HR_DEPS}/onnxruntime/ThirdPartyNotices.txt
        DESTINATION share/doc/headrace/licenses RENAME onnxruntime-third-party)
endif()
