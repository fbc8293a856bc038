#define INFERD_ISA_NS baseline
#define INFERD_ISA_NAME "baseline"
#include "isa.inl"
