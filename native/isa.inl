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
#include "encoder_rows.inl"

template <class P>
static constexpr KernelTable table() {
    return {INFERD_ISA_NAME, quantize_rows, gemm_quant, gemm_float, rms_norm, add_rows, scale_row, gated,
            rope, {{store_kv, attend<P>}, {store_kv_int8, attend_int8}}, merge, soft_cap_all, argmax, sum_exp,
            lora_shrink, lora_expand, {layer_norm, add_and_activate, round_to_bf16, gemm_pairs<P>}};
}

extern const KernelTable kTable;
const KernelTable kTable = table<PairsFma>();
#if defined(__AVX512F__)
extern const KernelTable kBf16Table;
const KernelTable kBf16Table = table<PairsBf16>();
#endif

}  // namespace inferd::INFERD_ISA_NS
