// Every size and index is checked before anything uses it: a wrong batch is an exception, never an overread.
#include <climits>
#include <cmath>
#include <stdexcept>
#include <string>

#include "model.h"

namespace inferd {

namespace {

constexpr float kLargest = 3.4e38f;

void require(bool ok, const char* what) {
    if (!ok) throw std::invalid_argument(std::string("step: ") + what);
}

void check_ids(std::span<const int32_t> ids, int low, int limit, const char* what) {
    for (int32_t id : ids) require(id >= low && id < limit, what);
}

// Values of one sampling field; NaN is outside every range.
void check_range(std::span<const float> values, float low, float high, const char* what) {
    for (float value : values) require(value >= low && value <= high, what);
}

void check_starts(std::span<const int32_t> starts, size_t num_rows, size_t total, const char* what) {
    require(starts.size() == num_rows + 1 && starts[0] == 0 && (size_t)starts[num_rows] == total, what);
    for (size_t i = 0; i < num_rows; i++) require(starts[i] <= starts[i + 1], what);
}

void require_limit(bool ok, const char* what) {
    if (!ok) throw std::invalid_argument(std::string("native executor: ") + what);
}

// Values and bytes of one block of a GGUF type; {0, 0} = unknown.
std::pair<int, int> block_of(int type) {
    switch (type) {
        case 0: return {1, 4};
        case 1: case 30: return {1, 2};
        case 2: return {32, 18};
        case 3: return {32, 20};
        case 6: return {32, 22};
        case 7: return {32, 24};
        case 8: return {32, 34};
        case 10: return {256, 84};
        case 11: return {256, 110};
        case 12: return {256, 144};
        case 13: return {256, 176};
        case 14: return {256, 210};
    }
    return {0, 0};
}

}  // namespace

void check_limits(const ModelSpec& spec, const Limits& limits) {
    require_limit(limits.num_blocks >= 1, "num_blocks must be at least 1");
    require_limit(limits.block_size >= 16 && limits.block_size % 16 == 0 && kAttendSplit % limits.block_size == 0,
                  "block_size must be 16, 32, 64, 128 or 256");
    require_limit(limits.max_num_batched_tokens >= 1, "max_num_batched_tokens must be at least 1");
    require_limit(limits.max_num_seqs >= 1, "max_num_seqs must be at least 1");
    require_limit(limits.max_model_len >= 1, "max_model_len must be at least 1");
    require_limit(limits.kv_type == KvType::bf16 || limits.kv_type == KvType::int8, "kv_type must be 0 (bf16) or 1 (int8)");
    require_limit(limits.num_threads >= 1 && limits.num_threads <= 1024, "num_threads must be 1 .. 1024");
    require_limit(spec.vocab_size >= 1 && spec.hidden_size >= 1 && spec.ffn_size >= 1, "sizes must be at least 1");
    require_limit(spec.num_kv_heads >= 1 && spec.num_heads >= 1 && spec.num_heads % spec.num_kv_heads == 0,
                  "num_heads must be a multiple of num_kv_heads");
    require_limit(spec.head_dim >= 16 && spec.head_dim % 16 == 0 && spec.head_dim <= kMaxHeadDim,
                  "head_dim must be a multiple of 16, at most 512");
    // a row of qkv or of gate and up is indexed with int
    require_limit((int64_t)(spec.num_heads + 2 * (int64_t)spec.num_kv_heads) * spec.head_dim <= INT_MAX / 64 &&
                      spec.ffn_size <= INT_MAX / 64 && spec.hidden_size <= INT_MAX / 64,
                  "hidden, ffn and qkv sizes must be below 2^25");
    require_limit(!spec.layers.empty(), "a model needs layers");
    for (const LayerSpec& layer : spec.layers) {
        require_limit(layer.window >= 0, "window must not be negative");
        require_limit(layer.rope >= 0 && layer.rope < (int)spec.ropes.size(), "a layer names a rope that is not there");
    }
    for (const RopeSpec& rope : spec.ropes)
        require_limit(rope.dims >= 2 && rope.dims % 2 == 0 && rope.dims <= spec.head_dim &&
                          rope.inv_freq.size() == (size_t)rope.dims / 2,
                      "rope dims must be even, at most head_dim, with dims / 2 frequencies");
}

void check_rows(const std::string& name, int type, size_t row_bytes, int num_cols) {
    const auto [values, bytes] = block_of(type);
    if (values == 0) throw std::invalid_argument(name + ": the native executor does not know tensor type " + std::to_string(type));
    if (num_cols % values || row_bytes != (size_t)num_cols / values * bytes)
        throw std::invalid_argument(name + ": rows of " + std::to_string(row_bytes) + " bytes do not hold " +
                                    std::to_string(num_cols) + " values of tensor type " + std::to_string(type));
}

void Model::check(const Batch& batch, const StepOutput& out) const {
    const size_t num_tokens = batch.token_ids.size(), num_seqs = batch.context_lens.size();
    const size_t num_rows = batch.logit_rows.size();
    require(final_norm_, "the model is not finished");
    require(num_tokens > 0 && num_tokens <= (size_t)limits_.max_num_batched_tokens, "token_ids: too few or too many");
    require(num_seqs <= (size_t)limits_.max_num_seqs, "context_lens: more sequences than max_num_seqs");
    check_ids(batch.token_ids, 0, spec_.vocab_size, "token_ids: outside the vocabulary");
    check_starts(batch.query_starts, num_seqs, num_tokens, "query_starts: not a partition of token_ids");
    require(batch.max_num_blocks >= 0 && batch.block_tables.size() == num_seqs * (size_t)batch.max_num_blocks, "block_tables: wrong shape");
    check_ids(batch.block_tables, 0, limits_.num_blocks, "block_tables: no such block");
    require(batch.block_copies.size() % 2 == 0, "block_copies: wrong shape");
    check_ids(batch.block_copies, 0, limits_.num_blocks, "block_copies: no such block");
    for (size_t s = 0; s < num_seqs; s++) {
        const int64_t length = (int64_t)batch.context_lens[s] + batch.query_starts[s + 1] - batch.query_starts[s];
        require(batch.context_lens[s] >= 0 && batch.query_starts[s] < batch.query_starts[s + 1],
                "context_lens: negative, or a sequence without new tokens");
        require(length <= limits_.max_model_len, "context_lens: longer than max_model_len");
        require(length <= (int64_t)batch.max_num_blocks * limits_.block_size, "block_tables: too short");
    }
    require(batch.adapter_ids.size() == num_seqs, "adapter_ids: not one entry per sequence");
    check_ids(batch.adapter_ids, -1, INT_MAX, "adapter_ids: must be -1 or the id of an adapter");
    check_ids(batch.logit_rows, 0, (int)num_tokens, "logit_rows: no such row");
    require(out.token_ids.size() == num_rows && out.logprobs.size() == num_rows && out.ranks.size() == num_rows &&
                out.top_ids.size() == num_rows * out.num_top && out.top_logprobs.size() == num_rows * out.num_top &&
                (out.logits.empty() || out.logits.size() == num_rows * spec_.vocab_size),
            "output: wrong shape");
    check_sampling(batch);
}

void Model::check_sampling(const Batch& batch) const {
    const size_t rows = batch.logit_rows.size(), words = (spec_.vocab_size + 31) / 32;
    auto one_per_row = [&](size_t size, const char* name) {
        if (size != rows) throw std::invalid_argument("step: " + std::string(name) + ": not one entry per logits row");
    };
    one_per_row(batch.temperature.size(), "temperature");
    one_per_row(batch.top_k.size(), "top_k");
    one_per_row(batch.top_p.size(), "top_p");
    one_per_row(batch.min_p.size(), "min_p");
    one_per_row(batch.typical_p.size(), "typical_p");
    one_per_row(batch.seed.size(), "seed");
    one_per_row(batch.draw_index.size(), "draw_index");
    one_per_row(batch.repetition_penalty.size(), "repetition_penalty");
    one_per_row(batch.frequency_penalty.size(), "frequency_penalty");
    one_per_row(batch.presence_penalty.size(), "presence_penalty");
    one_per_row(batch.target.size(), "target");
    one_per_row(batch.num_logprobs.size(), "num_logprobs");
    one_per_row(batch.mask_index.size(), "mask_index");
    check_range(batch.temperature, 0, kLargest, "temperature: must be finite and not negative");
    check_range(batch.top_p, 0, 1, "top_p: must be 0 .. 1");
    check_range(batch.min_p, 0, 1, "min_p: must be 0 .. 1");
    check_range(batch.typical_p, 0, 1, "typical_p: must be 0 .. 1");
    check_range(batch.repetition_penalty, 1e-6f, kLargest, "repetition_penalty: must be positive and finite");
    check_range(batch.frequency_penalty, -kLargest, kLargest, "frequency_penalty: must be finite");
    check_range(batch.presence_penalty, -kLargest, kLargest, "presence_penalty: must be finite");
    for (float value : batch.bias_values) require(!std::isnan(value), "bias_values: NaN");
    check_ids(batch.num_logprobs, -1, spec_.vocab_size + 1, "num_logprobs: must be -1 .. vocabulary size");
    check_ids(batch.target, -1, spec_.vocab_size, "target: outside the vocabulary");
    check_starts(batch.penalty_starts, rows, batch.penalty_ids.size(), "penalty_starts: not a partition");
    require(batch.penalty_counts.size() == batch.penalty_ids.size(), "penalty_counts: wrong shape");
    check_ids(batch.penalty_ids, 0, spec_.vocab_size, "penalty_ids: outside the vocabulary");
    check_starts(batch.bias_starts, rows, batch.bias_ids.size(), "bias_starts: not a partition");
    require(batch.bias_values.size() == batch.bias_ids.size(), "bias_values: wrong shape");
    check_ids(batch.bias_ids, 0, spec_.vocab_size, "bias_ids: outside the vocabulary");
    require(batch.allowed_masks.size() % words == 0, "allowed_masks: wrong shape");
    check_ids(batch.mask_index, -1, (int)(batch.allowed_masks.size() / words), "mask_index: no such mask");
}

}  // namespace inferd
