// Where the time of the steps goes: with the build option INFERD_STAGE_CLOCK, a table on stderr when the process ends;
// without it, nothing at all. One running model only.
#pragma once

#ifdef INFERD_STAGE_CLOCK
#include <x86intrin.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace inferd {

class StageClock {
public:
    static const char* enter(const char* name) {  // returns the stage before
        auto& c = instance();
        const char* before = c.stages_[c.at_].name;
        for (c.at_ = 0; c.at_ < c.count_ && std::strcmp(c.stages_[c.at_].name, name) != 0;) c.at_++;
        if (c.at_ == c.count_) c.stages_[c.count_++].name = name;
        return before;
    }
    // Steps of another size than the last begin a new table.
    struct Step {
        uint64_t begin = __rdtsc();
        explicit Step(size_t num_tokens) {
            auto& c = instance();
            if (num_tokens != c.num_tokens_) c = StageClock(), c.num_tokens_ = num_tokens;
            enter("step");
        }
        ~Step() {
            enter("step");
            Stage& s = instance().stages_[instance().at_];
            s.wall += __rdtsc() - begin;
            s.num_forks++;
        }
    };
    struct Wall {  // one fork and join
        uint64_t begin = __rdtsc();
        ~Wall() {
            Stage& s = instance().stages_[instance().at_];
            s.wall += __rdtsc() - begin;
            s.num_forks++;
        }
    };
    struct Busy {  // one piece
        int thread;
        uint64_t begin = __rdtsc();
        explicit Busy(int thread) : thread(thread & 1) {}
        ~Busy() {
            Stage& s = instance().stages_[instance().at_];
            s.busy[thread] += __rdtsc() - begin;
            s.pieces[thread]++;
        }
    };

private:
    struct Stage {
        const char* name;
        uint64_t wall, num_forks, busy[2], pieces[2];
    };
    static StageClock& instance() {
        static StageClock clock;
        static const int registered = std::atexit([] { instance().print(); });
        return (void)registered, clock;
    }
    StageClock() { stages_[count_++].name = "other"; }
    void print() const {
        std::fprintf(stderr, "stage         forks     wall_kc   busy0   busy1   pieces/fork  kc=thousand cycles\n");
        for (int i = 0; i < count_; i++) {
            const Stage& s = stages_[i];
            if (s.num_forks)
                std::fprintf(stderr, "%-12s %6lu %10.0f %8.0f %8.0f %6.1f %8.2f kc/fork\n", s.name, s.num_forks, s.wall / 1e3, s.busy[0] / 1e3,
                             s.busy[1] / 1e3, (double)(s.pieces[0] + s.pieces[1]) / s.num_forks, s.wall / 1e3 / s.num_forks);
        }
    }
    Stage stages_[64] = {};
    int count_ = 0, at_ = 0;
    size_t num_tokens_ = 0;
};

}  // namespace inferd
#else
#include <cstddef>
namespace inferd {
struct StageClock {
    static const char* enter(const char* name) { return name; }
    struct Step {
        explicit Step(size_t) {}
        ~Step() {}
    };
    struct Wall {
        ~Wall() {}
    };
    struct Busy {
        explicit Busy(int) {}
        ~Busy() {}
    };
};
}  // namespace inferd
#endif
