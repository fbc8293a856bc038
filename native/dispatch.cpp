// Chooses the kernel table once: cpuid (through GCC's runtime, which also checks that the OS saves the registers), or
// the environment variable INFERD_ISA.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace inferd {

namespace {

bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

const KernelTable& avx512_table() {
    return __builtin_cpu_supports("avx512bf16") ? avx512::kBf16Table : avx512::kTable;
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }

const KernelTable& choose() {
    const char* name = std::getenv("INFERD_ISA");
    if (!name || !*name) return has_avx512() ? avx512_table() : has_avx2() ? avx2::kTable : baseline::kTable;
    if (!std::strcmp(name, "avx512") && has_avx512()) return avx512_table();
    if (!std::strcmp(name, "avx2") && has_avx2()) return avx2::kTable;
    if (!std::strcmp(name, "baseline")) return baseline::kTable;
    throw std::invalid_argument(std::string("INFERD_ISA must be one of ") + available_isas() + " on this CPU, got " + name);
}

}  // namespace

const char* available_isas() {
    return has_avx512() ? "avx512,avx2,baseline" : has_avx2() ? "avx2,baseline" : "baseline";
}

const KernelTable& kernels() {
    static const KernelTable& table = choose();
    return table;
}

}  // namespace inferd
