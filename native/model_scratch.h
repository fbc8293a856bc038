// What one thread of a step keeps to itself; shared by the model_*.cpp files only.
#pragma once

#include "model.h"

namespace inferd {

// Decode attention is cut into one item per split while there are fewer (sequence, kv head) pairs than this per thread.
constexpr int kSplitPairsPerThread = 4;

inline size_t max_num_slots(int num_threads, size_t max_splits) { return (size_t)kSplitPairsPerThread * num_threads * max_splits; }
inline size_t slot_size(int head_dim) { return (size_t)kMaxAttendRows * (head_dim + 2); }

struct Model::ThreadScratch {
    ThreadScratch(int vocab, int head_dim)
        : sampler(vocab), queries((size_t)kMaxAttendRows * head_dim), part(slot_size(head_dim)), total(slot_size(head_dim)) {}
    SamplerScratch sampler;
    std::vector<float> queries;      // (kMaxAttendRows, head_dim)
    std::vector<float> part, total;  // one slot each
};

inline Partial partial_at(float* slot) { return {slot, slot + kMaxAttendRows, slot + 2 * kMaxAttendRows}; }

}  // namespace inferd
