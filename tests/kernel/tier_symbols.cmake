# cmake -DLIBRARY=libannulus_core.a -DNM=nm -P tier_symbols.cmake
#
# A tier's object file may define nothing but its table: were it to define a weak symbol (an inline function of the standard
# library, say), the linker could keep that copy for the whole program, and it would fault on a processor without the tier.
execute_process(COMMAND ${NM} -A -C --defined-only ${LIBRARY} OUTPUT_VARIABLE listing RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "nm failed on ${LIBRARY}")
endif()
string(REGEX MATCHALL "[^\n]*(portable|avx2|avx512|avx512_bf16|avx2_narrow|avx512_narrow|avx512_bf16_narrow|amx_bf16|amx_forward)\\.cpp\\.o:[^\n]*" lines "${listing}")
set(tables 0)
foreach(line IN LISTS lines)
  if(line MATCHES " [A-Z] annulus::cpu::((portable|avx2|avx512|avx512_bf16|amx_bf16|amx_split|amx_fast)_tier|(avx2|avx512|avx512_bf16)_narrow|amx_forward)$")
    math(EXPR tables "${tables} + 1")
  elseif(line MATCHES " [A-Zuvw] " AND NOT line MATCHES " (__asan|__odr_asan|DW\\.ref|_GLOBAL_|__tsan|__ubsan)")
    message(SEND_ERROR "a tier defines a symbol that others could link to: ${line}")
  endif()
endforeach()
if(NOT tables EQUAL 11)
  message(FATAL_ERROR "expected the tables of 7 tiers, 3 narrow ones, and that of forward with tiles, in ${LIBRARY}, found ${tables}")
endif()
