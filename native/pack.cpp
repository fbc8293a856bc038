// From the file's blocks to panels. Scalar; a load runs it on all threads, panel by panel.
#include <cstring>
#include <stdexcept>
#include <string>

#include "gemm.h"

namespace inferd {

namespace {

enum Type { F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14, BF16 = 30 };

struct Entry {
    int type;
    Format format;
};
constexpr Entry kFormats[] = {
    {Q4_0, {4, 8, false, 32, false, 15}},  {Q4_1, {4, 0, true, 32, false, 15}},   {Q5_0, {8, 16, false, 32, false, 31}},
    {Q5_1, {8, 0, true, 32, false, 31}},   {Q8_0, {8, 128, false, 32, false, 255}}, {Q2_K, {4, 0, true, 16, true, 3}},
    {Q3_K, {4, 4, false, 16, true, 7}},    {Q4_K, {4, 0, true, 32, true, 15}},    {Q5_K, {8, 0, true, 32, true, 31}},
    {Q6_K, {8, 32, false, 16, true, 63}},
};

int float_size(int type) { return type == F32 ? 4 : type == F16 || type == BF16 ? 2 : 0; }

size_t header_bytes(const Format& f) { return f.super ? 64 * (1 + f.has_min) : 0; }
size_t scale_bytes(const Format& f) {
    if (!f.super) return 64 * (1 + f.has_min);
    return f.sub == 32 ? 64 : 64 * (1 + f.has_min);
}

size_t panel_size(int type, int k) {
    if (int size = float_size(type)) return (size_t)k * kPanelColumns * size;
    const Format& f = format_of(type);
    const size_t blocks = k / 32, supers = f.super ? k / 256 : 0;
    return supers * header_bytes(f) + blocks * (scale_bytes(f) + (size_t)f.bits * 128);
}

// What one K-block of one row contributes: raw fp16 bits and small integers, and 32 unsigned values.
struct Block {
    uint16_t d, dmin;          // flat types: scale and min; K types: of the super-block
    uint8_t scale[2], min[2];  // K types; [1] for sub 16 only
    uint8_t values[32];
};

uint16_t half_at(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, 2);
    return bits;
}

void nibbles(const uint8_t* low, const uint8_t* fifth, uint8_t* out) {
    uint32_t high = 0;
    if (fifth) std::memcpy(&high, fifth, 4);
    for (int i = 0; i < 16; i++) {
        out[i] = (uint8_t)((low[i] & 15) | (high >> i & 1) << 4);
        out[i + 16] = (uint8_t)(low[i] >> 4 | (high >> (i + 16) & 1) << 4);
    }
}

void read_flat(int type, const uint8_t* row, int index, Block& b) {
    static constexpr int kSize[] = {0, 0, 18, 20, 0, 0, 22, 24, 34};
    const uint8_t* p = row + (size_t)index * kSize[type];
    b.d = half_at(p);
    switch (type) {
        case Q4_0: nibbles(p + 2, nullptr, b.values); break;
        case Q4_1: b.dmin = half_at(p + 2), nibbles(p + 4, nullptr, b.values); break;
        case Q5_0: nibbles(p + 6, p + 2, b.values); break;
        case Q5_1: b.dmin = half_at(p + 2), nibbles(p + 8, p + 4, b.values); break;
        default:
            for (int i = 0; i < 32; i++) b.values[i] = (uint8_t)(p[2 + i] ^ 0x80);
    }
}

void read_q45_k(const uint8_t* p, const uint8_t* fifth, const uint8_t* q, int j, Block& b) {
    b.d = half_at(p), b.dmin = half_at(p + 2);
    const uint8_t* s = p + 4;
    b.scale[0] = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    b.min[0] = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
    for (int i = 0; i < 32; i++) {
        int value = j % 2 ? q[j / 2 * 32 + i] >> 4 : q[j / 2 * 32 + i] & 15;
        if (fifth) value |= (fifth[i] >> j & 1) << 4;
        b.values[i] = (uint8_t)value;
    }
}

void read_q6_k(const uint8_t* p, int j, Block& b) {
    b.d = half_at(p + 208);
    const int half = j / 4, part = j % 4;
    const uint8_t *low = p + half * 64 + part % 2 * 32, *high = p + 128 + half * 32;
    for (int i = 0; i < 32; i++) b.values[i] = (uint8_t)((part < 2 ? low[i] & 15 : low[i] >> 4) | (high[i] >> (part * 2) & 3) << 4);
    for (int i = 0; i < 2; i++) b.scale[i] = p[192 + 2 * j + i];
}

void read_q3_k(const uint8_t* p, int j, Block& b) {
    b.d = half_at(p + 108);
    const uint8_t *q = p + 32 + j / 4 * 32, *s = p + 96;
    for (int i = 0; i < 32; i++) b.values[i] = (uint8_t)((q[i] >> (j % 4 * 2) & 3) | (p[i] >> j & 1) << 2);
    for (int i = 0; i < 2; i++) {
        const int g = 2 * j + i, low = g < 8 ? s[g] & 15 : s[g - 8] >> 4, top = s[8 + g % 4] >> (g / 4 * 2) & 3;
        b.scale[i] = (uint8_t)((low | top << 4) - 32);
    }
}

void read_q2_k(const uint8_t* p, int j, Block& b) {
    b.d = half_at(p + 80), b.dmin = half_at(p + 82);
    const uint8_t* q = p + 16 + j / 4 * 32;
    for (int i = 0; i < 32; i++) b.values[i] = q[i] >> (j % 4 * 2) & 3;
    for (int i = 0; i < 2; i++) b.scale[i] = p[2 * j + i] & 15, b.min[i] = p[2 * j + i] >> 4;
}

void read_block(int type, const uint8_t* row, int index, Block& b) {
    const int super = index / 8, j = index % 8;
    switch (type) {
        case Q2_K: return read_q2_k(row + (size_t)super * 84, j, b);
        case Q3_K: return read_q3_k(row + (size_t)super * 110, j, b);
        case Q4_K: return read_q45_k(row + (size_t)super * 144, nullptr, row + (size_t)super * 144 + 16, j, b);
        case Q5_K: return read_q45_k(row + (size_t)super * 176, row + (size_t)super * 176 + 16, row + (size_t)super * 176 + 48, j, b);
        case Q6_K: return read_q6_k(row + (size_t)super * 210, j, b);
        default: return read_flat(type, row, index, b);
    }
}

// Writes column c of one K-block; header is that of its super-block, scales and quants its own.
void write_block(const Format& f, const Block& b, int c, uint8_t* header, uint8_t* scales, uint8_t* quants) {
    uint8_t* halves = f.super ? header : scales;
    std::memcpy(halves + 2 * c, &b.d, 2);
    if (f.has_min) std::memcpy(halves + 64 + 2 * c, &b.dmin, 2);
    if (f.super) {
        scales[c] = b.scale[0];
        if (f.sub == 16) {
            scales[32 + c] = b.scale[1];
            if (f.has_min) scales[64 + c] = b.min[0], scales[96 + c] = b.min[1];
        } else {
            scales[32 + c] = b.min[0];
        }
    }
    if (f.bits == 8) {
        for (int quad = 0; quad < 8; quad++) std::memcpy(quants + quad * 128 + 4 * c, b.values + 4 * quad, 4);
        return;
    }
    for (int j = 0; j < 4; j++) {
        uint8_t* out = quants + (2 * j + c / 16) * 64 + c % 16 * 4;
        for (int i = 0; i < 4; i++) out[i] = (uint8_t)(b.values[8 * j + i] | b.values[8 * j + 4 + i] << 4);
    }
}

void pack_integers(int type, const uint8_t* rows, size_t row_bytes, int num_columns, int k, uint8_t* out) {
    const Format& f = format_of(type);
    uint8_t *at = out, *header = nullptr;
    Block block{};
    for (int index = 0; index < k / 32; index++) {
        if (f.super && index % 8 == 0) header = at, at += header_bytes(f);
        uint8_t *scales = at, *quants = at + scale_bytes(f);
        at = quants + f.bits * 128;
        for (int c = 0; c < num_columns; c++) {
            read_block(type, rows + c * row_bytes, index, block);
            write_block(f, block, c, header, scales, quants);
        }
    }
}

}  // namespace

const Format& format_of(int type) {
    for (const Entry& entry : kFormats)
        if (entry.type == type) return entry.format;
    throw std::invalid_argument("tensor type " + std::to_string(type) + " is not an integer type");
}

size_t packed_bytes(int type, int n, int k) { return panel_size(type, k) * ((n + kPanelColumns - 1) / kPanelColumns); }

PackedMatrix make_packed(int type, int n, int k, const uint8_t* data) {
    return {type, n, k, (n + kPanelColumns - 1) / kPanelColumns, panel_size(type, k), data};
}

void pack(int type, const uint8_t* rows, size_t row_bytes, int n, int k, int panel_begin, int panel_end, uint8_t* out) {
    const size_t size = panel_size(type, k);
    const int element = float_size(type);
    for (int panel = panel_begin; panel < panel_end; panel++) {
        uint8_t* to = out + panel * size;
        const int first = panel * kPanelColumns, count = n - first < kPanelColumns ? n - first : kPanelColumns;
        const uint8_t* from = rows + first * row_bytes;
        if (count < kPanelColumns) std::memset(to, 0, size);
        if (element == 0) {
            pack_integers(type, from, row_bytes, count, k, to);
            continue;
        }
        for (int c = 0; c < count; c++)
            for (int i = 0; i < k; i++)
                std::memcpy(to + ((size_t)i * kPanelColumns + c) * element, from + c * row_bytes + (size_t)i * element, element);
    }
}

void pack_pairs(const uint16_t* rows, int n, int k, int panel_begin, int panel_end, uint16_t* out) {
    for (int panel = panel_begin; panel < panel_end; panel++) {
        uint16_t* to = out + (size_t)panel * kPanelColumns * k;
        for (int c = 0; c < kPanelColumns; c++) {
            const int column = panel * kPanelColumns + c;
            for (int i = 0; i < k; i += 2)
                for (int odd = 0; odd < 2; odd++)
                    to[(size_t)i * kPanelColumns + 2 * c + odd] = column < n ? rows[(size_t)column * k + i + odd] : 0;
        }
    }
}

}  // namespace inferd
