// Every index of a batch is checked before a step touches anything: a wrong batch is an exception, never an overread.
#include <stdexcept>
#include <string>

#include "model.h"

namespace inferd {

namespace {

void require(bool ok, const char* what) {
    if (!ok) throw std::invalid_argument(std::string("step: ") + what);
}

void check_ids(std::span<const int32_t> ids, int low, int limit, const char* what) {
    for (int32_t id : ids) require(id >= low && id < limit, what);
}

void check_starts(std::span<const int32_t> starts, size_t num_rows, size_t total, const char* what) {
    require(starts.size() == num_rows + 1 && starts[0] == 0 && (size_t)starts[num_rows] == total, what);
    for (size_t i = 0; i < num_rows; i++) require(starts[i] <= starts[i + 1], what);
}

}  // namespace

void Model::check(const Batch& batch, const StepOutput& out) const {
    const size_t num_tokens = batch.token_ids.size(), num_seqs = batch.context_lens.size();
    const size_t num_rows = batch.logit_rows.size();
    require(num_tokens > 0 && num_tokens <= (size_t)limits_.max_num_batched_tokens, "token_ids: too few or too many");
    require(num_seqs <= (size_t)limits_.max_num_seqs, "context_lens: more sequences than max_num_seqs");
    check_ids(batch.token_ids, 0, spec_.vocab_size, "token_ids: outside the vocabulary");
    check_starts(batch.query_starts, num_seqs, num_tokens, "query_starts: not a partition of token_ids");
    require(batch.block_tables.size() == num_seqs * batch.max_num_blocks, "block_tables: wrong shape");
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
    check_ids(batch.logit_rows, 0, (int)num_tokens, "logit_rows: no such row");
    require(out.token_ids.size() == num_rows && out.logprobs.size() == num_rows && out.ranks.size() == num_rows &&
                out.top_ids.size() == num_rows * out.num_top && out.top_logprobs.size() == num_rows * out.num_top &&
                (out.logits.empty() || out.logits.size() == num_rows * spec_.vocab_size),
            "output: wrong shape");
    check_sampling(batch);
}

void Model::check_sampling(const Batch& batch) const {
    const size_t rows = batch.logit_rows.size(), words = (spec_.vocab_size + 31) / 32;
    require(batch.temperature.size() == rows && batch.top_p.size() == rows && batch.min_p.size() == rows &&
                batch.typical_p.size() == rows && batch.top_k.size() == rows && batch.seed.size() == rows &&
                batch.draw_index.size() == rows && batch.repetition_penalty.size() == rows &&
                batch.frequency_penalty.size() == rows && batch.presence_penalty.size() == rows &&
                batch.target.size() == rows && batch.num_logprobs.size() == rows && batch.mask_index.size() == rows,
            "sampling: an array has not one entry per logits row");
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
