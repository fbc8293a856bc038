#include "sentencepiece.h"

#include <algorithm>
#include <queue>
#include <stdexcept>

namespace inferd {

namespace {

uint64_t hash_of(std::string_view bytes) {  // FNV-1a
    uint64_t h = 0xCBF29CE484222325u;
    for (unsigned char c : bytes) h = (h ^ c) * 0x100000001B3u;
    return h ^ h >> 32;
}

size_t character_size(unsigned char first) { return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4; }

int hex(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

struct Join {
    float score;
    int left, right;
    int64_t size;  // of both when it was found: it is stale once either has grown

    // the queue's top: best score, then leftmost
    bool operator<(const Join& other) const { return score != other.score ? score < other.score : left > other.left; }
};

}  // namespace

SentencePiece::SentencePiece(std::string text, std::vector<int64_t> ends, std::vector<float> scores,
                             std::vector<int32_t> types, int unknown_id)
    : text_(std::move(text)), scores_(std::move(scores)), types_(std::move(types)), unknown_id_(unknown_id) {
    const int count = (int)ends.size();
    if (scores_.size() != ends.size() || types_.size() != ends.size() || unknown_id < -1 || unknown_id >= count)
        throw std::invalid_argument("pieces: one end, score and type each");
    starts_.assign(1, 0);
    for (int64_t end : ends) {
        if (end < starts_.back() || end > (int64_t)text_.size()) throw std::invalid_argument("pieces: ends must ascend");
        starts_.push_back(end);
    }
    std::fill(std::begin(byte_ids_), std::end(byte_ids_), -1);
    size_t slots = 64;
    while (slots < 2 * ends.size()) slots *= 2;
    table_.assign(slots, -1);
    mask_ = slots - 1;
    for (int id = 0; id < count; id++) {
        const auto type = (PieceType)types_[id];
        const std::string_view own = piece(id);
        if (type == PieceType::byte) {
            if (own.size() != 6 || own.substr(0, 3) != "<0x" || hex(own[3]) < 0 || hex(own[4]) < 0)
                throw std::invalid_argument("pieces: a byte piece is not of the form <0xAB>");
            byte_ids_[hex(own[3]) * 16 + hex(own[4])] = id;
        }
        if ((type != PieceType::normal && type != PieceType::user_defined) || own.empty() || find(own) >= 0) continue;
        uint64_t at = hash_of(own) & mask_;
        while (table_[at] >= 0) at = (at + 1) & mask_;
        table_[at] = id;
        if (type == PieceType::user_defined) {
            longest_user_defined_ = std::max(longest_user_defined_, own.size());
            begins_user_defined_[(unsigned char)own[0]] = true;
        }
    }
}

int SentencePiece::find(std::string_view wanted) const {
    for (uint64_t at = hash_of(wanted) & mask_; table_[at] >= 0; at = (at + 1) & mask_)
        if (piece(table_[at]) == wanted) return table_[at];
    return -1;
}

// Bytes of the longest user-defined piece that starts here; 0 = none.
size_t SentencePiece::user_defined_at(std::string_view text, size_t at) const {
    if (!begins_user_defined_[(unsigned char)text[at]]) return 0;
    for (size_t size = std::min(longest_user_defined_, text.size() - at); size > 0; size--) {
        const int id = find(text.substr(at, size));
        if (id >= 0 && (PieceType)types_[id] == PieceType::user_defined) return size;
    }
    return 0;
}

std::vector<SentencePiece::Symbol> SentencePiece::split(std::string_view text) const {
    std::vector<Symbol> symbols;
    for (size_t at = 0; at < text.size();) {
        const size_t frozen = user_defined_at(text, at);
        const size_t size = frozen ? frozen : std::min(character_size((unsigned char)text[at]), text.size() - at);
        const int index = (int)symbols.size();
        symbols.push_back({(int64_t)at, (int64_t)size, index - 1, index + 1, frozen != 0});
        at += size;
    }
    if (!symbols.empty()) symbols.back().next = -1;
    return symbols;
}

std::vector<int32_t> SentencePiece::encode(std::string_view text) const {
    std::vector<Symbol> symbols = split(text);
    std::priority_queue<Join> joins;
    auto consider = [&](int left, int right) {
        if (left < 0 || right < 0 || symbols[left].frozen || symbols[right].frozen) return;
        const int64_t size = symbols[left].size + symbols[right].size;
        const int id = find(text.substr(symbols[left].begin, size));
        if (id >= 0) joins.push({scores_[id], left, right, size});
    };
    for (int i = 0; i + 1 < (int)symbols.size(); i++) consider(i, i + 1);
    while (!joins.empty()) {
        const Join join = joins.top();
        joins.pop();
        Symbol &left = symbols[join.left], &right = symbols[join.right];
        if (left.size == 0 || right.size == 0 || left.size + right.size != join.size) continue;
        left.size = join.size;
        right.size = 0;
        left.next = right.next;
        if (right.next >= 0) symbols[right.next].prev = join.left;
        consider(left.prev, join.left);
        consider(join.left, left.next);
    }
    std::vector<int32_t> ids;
    for (int i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) {
        const std::string_view symbol = text.substr(symbols[i].begin, symbols[i].size);
        const int id = find(symbol);
        if (id >= 0) ids.push_back(id);
        else append_bytes(symbol, ids);
    }
    return ids;
}

void SentencePiece::append_bytes(std::string_view symbol, std::vector<int32_t>& ids) const {
    const bool all = std::all_of(symbol.begin(), symbol.end(), [&](char c) { return byte_ids_[(unsigned char)c] >= 0; });
    if (all) {
        for (char c : symbol) ids.push_back(byte_ids_[(unsigned char)c]);
    } else if (unknown_id_ >= 0 && (ids.empty() || ids.back() != unknown_id_)) {
        ids.push_back(unknown_id_);
    }
}

}  // namespace inferd
