// What one thread of a step keeps to itself; shared by the model_*.cpp files only.
#pragma once

#include "model.h"

namespace inferd {

// Decode attention is cut into one item per split while there are fewer (sequence, kv head) pairs than this per thread.
constexpr int kSplitPairsPerThread = 4;

// Row tiles that go through a split of the keys together: its 64 KB (at 64 dims) then come from L2 for all but the first.
constexpr int kTilesPerItem = 8;

inline size_t max_num_slots(int num_threads, size_t max_splits) { return (size_t)kSplitPairsPerThread * num_threads * max_splits; }
inline size_t slot_size(int head_dim) { return (size_t)kMaxAttendRows * (head_dim + 2); }

// Up to so many rows every thread prepares the whole input of a product for itself, in its own caches: cheaper than
// handing over halves and waiting for them.
constexpr int kOwnRows = 32;

struct Model::ThreadScratch {
    ThreadScratch(const ModelSpec& spec, const Limits& limits);
    SamplerScratch sampler;
    Buffer<float> queries;  // (kTilesPerItem, kMaxAttendRows, head_dim)
    Buffer<float> part;     // one slot
    Buffer<float> totals;   // (kTilesPerItem,) slots
    int begin[kTilesPerItem][kMaxAttendRows], end[kTilesPerItem][kMaxAttendRows];
    uint64_t stage = 0;     // whose input rows and quant hold
    const float* input = nullptr;
    Buffer<float> rows;     // (kOwnRows, hidden)
    QuantMemory quant;      // kOwnRows rows
    Buffer<float> gate_up;  // (T, 2 * kGroup)
};

inline Partial partial_at(float* slot) { return {slot, slot + kMaxAttendRows, slot + 2 * kMaxAttendRows}; }

}  // namespace inferd
