// The body of every isa_*.cpp: all kernels compiled once for one instruction set, and their table.
#include <immintrin.h>

#include "kernels.h"
#include "lora.h"

namespace inferd::INFERD_ISA_NS {

#include "vec.inl"
#include "gemm.inl"
#include "rows.inl"
#include "attention.inl"
#include "lora.inl"

static constexpr KernelTable table(decltype(KvKernels::attend) attend) {
    return {INFERD_ISA_NAME, quantize_rows, gemm_quant, gemm_float, rms_norm, add_rows, scale_row, gated,
            rope, {{store_kv, attend}, {store_kv_int8, attend_int8}}, merge, soft_cap_all, argmax, sum_exp,
            lora_shrink, lora_expand};
}

extern const KernelTable kTable;
const KernelTable kTable = table(attend<PairsFma>);
#if defined(__AVX512F__)
extern const KernelTable kBf16Table;
const KernelTable kBf16Table = table(attend<PairsBf16>);
#endif

}  // namespace inferd::INFERD_ISA_NS
