# SPDX-License-Identifier: Apache-2.0
# cmake -DOUT=table.c -DFILES="a.html;b.js" -P embed.cmake
# Writes the files as a C table for dataplane/gateway/dashboard.h: name, type, tag, bytes. Together
# they may not be longer than SIZE_MAX bytes; coast.json is the largest and may be missing.
set(SIZE_MAX 153600)
set(total 0)
set(arrays "")
set(rows "")
set(found FALSE)
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME)
  if(name STREQUAL "coast.json")
    set(found TRUE)
  endif()
endforeach()
if(NOT found)
  get_filename_component(folder ${OUT} DIRECTORY)
  file(WRITE ${folder}/coast.json "[]\n")
  list(APPEND FILES ${folder}/coast.json)
endif()

set(at 0)
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME)
  if(name MATCHES "\\.html$")
    set(type "text/html; charset=utf-8")
  elseif(name MATCHES "\\.js$")
    set(type "text/javascript; charset=utf-8")
  elseif(name MATCHES "\\.css$")
    set(type "text/css; charset=utf-8")
  elseif(name MATCHES "\\.svg$")
    set(type "image/svg+xml")
  else()
    set(type "application/json")
  endif()
  file(SIZE ${file} size)
  file(SHA256 ${file} hash)
  string(SUBSTRING ${hash} 0 32 hash)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND arrays "static const uint8_t file_${at}[] = {${bytes}};\n")
  string(APPEND rows "    {\"${name}\", \"${type}\", \"\\\"${hash}\\\"\", file_${at}, ${size}},\n")
  math(EXPR total "${total} + ${size}")
  math(EXPR at "${at} + 1")
endforeach()
if(total GREATER SIZE_MAX)
  message(FATAL_ERROR "the dashboard has ${total} bytes, at most ${SIZE_MAX}")
endif()
file(WRITE ${OUT} "/* Generated from controlplane/dashboard by embed.cmake. */
#include \"dataplane/gateway/dashboard.h\"

${arrays}
const struct dashboard_file dashboard_files[] = {
${rows}};
const size_t dashboard_file_count = ${at};
")
