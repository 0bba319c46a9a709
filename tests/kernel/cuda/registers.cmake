# cmake -DNVCC=... -DROOT=... -P registers.cmake: compiles the kernels for Hopper and reads what the assembler says. Spills and
# waits that it puts between products (C75xx) cost more than any other mistake, and nothing else shows them without a GPU.
execute_process(COMMAND ${NVCC} -O3 -std=c++20 --expt-relaxed-constexpr --generate-code=arch=compute_90a,code=sm_90a -Xptxas=-v
                        -I${ROOT}/include -I${ROOT}/src -cubin -o ${OUTPUT} ${ROOT}/src/kernel/cuda/wgmma.cu
                RESULT_VARIABLE code OUTPUT_VARIABLE said ERROR_VARIABLE said)
if(code)
  message(FATAL_ERROR "it does not compile:\n${said}")
endif()
string(REGEX MATCHALL "Used [0-9]+ registers" kernels "${said}")
string(REGEX MATCHALL "[^\n]*(\\(C75[0-9][0-9]\\)|[1-9][0-9]* bytes spill)[^\n]*" complaints "${said}")
list(LENGTH kernels count)
if(count EQUAL 0 OR complaints)
  list(JOIN complaints "\n" complaints)
  message(FATAL_ERROR "${count} kernels; the assembler complains:\n${complaints}")
endif()
message(STATUS "${count} kernels, no spills, no waits between products")
