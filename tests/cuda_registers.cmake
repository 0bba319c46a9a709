# What the assembler says of the kernels for Hopper; needs nvcc, no GPU.
if(NOT ANNULUS_WITH_CUDA)
  add_test(NAME cuda.registers_need_nvcc COMMAND ${CMAKE_COMMAND} -E echo "skipped: CUDA is not built here: ${ANNULUS_CUDA_MISSING}")
  set_tests_properties(cuda.registers_need_nvcc PROPERTIES LABELS emulated SKIP_REGULAR_EXPRESSION "^skipped: ")
  return()
endif()
add_test(NAME cuda.kernels_for_hopper_neither_spill_nor_wait
         COMMAND ${CMAKE_COMMAND} -DNVCC=${CMAKE_CUDA_COMPILER} -DROOT=${PROJECT_SOURCE_DIR}
                 -DOUTPUT=${CMAKE_CURRENT_BINARY_DIR}/wgmma.cubin -P ${CMAKE_CURRENT_SOURCE_DIR}/kernel/cuda/registers.cmake)
set_tests_properties(cuda.kernels_for_hopper_neither_spill_nor_wait PROPERTIES LABELS emulated TIMEOUT 300)
