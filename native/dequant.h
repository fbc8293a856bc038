// One row of a GGUF tensor as fp32: for embedding rows. The packed matrices never go through here.
#pragma once

#include <cstdint>

namespace inferd {

// type: GGUF's number. num_cols: a whole number of the type's blocks. Throws std::invalid_argument on an unknown type.
void dequantize_row(int type, const uint8_t* row, int num_cols, float* out);

}  // namespace inferd
