# SPDX-License-Identifier: Apache-2.0
# The AF_XDP driver's surroundings: xdp_filter.bpf.c compiled for the kernel by clang, whatever
# compiler the rest is built with, and embedded into the library weft_xdp. -g: the map's description
# is BTF, which comes out of the debug information.
if(NOT TARGET weft_xdp)
  weft_system(bpf libbpf libbpf-dev)
  find_program(WEFT_BPF_CLANG NAMES clang clang-19 clang-16 clang-15 clang-14)
  if(NOT WEFT_BPF_CLANG)
    message(FATAL_ERROR "clang not found. Run scripts/setup, or: apt-get install clang")
  endif()
  set(xdp_source ${PROJECT_SOURCE_DIR}/dataplane/nic/xdp_filter.bpf.c)
  set(xdp_object ${CMAKE_CURRENT_BINARY_DIR}/xdp_filter.bpf.o)
  add_custom_command(OUTPUT ${xdp_object}
    COMMAND ${WEFT_BPF_CLANG} --target=bpf -mcpu=v2 -O2 -g -Wall -Wextra -Werror
      -ffile-prefix-map=${PROJECT_SOURCE_DIR}=. -fdebug-compilation-dir=.
      -I/usr/include/${CMAKE_LIBRARY_ARCHITECTURE} -c ${xdp_source} -o ${xdp_object}
    DEPENDS ${xdp_source} COMMENT "Compiling the XDP filter for the kernel" VERBATIM)
  add_custom_target(weft_xdp_filter DEPENDS ${xdp_object})
  weft_library(weft_xdp
    SOURCES ${PROJECT_SOURCE_DIR}/dataplane/nic/xdp.c ${PROJECT_SOURCE_DIR}/dataplane/nic/sockets.c
    LIBS weft_schemas PRIVATE_LIBS weft::bpf)
  add_dependencies(weft_xdp weft_xdp_filter)
  target_compile_definitions(weft_xdp PRIVATE XDP_FILTER_OBJECT="${xdp_object}")
  set_source_files_properties(${PROJECT_SOURCE_DIR}/dataplane/nic/xdp.c
    TARGET_DIRECTORY weft_xdp PROPERTIES OBJECT_DEPENDS ${xdp_object})
endif()
