# SPDX-License-Identifier: Apache-2.0
# weft_with_cublaslt(target): the target measures cuBLASLt too, where the toolkit has it.
function(weft_with_cublaslt target)
  set(toolkit ${WEFT_CUDA_TOOLKIT})
  find_path(WEFT_CUBLASLT_INCLUDE cublasLt.h HINTS ${toolkit}/include)
  find_library(WEFT_CUBLASLT cublasLt HINTS ${toolkit}/lib64 ${toolkit}/lib)
  if(WEFT_CUBLASLT_INCLUDE AND WEFT_CUBLASLT)
    target_include_directories(${target} SYSTEM PRIVATE ${WEFT_CUBLASLT_INCLUDE})
    target_compile_definitions(${target} PRIVATE WEFT_WITH_CUBLASLT)
    target_link_libraries(${target} PRIVATE ${WEFT_CUBLASLT})
  endif()
endfunction()
