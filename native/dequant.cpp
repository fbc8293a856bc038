#include "dequant.h"

#include <cstring>
#include <stdexcept>
#include <string>

namespace inferd {

namespace {

float from_half(const uint8_t* p) {
    uint16_t h;
    std::memcpy(&h, p, 2);
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 0) {  // zero and subnormals: exact in fp32
        float f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    uint32_t bits = sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | fraction << 13;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

float from_bf16(const uint8_t* p) {
    uint16_t h;
    std::memcpy(&h, p, 2);
    uint32_t bits = (uint32_t)h << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

// 32 values: 4- or 5-bit with a shared scale; `high` points to the fifth bits or is null
void small_block(const uint8_t* low, const uint8_t* high, float d, float offset, int zero, float* out) {
    uint32_t fifth = 0;
    if (high) std::memcpy(&fifth, high, 4);
    for (int i = 0; i < 32; i++) {
        int q = i < 16 ? low[i] & 15 : low[i - 16] >> 4;
        q |= (int)(fifth >> i & 1) << 4;
        out[i] = (float)(q - zero) * d + offset;
    }
}

// the 6-bit scale and minimum of sub-block j of Q4_K and Q5_K
void scale_min(const uint8_t* s, int j, int& scale, int& minimum) {
    if (j < 4) {
        scale = s[j] & 63;
        minimum = s[j + 4] & 63;
    } else {
        scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        minimum = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

void q2_k(const uint8_t* b, float* out) {
    const uint8_t *scales = b, *q = b + 16;
    const float d = from_half(b + 80), dmin = from_half(b + 82);
    for (int i = 0; i < 256; i++) {
        const uint8_t s = scales[i / 16];
        const int value = q[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
        out[i] = d * (float)(s & 15) * (float)value - dmin * (float)(s >> 4);
    }
}

void q3_k(const uint8_t* b, float* out) {
    const uint8_t *high = b, *q = b + 32, *s = b + 96;
    const float d = from_half(b + 108);
    for (int i = 0; i < 256; i++) {
        const int g = i / 16;
        const int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4, top = s[8 + g % 4] >> (g / 4 * 2) & 3;
        const int scale = (low | top << 4) - 32;
        int value = q[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
        if (!(high[i % 32] >> (i / 32) & 1)) value -= 4;
        out[i] = d * (float)scale * (float)value;
    }
}

void q45_k(const uint8_t* b, const uint8_t* high, const uint8_t* q, float* out) {
    const float d = from_half(b), dmin = from_half(b + 2);
    for (int j = 0; j < 8; j++) {
        int scale, minimum;
        scale_min(b + 4, j, scale, minimum);
        const float step = d * (float)scale, base = dmin * (float)minimum;
        for (int i = 0; i < 32; i++) {
            int value = j % 2 ? q[j / 2 * 32 + i] >> 4 : q[j / 2 * 32 + i] & 15;
            if (high) value |= (high[i] >> j & 1) << 4;
            out[j * 32 + i] = step * (float)value - base;
        }
    }
}

void q6_k(const uint8_t* b, float* out) {
    const uint8_t *low = b, *high = b + 128;
    const int8_t* scales = (const int8_t*)(b + 192);
    const float d = from_half(b + 208);
    for (int i = 0; i < 256; i++) {
        const int half = i / 128, part = i % 128 / 32, l = i % 32;
        const uint8_t nibbles = low[half * 64 + part % 2 * 32 + l];
        const int value = (part < 2 ? nibbles & 15 : nibbles >> 4) | (high[half * 32 + l] >> (part * 2) & 3) << 4;
        out[i] = d * (float)scales[i / 16] * (float)(value - 32);
    }
}

}  // namespace

void dequantize_row(int type, const uint8_t* row, int num_cols, float* out) {
    const int blocks32 = num_cols / 32, blocks256 = num_cols / 256;
    switch (type) {
        case 0: std::memcpy(out, row, sizeof(float) * (size_t)num_cols); return;
        case 1:
            for (int i = 0; i < num_cols; i++) out[i] = from_half(row + 2 * i);
            return;
        case 30:
            for (int i = 0; i < num_cols; i++) out[i] = from_bf16(row + 2 * i);
            return;
        case 2:
            for (int b = 0; b < blocks32; b++, row += 18, out += 32) small_block(row + 2, nullptr, from_half(row), 0, 8, out);
            return;
        case 3:
            for (int b = 0; b < blocks32; b++, row += 20, out += 32)
                small_block(row + 4, nullptr, from_half(row), from_half(row + 2), 0, out);
            return;
        case 6:
            for (int b = 0; b < blocks32; b++, row += 22, out += 32) small_block(row + 6, row + 2, from_half(row), 0, 16, out);
            return;
        case 7:
            for (int b = 0; b < blocks32; b++, row += 24, out += 32)
                small_block(row + 8, row + 4, from_half(row), from_half(row + 2), 0, out);
            return;
        case 8:
            for (int b = 0; b < blocks32; b++, row += 34, out += 32)
                for (int i = 0; i < 32; i++) out[i] = from_half(row) * (float)(int8_t)row[2 + i];
            return;
        case 10:
            for (int b = 0; b < blocks256; b++, row += 84, out += 256) q2_k(row, out);
            return;
        case 11:
            for (int b = 0; b < blocks256; b++, row += 110, out += 256) q3_k(row, out);
            return;
        case 12:
            for (int b = 0; b < blocks256; b++, row += 144, out += 256) q45_k(row, nullptr, row + 16, out);
            return;
        case 13:
            for (int b = 0; b < blocks256; b++, row += 176, out += 256) q45_k(row, row + 16, row + 48, out);
            return;
        case 14:
            for (int b = 0; b < blocks256; b++, row += 210, out += 256) q6_k(row, out);
            return;
        default: throw std::invalid_argument("tensor type " + std::to_string(type) + " cannot be an embedding");
    }
}

}  // namespace inferd
