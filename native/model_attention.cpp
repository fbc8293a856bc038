// Attention of one step: which rows meet which keys, on which thread. The split of the work changes no bit: every row's
// keys are cut at absolute positions and merged in ascending order.
#include <algorithm>
#include <cmath>

#include "model_scratch.h"

namespace inferd {

namespace {

// Keys of the next item that are fetched while one is computed: short contexts end before the processor's own prefetch
// has begun.
constexpr int kAheadTokens = 128;
constexpr double kPieceScores = 64 * 1024;  // scores times head size of a piece, about 1 us

}  // namespace

// Whether one item per kv head holds all new tokens of a sequence that has so many of them.
bool Model::item_writes(int num_new_tokens) const {
    const int group = spec_.num_heads / spec_.num_kv_heads;
    return group <= kMaxAttendRows && num_new_tokens <= kMaxAttendRows / group * kTilesPerItem;
}

void Model::plan_attention(const Batch& batch) {
    items_.clear();
    writes_first_ = false;
    const int group = spec_.num_heads / spec_.num_kv_heads, heads_per_tile = std::min(group, kMaxAttendRows);
    const int num_seqs = (int)batch.context_lens.size();
    const int pairs = num_seqs * spec_.num_kv_heads * ((group + heads_per_tile - 1) / heads_per_tile);
    const bool may_split = pairs <= kSplitPairsPerThread * limits_.num_threads;
    double work = 0;
    for (int split = 1; split >= 0; split--) {  // the items with a slot first
        for (int s = 0; s < num_seqs; s++) {
            const int num_new = batch.query_starts[s + 1] - batch.query_starts[s];
            const int length = batch.context_lens[s] + num_new;
            const bool is_split = may_split && num_new == 1 && length > kAttendSplit;
            if (is_split != (split == 1)) continue;
            writes_first_ |= !item_writes(num_new);
            work += (double)num_new * length * spec_.num_heads;
            for (int kv = 0; kv < spec_.num_kv_heads; kv++) add_items(batch, s, kv, is_split);
        }
        if (split == 1) num_split_items_ = items_.size();
    }
    const double pieces = work * spec_.head_dim / kPieceScores;
    num_attend_pieces_ = (int)std::clamp(pieces, 1.0, (double)items_.size());
}

void Model::add_items(const Batch& batch, int seq, int kv_head, bool is_split) {
    const int group = spec_.num_heads / spec_.num_kv_heads, heads_per_tile = std::min(group, kMaxAttendRows);
    const int tokens_per_item = kMaxAttendRows / heads_per_tile * kTilesPerItem;
    const int begin = batch.query_starts[seq], end = batch.query_starts[seq + 1];
    const int splits = (batch.context_lens[seq] + end - begin - 1) / kAttendSplit + 1;
    const bool writes = item_writes(end - begin);
    for (int h = 0; h < group; h += heads_per_tile) {
        const int head = kv_head * group + h, heads = std::min(heads_per_tile, group - h);
        if (is_split)  // the new token lies in the last split
            for (int i = 0; i < splits; i++)
                items_.push_back({seq, begin, 1, kv_head, head, heads, i, splits, writes && i == splits - 1});
        else
            for (int t = begin; t < end; t += tokens_per_item)
                items_.push_back({seq, t, std::min(tokens_per_item, end - t), kv_head, head, heads, -1, splits, writes});
    }
}

void Model::attend_items(int layer, const Batch& batch) {
    const int64_t num_items = (int64_t)items_.size();
    pool_.each(num_attend_pieces_, [&](int thread, int piece) {
        const int64_t end = num_items * (piece + 1) / num_attend_pieces_;
        for (int64_t i = num_items * piece / num_attend_pieces_; i < end; i++) {
            if (i + 1 < end) fetch_ahead(kv_view(layer, items_[i + 1], batch), items_[i + 1], layer);
            attend_item(*scratch_[thread], kv_view(layer, items_[i], batch), items_[i], i, layer, batch);
        }
    });
    if (num_split_items_ > 0) merge_splits();
}

KvView Model::kv_view(int layer, const AttendItem& item, const Batch& batch) const {
    return {block_at(layer, 0), batch.block_tables.data() + (size_t)item.seq * batch.max_num_blocks, block_bytes_,
            item.kv_head * kv_head_bytes_, (spec_.num_kv_heads + item.kv_head) * kv_head_bytes_, limits_.block_size,
            spec_.head_dim};
}

// The last keys and values of an item of few tokens.
void Model::fetch_ahead(const KvView& kv, const AttendItem& item, int layer) const {
    if (item.split >= 0 || item.num_tokens > 1) return;
    const int position = position_[item.token_begin], window = spec_.layers[layer].window;
    const int visible = std::min({position + 1, kAheadTokens, window > 0 ? window : kAheadTokens});
    for (int block = (position + 1 - visible) / kv.block_size; block <= position / kv.block_size; block++) {
        const uint8_t* data = kv.layer + kv.block_table[block] * kv.block_stride;
        for (ptrdiff_t at = 0; at < kv_head_bytes_; at += 64) {
            __builtin_prefetch(data + kv.k_offset + at);
            __builtin_prefetch(data + kv.v_offset + at);
        }
    }
}

void Model::attend_item(ThreadScratch& scratch, const KvView& kv, const AttendItem& item, size_t slot, int layer,
                        const Batch& batch) {
    const int dim = spec_.head_dim, tokens_per_tile = kMaxAttendRows / item.num_heads;
    const int num_tiles = (item.num_tokens + tokens_per_tile - 1) / tokens_per_tile;
    for (int t = 0; item.writes && t < item.num_tokens; t++) write_token(layer, item.token_begin + t, item.kv_head, batch);
    AttendRows rows[kTilesPerItem];
    for (int i = 0; i < num_tiles; i++) {
        rows[i] = gather_queries(scratch, item, i, layer);
        std::fill_n(total_of(scratch, i).sum, kMaxAttendRows, 0.0f);
    }
    if (item.split >= 0) {
        const int from = item.split * kAttendSplit;
        kv_kernels_.attend(kv, rows[0], from, from + kAttendSplit, partial_at(slots_.data() + slot * slot_size(dim)));
        return;
    }
    const Partial part = partial_at(scratch.part.data());
    const int last = position_[item.token_begin + item.num_tokens - 1];
    for (int from = rows[0].begin[0] / kAttendSplit * kAttendSplit; from <= last; from += kAttendSplit)
        for (int i = 0; i < num_tiles; i++) {
            if (rows[i].end[rows[i].num_rows - 1] <= from) continue;
            kv_kernels_.attend(kv, rows[i], from, from + kAttendSplit, part);
            kernels_.merge(total_of(scratch, i), part, rows[i].num_rows, dim);
        }
    for (int i = 0; i < num_tiles; i++) emit_rows(item, i * tokens_per_tile, total_of(scratch, i));
}

Partial Model::total_of(ThreadScratch& scratch, int tile) const {
    return partial_at(scratch.totals.data() + tile * slot_size(spec_.head_dim));
}

// The query rows of one tile of an item, (tokens, heads), rotated and scaled.
AttendRows Model::gather_queries(ThreadScratch& scratch, const AttendItem& item, int tile, int layer) {
    const int dim = spec_.head_dim, tokens_per_tile = kMaxAttendRows / item.num_heads, window = spec_.layers[layer].window;
    const ptrdiff_t ld_qkv = (spec_.num_heads + 2 * spec_.num_kv_heads) * (ptrdiff_t)dim;
    float* queries = scratch.queries.data() + (size_t)tile * kMaxAttendRows * dim;
    int *begin = scratch.begin[tile], *end = scratch.end[tile], row = 0;
    const int from = item.token_begin + tile * tokens_per_tile;
    const int to = std::min(item.token_begin + item.num_tokens, from + tokens_per_tile);
    for (int token = from; token < to; token++)
        for (int h = 0; h < item.num_heads; h++, row++) {
            end[row] = position_[token] + 1;
            begin[row] = window > 0 ? std::max(0, end[row] - window) : 0;
            const ptrdiff_t at = (item.head_begin + h) * (ptrdiff_t)dim;
            const float* q = qkv_.data() + token * ld_qkv + at;
            float* query = queries + (ptrdiff_t)row * dim;
            std::copy(q, q + dim, query);
            const float* bias = spec_.qkv_bias ? layers_[layer].q_bias + at : nullptr;
            rotate(layer, position_[token], bias, layers_[layer].q_norm, query);
        }
    kernels_.scale(queries, spec_.attention_scale, row * dim);
    return {row, queries, begin, end, spec_.attention_soft_cap};
}

// Split items of one (sequence, kv head, heads) are neighbours.
void Model::merge_splits() {
    const int dim = spec_.head_dim;
    const Partial total = total_of(*scratch_[0], 0);
    for (size_t i = 0; i < num_split_items_; i += items_[i].num_splits) {
        const AttendItem& item = items_[i];
        std::fill_n(total.sum, item.num_heads, 0.0f);
        for (int split = 0; split < item.num_splits; split++)
            kernels_.merge(total, partial_at(slots_.data() + (i + split) * slot_size(dim)), item.num_heads, dim);
        emit_rows(item, 0, total);
    }
}

// The rows of one tile of an item, whose first token is item.token_begin + first.
void Model::emit_rows(const AttendItem& item, int first, const Partial& total) {
    const int dim = spec_.head_dim, end = std::min(item.num_tokens, first + kMaxAttendRows / item.num_heads);
    for (int t = first, row = 0; t < end; t++)
        for (int h = 0; h < item.num_heads; h++, row++) {
            const ptrdiff_t token = item.token_begin + t;
            float* out = attention_.data() + (token * spec_.num_heads + item.head_begin + h) * dim;
            const float* sum = total.out + (ptrdiff_t)row * dim;
            std::copy(sum, sum + dim, out);
            kernels_.scale(out, 1.0f / total.sum[row], dim);
        }
}

}  // namespace inferd
