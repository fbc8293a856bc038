#define INFERD_ISA_NS avx2
#define INFERD_ISA_NAME "avx2"
#include "isa.inl"
