// Packing adapters, and where they enter a step.
#include "lora.h"

#include <algorithm>
#include <stdexcept>

#include "model.h"

namespace inferd {

namespace {

uint16_t to_bf16(float value) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, value);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

std::unique_ptr<uint16_t[], AlignedDelete> zeros(size_t count) {
    auto* values = static_cast<uint16_t*>(::operator new[](count * sizeof(uint16_t), std::align_val_t(64)));
    std::fill_n(values, count, (uint16_t)0);
    return std::unique_ptr<uint16_t[], AlignedDelete>(values);
}

}  // namespace

LoraMatrix make_lora_matrix(std::span<const float> a, std::span<const float> b, int rank, int n, int k, float scale) {
    LoraMatrix matrix;
    matrix.rank = (rank + kLoraRankStep - 1) / kLoraRankStep * kLoraRankStep;
    matrix.scale = scale;
    matrix.a = zeros((size_t)matrix.rank * k);
    matrix.b = zeros((size_t)matrix.rank * n);
    std::transform(a.begin(), a.end(), matrix.a.get(), to_bf16);
    for (int row = 0; row < n; row++)
        for (int r = 0; r < rank; r++)
            matrix.b[((size_t)(row / 16) * matrix.rank + r) * 16 + row % 16] = to_bf16(b[(size_t)row * rank + r]);
    return matrix;
}

int Model::add_adapter() {
    std::lock_guard lock(adapters_mutex_);
    adapters_[num_adapters_] = std::make_shared<LoraAdapter>(spec_.layers.size());
    return num_adapters_++;
}

void Model::add_adapter_matrix(int id, int layer, int target, std::span<const float> a, std::span<const float> b, int rank,
                               float scale) {
    if (layer < 0 || layer >= (int)layers_.size()) throw std::invalid_argument("adapter: no layer " + std::to_string(layer));
    if (target < 0 || target >= kNumLoraTargets) throw std::invalid_argument("adapter: no target " + std::to_string(target));
    const PackedMatrix& matrix = linear_at(layer, target);
    if (rank < 1 || a.size() != (size_t)rank * matrix.k || b.size() != (size_t)rank * matrix.n)
        throw std::invalid_argument("adapter: a and b of layer " + std::to_string(layer) + ", target " + std::to_string(target) +
                                    " must be " + std::to_string(rank) + " x " + std::to_string(matrix.k) + " and " +
                                    std::to_string(matrix.n) + " x " + std::to_string(rank));
    LoraMatrix made = make_lora_matrix(a, b, rank, matrix.n, matrix.k, scale);
    adapter_of(id)->at(layer, target) = std::move(made);
}

void Model::remove_adapter(int id) {
    std::lock_guard lock(adapters_mutex_);
    adapters_.erase(id);
}

std::shared_ptr<LoraAdapter> Model::adapter_of(int id) const {
    std::lock_guard lock(adapters_mutex_);
    auto found = adapters_.find(id);
    if (found == adapters_.end()) throw std::invalid_argument("step: adapter_ids: no adapter " + std::to_string(id));
    return found->second;
}

const PackedMatrix& Model::linear_at(int layer, int target) const {
    const Layer& at = layers_[layer];
    const Linear* linears[kNumLoraTargets] = {&at.qkv, &at.qkv, &at.qkv, &at.o, &at.gate_up, &at.gate_up, &at.down};
    return linears[target]->parts[target - linears[target]->first_target]->packed;
}

// Rows with an adapter, those of one adapter together. Throws before anything of the step has changed.
void Model::plan_adapters(const Batch& batch) {
    adapter_rows_.clear();
    adapter_groups_.clear();
    max_adapter_rank_ = 0;
    std::vector<int> order;  // sequences that have one
    for (int s = 0; s < (int)batch.adapter_ids.size(); s++)
        if (batch.adapter_ids[s] >= 0) order.push_back(s);
    std::stable_sort(order.begin(), order.end(), [&](int s, int t) { return batch.adapter_ids[s] < batch.adapter_ids[t]; });
    int last = -1;
    for (int s : order) {
        const int id = batch.adapter_ids[s];
        std::shared_ptr<const LoraAdapter> adapter = id == last ? adapter_groups_.back().adapter : adapter_of(id);
        for (int row = batch.query_starts[s]; row < batch.query_starts[s + 1]; row++) {
            const int at = (int)adapter_rows_.size();
            if (id != last || at - adapter_groups_.back().begin == kLoraRowsPerItem) adapter_groups_.push_back({adapter, at, at});
            last = id;
            adapter_rows_.push_back(row);
            adapter_groups_.back().end = at + 1;
        }
        for (const LoraMatrix& matrix : adapter->matrices) max_adapter_rank_ = std::max(max_adapter_rank_, matrix.rank);
    }
    // the most parts of one product, qkv, side by side
    const size_t size = (size_t)limits_.max_num_batched_tokens * 3 * max_adapter_rank_;
    if (size > shrunk_size_) shrunk_.allocate(size), shrunk_size_ = size;
}

// Pieces of work that A x of one product is cut into: groups x parts x runs of ranks. 0 without adapters.
int Model::num_shrinks(const Linear& linear) const {
    if (linear.first_target < 0) return 0;
    const int runs = (max_adapter_rank_ + kLoraRanksPerItem - 1) / kLoraRanksPerItem;
    return (int)(adapter_groups_.size() * linear.parts.size()) * runs;
}

// x: (num_rows, k), the input of the product.
void Model::shrink(const Linear& linear, int item, const float* x) {
    const int runs = (max_adapter_rank_ + kLoraRanksPerItem - 1) / kLoraRanksPerItem, num_parts = (int)linear.parts.size();
    const int first = item % runs * kLoraRanksPerItem, part = item / runs % num_parts;
    const LoraGroup& group = adapter_groups_[item / runs / num_parts];
    const LoraMatrix& matrix = group.adapter->at(linear.layer, linear.first_target + part);
    const int count = std::min(kLoraRanksPerItem, matrix.rank - first), k = linear.parts[part]->packed.k;
    if (count <= 0) return;
    kernels_.lora_shrink(x, adapter_rows_.data() + group.begin, group.end - group.begin, matrix.a.get() + (size_t)first * k, k,
                         count, matrix.scale, shrunk_.data() + part * max_adapter_rank_ + first, 3 * max_adapter_rank_);
}

// Adds B (A x) to columns [begin, end) of a part; out: where column `begin` of row 0 is.
void Model::expand(const Linear& linear, int part, int begin, int end, float* out, ptrdiff_t ldout) const {
    for (const LoraGroup& group : adapter_groups_) {
        const LoraMatrix& matrix = group.adapter->at(linear.layer, linear.first_target + part);
        if (matrix.rank == 0) continue;
        kernels_.lora_expand(shrunk_.data() + part * max_adapter_rank_, 3 * max_adapter_rank_, adapter_rows_.data() + group.begin,
                             group.end - group.begin, matrix.b.get() + (size_t)begin * matrix.rank, matrix.rank, end - begin,
                             out, ldout);
    }
}

}  // namespace inferd
