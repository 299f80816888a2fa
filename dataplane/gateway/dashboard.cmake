# SPDX-License-Identifier: Apache-2.0
# The dashboard's files as a C table: weft_dashboard_table (the name of the generated source).
# Coastlines are embedded when scripts/coast-fetch has been run before; see its README.
set(pages ${PROJECT_SOURCE_DIR}/controlplane/dashboard)
set(weft_dashboard_table ${CMAKE_CURRENT_BINARY_DIR}/dashboard_files.c)
file(GLOB weft_dashboard_pages CONFIGURE_DEPENDS
  ${pages}/*.html ${pages}/*.js ${pages}/*.css ${pages}/*.svg)
if(DEFINED ENV{XDG_CACHE_HOME})
  set(coast_default $ENV{XDG_CACHE_HOME}/weft/coast.json)
else()
  set(coast_default $ENV{HOME}/.cache/weft/coast.json)
endif()
set(WEFT_COAST ${coast_default} CACHE FILEPATH "Coastlines of the dashboard's map, if it is there")
if(EXISTS ${WEFT_COAST})
  list(APPEND weft_dashboard_pages ${WEFT_COAST})
endif()
add_custom_command(OUTPUT ${weft_dashboard_table}
  COMMAND ${CMAKE_COMMAND} -DOUT=${weft_dashboard_table} "-DFILES=${weft_dashboard_pages}"
    -P ${pages}/embed.cmake
  DEPENDS ${weft_dashboard_pages} ${pages}/embed.cmake
  COMMENT "Embedding the dashboard" VERBATIM)
