// LoRA adapters: y += scale * B (A x) beside a matrix product, for the rows whose sequence asks for one. A and B are bf16,
// rounded to nearest even; x, A x and the sums are fp32. A row's bits depend on the row and its adapter alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <vector>

namespace inferd {

// The linears of a layer, in the order of their products; the parts of one product are neighbours.
enum class LoraTarget : int { q, k, v, o, gate, up, down };
constexpr int kNumLoraTargets = 7;

constexpr int kLoraRankStep = 4;     // ranks are padded with zeros to a multiple
constexpr int kLoraRanksPerItem = 8; // of A in one piece of work
constexpr int kLoraRowsPerItem = 32; // their inputs stay in L2 while the ranks pass

struct AlignedDelete {
    void operator()(uint16_t* values) const { ::operator delete[](values, std::align_val_t(64)); }
};

// What an adapter adds to one linear of n outputs and k inputs.
struct LoraMatrix {
    int rank = 0;  // padded; 0 = nothing
    float scale = 0;
    std::unique_ptr<uint16_t[], AlignedDelete> a;  // (rank, k)
    std::unique_ptr<uint16_t[], AlignedDelete> b;  // [n / 16][rank][16]: a block of columns is one stream
};

// a (rank, k), b (n, rank); k and n are multiples of 16.
LoraMatrix make_lora_matrix(std::span<const float> a, std::span<const float> b, int rank, int n, int k, float scale);

struct LoraAdapter {
    explicit LoraAdapter(size_t num_layers) : matrices(num_layers * kNumLoraTargets) {}
    LoraMatrix& at(int layer, int target) { return matrices[(size_t)layer * kNumLoraTargets + target]; }
    const LoraMatrix& at(int layer, int target) const { return matrices[(size_t)layer * kNumLoraTargets + target]; }
    std::vector<LoraMatrix> matrices;
};

// Some token rows of one adapter, at most kLoraRowsPerItem.
struct LoraGroup {
    std::shared_ptr<const LoraAdapter> adapter;
    int begin, end;  // of the step's list of rows that have an adapter
};

}  // namespace inferd
