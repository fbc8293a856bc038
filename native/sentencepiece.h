// SentencePiece's BPE over a vocabulary with scores: of all neighbours that join to a piece, the best score joins first.
// Built from the vocabulary alone in milliseconds; a merge list of it has 500,000 entries for 262,000 pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace inferd {

// GGUF's token types.
enum class PieceType : int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

class SentencePiece {
public:
    // text: all pieces one after the other; piece i is text[ends[i-1], ends[i]). unknown_id: -1 = none.
    // Throws std::invalid_argument when the arrays contradict each other.
    SentencePiece(std::string text, std::vector<int64_t> ends, std::vector<float> scores, std::vector<int32_t> types,
                  int unknown_id);

    // Ids of UTF-8 text whose spaces are U+2581 already. User-defined pieces are cut out first, leftmost and longest.
    // Characters outside the vocabulary become byte pieces, or, where there are none, one unknown id per run.
    std::vector<int32_t> encode(std::string_view text) const;

private:
    struct Symbol {
        int64_t begin, size;  // of its bytes in the text; size 0 = joined to the one before
        int prev, next;       // -1 = none
        bool frozen;          // user-defined: joins nothing
    };

    int find(std::string_view piece) const;
    std::string_view piece(int id) const { return {text_.data() + starts_[id], (size_t)(starts_[id + 1] - starts_[id])}; }
    size_t user_defined_at(std::string_view text, size_t at) const;
    std::vector<Symbol> split(std::string_view text) const;
    void append_bytes(std::string_view symbol, std::vector<int32_t>& ids) const;

    std::string text_;
    std::vector<int64_t> starts_;  // (num_pieces + 1,)
    std::vector<float> scores_;
    std::vector<int32_t> types_;
    std::vector<int32_t> table_;   // open addressing, -1 = empty; pieces that text can become
    uint64_t mask_ = 0;
    int byte_ids_[256];
    int unknown_id_;
    size_t longest_user_defined_ = 0;
    bool begins_user_defined_[256] = {};
};

}  // namespace inferd
