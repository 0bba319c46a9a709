# Looks for nvcc and NCCL, in trees like /usr/local/cuda and in those of Python's nvidia-* packages (bin, include, lib beside
# one another; libraries with their version in the name). Sets ANNULUS_WITH_CUDA, ANNULUS_CUDA_MISSING (why not) and, when found,
# ANNULUS_NCCL_INCLUDE_DIR and ANNULUS_NCCL_LIBRARY.
set(ANNULUS_WITH_CUDA FALSE)
set(ANNULUS_CUDA_MISSING "switched off (ANNULUS_CUDA)")
if(ANNULUS_CUDA STREQUAL "OFF" OR (ANNULUS_SANITIZE AND NOT ANNULUS_CUDA STREQUAL "ON"))
  return()  # sanitizers do not see into GPU code, and disturb its driver
endif()

file(GLOB cuda_trees /usr/local/cuda /usr/local/cuda-* /opt/cuda
     $ENV{VIRTUAL_ENV}/lib/python3*/site-packages/nvidia/* /usr/local/lib/python3*/*-packages/nvidia/*
     /usr/lib/python3*/*-packages/nvidia/*)
list(PREPEND cuda_trees $ENV{CUDA_HOME} $ENV{CUDA_PATH})
find_program(ANNULUS_NVCC nvcc HINTS ${cuda_trees} PATH_SUFFIXES bin)
if(ANNULUS_NVCC)
  # 8.0 with its portable code for all later GPUs, and 9.0 with what only it has
  set(CMAKE_CUDA_ARCHITECTURES "80;90a" CACHE STRING "GPUs to compile for")
  set(CMAKE_CUDA_COMPILER ${ANNULUS_NVCC})
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit)
  endif()
endif()
if(NOT ANNULUS_NVCC)
  set(ANNULUS_CUDA_MISSING "there is no nvcc")
elseif(NOT CMAKE_CUDA_COMPILER)
  set(ANNULUS_CUDA_MISSING "${ANNULUS_NVCC} does not work with this compiler")
elseif(NOT TARGET CUDA::cudart_static)
  set(ANNULUS_CUDA_MISSING "the static CUDA runtime is not beside ${ANNULUS_NVCC}")
elseif(CUDAToolkit_VERSION VERSION_LESS 12.0)
  set(ANNULUS_CUDA_MISSING "CUDA ${CUDAToolkit_VERSION} is older than 12.0")
else()
  set(ANNULUS_WITH_CUDA TRUE)
  set(ANNULUS_CUDA_MISSING "")
  find_path(ANNULUS_NCCL_INCLUDE_DIR nccl.h HINTS ${cuda_trees} PATH_SUFFIXES include)
  find_library(ANNULUS_NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${cuda_trees} PATH_SUFFIXES lib lib64)
endif()
if(ANNULUS_CUDA STREQUAL "ON" AND NOT ANNULUS_WITH_CUDA)
  message(FATAL_ERROR "ANNULUS_CUDA is ON, but ${ANNULUS_CUDA_MISSING}")
endif()

# annulus_cuda_library(NAME ROOM_OR_FILE...): as annulus_library, from the .cu files too. The runtime is linked in, and the
# driver is looked for when the program runs, so one binary serves machines with and without a GPU.
function(annulus_cuda_library name)
  set(sources)
  foreach(part ${ARGN})
    if(part MATCHES "\\.(cpp|cu)$")
      list(APPEND sources ${part})
    else()
      file(GLOB room CONFIGURE_DEPENDS ${part}/*.cpp ${part}/*.cu)
      list(APPEND sources ${room})
    endif()
  endforeach()
  annulus_library(${name} ${sources})
  # CMake 3.25 does not know C++20 for CUDA, hence by hand
  set(options -std=c++20 --expt-relaxed-constexpr -Xptxas=--warn-on-spills)
  if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 13.0 AND CUDAToolkit_VERSION VERSION_LESS 13.1)
    list(APPEND options -Xptxas=--warning-as-error)  # the compiler whose registers were looked at: a spill ends the build
  endif()
  target_compile_options(annulus_${name} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${options}>")
  target_link_libraries(annulus_${name} PRIVATE CUDA::cudart_static)
endfunction()
