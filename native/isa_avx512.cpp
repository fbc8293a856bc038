#define INFERD_ISA_NS avx512
#define INFERD_ISA_NAME "avx512"
#include "isa.inl"
