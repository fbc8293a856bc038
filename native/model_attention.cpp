// Attention of one step: which rows meet which keys, on which thread. The split of the work changes no bit: every row's
// keys are cut at absolute positions and merged in ascending order.
#include <algorithm>
#include <cmath>

#include "model_scratch.h"

namespace inferd {

void Model::plan_attention(const Batch& batch) {
    items_.clear();
    const int group = spec_.num_heads / spec_.num_kv_heads;
    const int heads_per_item = std::min(group, kMaxAttendRows), tokens_per_item = kMaxAttendRows / heads_per_item;
    const int num_seqs = (int)batch.context_lens.size();
    const int tiles = (group + heads_per_item - 1) / heads_per_item;
    const bool may_split = num_seqs * spec_.num_kv_heads * tiles <= kSplitPairsPerThread * limits_.num_threads;
    auto each_tile = [&](auto add) {
        for (int s = 0; s < num_seqs; s++)
            for (int kv = 0; kv < spec_.num_kv_heads; kv++)
                for (int h = 0; h < group; h += heads_per_item) add(s, kv, kv * group + h, std::min(heads_per_item, group - h));
    };
    if (may_split)
        each_tile([&](int s, int kv, int head, int heads) {
            const int begin = batch.query_starts[s], splits = (batch.context_lens[s] + kAttendSplit) / kAttendSplit;
            if (batch.query_starts[s + 1] - begin != 1 || splits < 2) return;
            for (int i = 0; i < splits; i++) items_.push_back({s, begin, 1, kv, head, heads, i, splits});
        });
    num_split_items_ = items_.size();
    each_tile([&](int s, int kv, int head, int heads) {
        const int begin = batch.query_starts[s], end = batch.query_starts[s + 1];
        const int splits = (batch.context_lens[s] + end - begin - 1) / kAttendSplit + 1;
        if (may_split && end - begin == 1 && splits >= 2) return;
        for (int t = begin; t < end; t += tokens_per_item)
            items_.push_back({s, t, std::min(tokens_per_item, end - t), kv, head, heads, -1, splits});
    });
}

void Model::attend_items(int thread, int layer, const Batch& batch) {
    KvView kv{block_at(layer, 0), nullptr, block_stride_, 0, 0, limits_.block_size, spec_.head_dim};
    const ptrdiff_t head_size = (ptrdiff_t)limits_.block_size * spec_.head_dim;
    for (;;) {
        const size_t i = next_item_.fetch_add(1, std::memory_order_relaxed);
        if (i >= items_.size()) return;
        const AttendItem& item = items_[i];
        kv.block_table = batch.block_tables.data() + (size_t)item.seq * batch.max_num_blocks;
        kv.k_offset = item.kv_head * head_size;
        kv.v_offset = (spec_.num_kv_heads + item.kv_head) * head_size;
        attend_item(*scratch_[thread], kv, item, i, spec_.layers[layer].window);
    }
}

void Model::attend_item(ThreadScratch& scratch, const KvView& kv, const AttendItem& item, size_t slot, int window) {
    const int dim = spec_.head_dim, num_rows = item.num_tokens * item.num_heads;
    const ptrdiff_t ld_qkv = (spec_.num_heads + 2 * spec_.num_kv_heads) * (ptrdiff_t)dim;
    int begin[kMaxAttendRows], end[kMaxAttendRows];
    for (int t = 0, row = 0; t < item.num_tokens; t++)
        for (int h = 0; h < item.num_heads; h++, row++) {
            const int token = item.token_begin + t;
            end[row] = position_[token] + 1;
            begin[row] = window > 0 ? std::max(0, end[row] - window) : 0;
            const float* q = qkv_.data() + token * ld_qkv + (item.head_begin + h) * (ptrdiff_t)dim;
            std::copy(q, q + dim, scratch.queries.data() + (ptrdiff_t)row * dim);
        }
    kernels_.scale(scratch.queries.data(), spec_.attention_scale, num_rows * dim);
    const AttendRows rows{num_rows, scratch.queries.data(), begin, end, spec_.attention_soft_cap};
    if (item.split >= 0) {
        const int from = item.split * kAttendSplit;
        kernels_.attend(kv, rows, from, from + kAttendSplit, partial_at(slots_.data() + slot * slot_size(dim)));
        return;
    }
    Partial total = partial_at(scratch.total.data()), part = partial_at(scratch.part.data());
    std::fill_n(total.max, num_rows, -INFINITY);
    std::fill_n(total.sum, num_rows, 0.0f);
    std::fill_n(total.out, (size_t)num_rows * dim, 0.0f);
    for (int split = begin[0] / kAttendSplit; split * kAttendSplit < end[num_rows - 1]; split++) {
        kernels_.attend(kv, rows, split * kAttendSplit, (split + 1) * kAttendSplit, part);
        kernels_.merge(total, part, num_rows, dim);
    }
    emit_rows(item, total);
}

// Split items of one (sequence, kv head, heads) are neighbours; the thread that owns the first merges them all.
void Model::merge_splits(int thread) {
    const int dim = spec_.head_dim;
    ThreadScratch& scratch = *scratch_[thread];
    Partial total = partial_at(scratch.total.data());
    int pair = 0;
    for (size_t i = 0; i < num_split_items_; i += items_[i].num_splits, pair++) {
        if (pair % limits_.num_threads != thread) continue;
        const AttendItem& item = items_[i];
        std::fill_n(total.max, item.num_heads, -INFINITY);
        std::fill_n(total.sum, item.num_heads, 0.0f);
        std::fill_n(total.out, (size_t)item.num_heads * dim, 0.0f);
        for (int split = 0; split < item.num_splits; split++)
            kernels_.merge(total, partial_at(slots_.data() + (i + split) * slot_size(dim)), item.num_heads, dim);
        emit_rows(item, total);
    }
}

void Model::emit_rows(const AttendItem& item, const Partial& total) {
    const int dim = spec_.head_dim;
    for (int t = 0, row = 0; t < item.num_tokens; t++)
        for (int h = 0; h < item.num_heads; h++, row++) {
            const ptrdiff_t token = item.token_begin + t;
            float* out = attention_.data() + (token * spec_.num_heads + item.head_begin + h) * dim;
            const float* sum = total.out + (ptrdiff_t)row * dim;
            std::copy(sum, sum + dim, out);
            kernels_.scale(out, 1.0f / total.sum[row], dim);
        }
}

}  // namespace inferd
